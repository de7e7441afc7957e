"""Restoration from linear observations: operators, posterior samples against closed forms, and the model's method."""

import json
import shutil
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

import dualmcmc_jax
from dualmcmc_jax.configs import linear_gaussian
from dualmcmc_jax.core import operators, restoration
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation import restoration as evaluation
from dualmcmc_jax.evaluation import suite
from dualmcmc_jax.evaluation.restoration import Restorations
from dualmcmc_jax.model import Model
from dualmcmc_jax.models.build import Params
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training import state as train_state

KEY = jax.random.key(0)
MIX = np.array([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]])  # rows that are neither orthogonal nor of equal length
DIM, VARIANCE, TEMPERATURE = 3, 0.3, 0.4


def operator_of(matrix):
    return operators.linear_operator(lambda x: x @ jnp.asarray(matrix.T, x.dtype), (matrix.shape[1],))


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (operators.inpainting(np.arange(16).reshape(4, 4) % 3 > 0), (4, 4, 2)),
        (operators.inpainting(np.arange(32).reshape(4, 4, 2) % 3 > 0), (4, 4, 2)),
        (operators.denoising(), (4, 4, 2)),
        (operators.average_pooling(2), (4, 4, 2)),
        (operator_of(MIX), (3,)),
        (operator_of(np.array([[1.0, 2, 0], [2, 4, 0], [0, 0, 1]])), (3,)),  # of rank 2
        (operators.linear_operator(lambda x: x[:, ::-1, 1:], (4, 3)), (4, 3)),
    ],
)
def test_operators_have_the_adjoint_and_the_functions_of_their_matrix(operator, shape):
    """The matrix is formed column by column. The functions are compared with those of its singular values."""
    size, random = np.prod(shape), np.random.RandomState(0)
    matrix = np.asarray(operator(jnp.eye(size).reshape(size, *shape))).reshape(size, -1).T
    x, weight = random.normal(size=(2, *shape)), lambda w: 1 / (0.2 * w + 0.7)
    y = operator(jnp.asarray(random.normal(size=(2, *shape))))
    np.testing.assert_allclose(operator.adjoint(y, shape).reshape(2, -1), y.reshape(2, -1) @ matrix, atol=1e-12)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    is_positive = values > 1e-6
    left, values, right = left[:, is_positive], values[is_positive], right[is_positive]
    expected = y.reshape(2, -1) @ (left * weight(values**2)) @ left.T
    np.testing.assert_allclose(operator.gram(y, weight).reshape(2, -1), expected, atol=1e-9)
    expected = x.reshape(2, -1) @ (right.T * weight(values**2)) @ right
    np.testing.assert_allclose(operator.row_space(x, weight).reshape(2, -1), expected, atol=1e-9)
    inverse = y.reshape(2, -1) @ np.linalg.pinv(matrix, rcond=1e-6).T
    np.testing.assert_allclose(operator.first_guess(y, shape).reshape(2, -1), inverse, atol=1e-9)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x + 1, "found a function with a constant term"),
        (jnp.abs, "found a function that is not linear"),
        (lambda x: x * x.sum(), "found a function that is not linear"),
        (lambda x: x - x.mean(0), "found a function that mixes the examples of a batch"),
        (lambda x: 0 * x, "found a function that is 0"),
        (lambda x: x.sum(), r"found a result of float64 of shape \(\) for a batch of 4, expected floats"),
        (lambda x: x @ jnp.zeros((7, 2)), "found TypeError "),
        (lambda x: x @ jnp.asarray(MIX.T), "found 2 outputs, expected at most 1, or orthogonal rows"),
        (3, "found TypeError "),
    ],
)
def test_functions_that_are_no_operators_are_refused_in_one_line(function, message, monkeypatch):
    monkeypatch.setattr(operators, "MAX_OUTPUTS", 1)
    with pytest.raises(ValueError, match=f"^operator: {message}") as error:
        operators.linear_operator(function, (3,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: operators.inpainting(np.full((8, 8), 0.5)), "mask: found values from 0.5 to 0.5, expected only 0 and"),
        (lambda: operators.inpainting(np.zeros((8, 8))), "mask: found only hidden values, expected 1 or more"),
        (lambda: operators.average_pooling(1.5), "factor: found 1.5, expected a positive integer"),
        (
            lambda: restored(operators.inpainting(np.ones((8, 4)))),
            r"mask: found the shape \(8, 4, 1\), expected \(8, 8",
        ),
        (lambda: restored(operators.average_pooling(3)), "factor: found 3, expected a divisor of height and width"),
        (lambda: restored(operator_of(MIX)), "operator: found TypeError "),
        (lambda: restored(lambda x: x**2), "operator: found a function that is not linear"),
        (lambda: restored(operators.denoising(), noise_std=0), "noise_std: found 0, expected a positive number, bec"),
        (lambda: restored(HALF, noise_std=-1), "noise_std: found -1, expected 0 or a positive number"),
        (lambda: restored(HALF, y=np.zeros((1, 4, 8, 1))), r"y: found the shape \(1, 4, 8, 1\), expected \[B, 8, 8, 1"),
        (lambda: restored(HALF, y=np.zeros((1, 8, 8, 1), np.uint8)), "y: found uint8, expected"),
        (lambda: restored(HALF, num_samples=0), "num_samples: found 0, expected 1 or more"),
        (lambda: restored(HALF, z_sampler="nuts"), "z_sampler: found 'nuts', expected one of"),
        (lambda: restored(HALF, z_friction=1.0), "z_friction: found an unknown setting, expected one of num_steps"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}") as error:
        call()
    assert "\n" not in str(error.value)


def test_metropolis_z_chains_are_refused_if_the_generator_couples_them():
    config = tiny.coupled()
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), train_state.abstract(config).average)
    with pytest.raises(ValueError, match=r"^z_sampler: found 'mala', expected 'langevin', because batch statistics"):
        Model.create(config, params).restore(KEY, np.zeros((1, 8, 8, 1)), HALF, noise_std=0, z_sampler="mala")


HALF = operators.inpainting(np.arange(64).reshape(8, 8) < 32)


@cache
def tiny_model():
    return tiny.model(tiny.config())


def restored(operator, *, noise_std=0.1, y=None, **settings):
    return tiny_model().restore(
        KEY, np.zeros((1, 8, 8, 1)) if y is None else y, operator, noise_std=noise_std, **settings
    )


def linear_model():
    """Return a model with a linear generator W z + c, an energy |B x + b|^2 / 2, and these arrays, in float64."""
    config, random = linear_gaussian.get_config(), np.random.RandomState(0)
    config.data.shape, config.generator.latent_dim, config.train.compute_dtype = (DIM,), 2, "float64"
    config.energy.temperature, config.generator.variance = TEMPERATURE, VARIANCE
    weight, bias = 0.4 * random.normal(size=(DIM, 2)), random.normal(size=DIM)
    root, shift = np.eye(DIM) + 0.3 * random.normal(size=(DIM, DIM)), random.normal(size=DIM)
    layer = lambda kernel, bias: {"out": {"kernel": kernel, "bias": bias}}
    encoder = layer(0.1 * random.normal(size=(DIM, 4)), np.zeros(4))
    params = Params(layer(root.T, shift), {"mlp": layer(weight.T, bias)}, {"mlp": encoder})
    return Model.create(config, params), (weight, bias, root, shift)


def gaussian(precision, potential):
    """Return the mean and covariance of the density exp(-x^T precision x / 2 + potential^T x)."""
    covariance = np.linalg.inv(precision)
    return covariance @ potential, covariance


def assert_moments(draws, mean, covariance):
    """Compare independent draws [N, D] with a Gaussian: all moments within five standard errors."""
    variances = np.diag(covariance)
    errors = np.sqrt((np.outer(variances, variances) + covariance**2) / len(draws))
    np.testing.assert_array_less(abs(draws.mean(0) - mean), 5 * np.sqrt(variances / len(draws)) + 1e-9)
    np.testing.assert_array_less(abs(np.cov(draws.T) - covariance), 5 * errors + 1e-9)


@pytest.mark.parametrize(("noise_std", "sampler"), [(0.5, "hmc"), (0.01, "mala"), (0.0, "hmc")])
def test_samples_have_the_closed_form_posterior_of_a_linear_gaussian_model(noise_std, sampler):
    """Both chains are exact, and start at draws that do not depend on each other: 3,000 chains are 3,000 draws."""
    model, (weight, bias, root, shift) = linear_model()
    operator, y = operator_of(MIX), np.array([[0.7, -1.2]])
    chain = {"hmc": {"num_leapfrog_steps": 3, "num_steps": 20}, "mala": {"num_steps": 150}}[sampler]
    settings = {"sampler": sampler, "step_size": 0.03, **chain, "proposals": 2}
    settings |= {"z_sampler": "hmc", "z_step_size": 0.04, "z_num_steps": 20, "z_num_leapfrog_steps": 3}
    drawn = model.restore(KEY, y, operator, noise_std=noise_std, num_samples=3000, **settings)

    # p(z | y): y = A (W z + c) + N(0, sigma^2 A A^T + s^2 I).
    seen = np.linalg.inv(VARIANCE * MIX @ MIX.T + noise_std**2 * np.eye(2))
    a_w = MIX @ weight
    z_mean, z_covariance = gaussian(np.eye(2) + a_w.T @ seen @ a_w, a_w.T @ seen @ (y[0] - MIX @ bias))
    assert_moments(np.asarray(drawn.z[0]), z_mean, z_covariance)

    # pi(x | y): exp(-|B x + b|^2 / (2 T)) N(y; A x, s^2 I), or the same on the line A x = y.
    prior = root.T @ root / TEMPERATURE, -root.T @ shift / TEMPERATURE
    if noise_std:
        mean, covariance = gaussian(prior[0] + MIX.T @ MIX / noise_std**2, prior[1] + MIX.T @ y[0] / noise_std**2)
    else:
        particular, null = np.linalg.pinv(MIX) @ y[0], np.linalg.svd(MIX)[2][2:].T
        u_mean, u_covariance = gaussian(null.T @ prior[0] @ null, null.T @ (prior[1] - prior[0] @ particular))
        mean, covariance = particular + null @ u_mean, null @ u_covariance @ null.T
        assert drawn.misfit.max() < 1e-9
    assert_moments(np.asarray(drawn.samples[0]), mean, covariance)
    assert 0.5 < drawn.x_trace.acceptance.mean() < 0.999

    np.testing.assert_allclose(drawn.mean[0], drawn.samples[0].mean(0), rtol=1e-9)
    np.testing.assert_allclose(drawn.generated[0], drawn.z[0] @ weight.T + bias, rtol=1e-9)
    error = (y - drawn.generated[0] @ MIX.T) @ seen @ (VARIANCE * MIX)  # E[x | z, y] of the generator
    np.testing.assert_allclose(drawn.start[0], drawn.generated[0] + error, rtol=1e-8)


@pytest.mark.parametrize("sampler", ["langevin", "underdamped", "annealed"])
def test_unadjusted_chains_stay_stable_however_small_the_noise(sampler):
    """The step size is 5,000 times the largest stable one of the observation term without the change of coordinates."""
    operator, y, log_prior = operators.denoising(), jnp.ones((50, 3)), lambda x: -0.5 * jnp.sum(x**2, axis=1)
    noise_std = 1e-3
    log_density = lambda x: log_prior(x) + restoration.log_likelihood(y, x, operator, noise_std=noise_std)
    chain = {"noise_std": noise_std, "sampler": sampler, "step_size": 0.01, "num_steps": 20}
    if sampler == "annealed":
        chain |= {"step_annealing": 1000.0, "num_steps": 200}
    x, _ = restoration.run_x_chain(chain_keys(KEY, jnp.arange(50)), y, log_density, operator, **chain)
    assert jnp.sqrt(jnp.mean((x - y) ** 2)) < 3 * noise_std


def test_hidden_pixels_are_ignored_and_observed_pixels_kept():
    """With noise_std = 0, observed pixels are exact, and values at hidden places may even be NaN."""
    model = tiny_model()
    y = np.random.RandomState(0).uniform(-1, 1, (2, 8, 8, 1))
    drawn = model.restore(KEY, y, HALF, noise_std=0, num_samples=3, z_num_steps=2, proposals=1)
    assert drawn.samples.shape == (2, 3, 8, 8, 1)
    np.testing.assert_allclose(drawn.samples[:, :, :4], y[:, None, :4].repeat(3, 1), atol=1e-6)
    assert not np.allclose(drawn.samples[0, 0, 4:], drawn.samples[0, 1, 4:])
    hidden = np.where(np.arange(8)[:, None, None] < 4, y, np.nan)
    again = model.restore(KEY, hidden, HALF, noise_std=0, num_samples=3, z_num_steps=2, proposals=1)
    np.testing.assert_array_equal(again.samples, drawn.samples)
    clipped = np.clip(drawn.samples, -1, 1)
    np.testing.assert_allclose(drawn.mean, clipped.mean(1), atol=1e-6)
    np.testing.assert_allclose(drawn.std, clipped.std(1), atol=1e-6)
    assert drawn.misfit.shape == (2, 3)
    assert drawn.x_trace.log_density.shape == (3, 2, 3)
    assert dualmcmc_jax.inpainting is operators.inpainting


def test_own_operators_on_images_need_not_have_orthogonal_rows():
    """A blur along the rows of images keeps their shape. Half of its rows are left out, so that something is hidden."""
    blur = lambda x: ((x + jnp.roll(x, 1, axis=2)) / 2)[:, :, ::2]
    y = blur(jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (1, 8, 8, 1))))
    for noise_std, atol in ((0.0, 1e-6), (0.1, 1.0)):
        drawn = tiny_model().restore(KEY, y, blur, noise_std=noise_std, num_samples=2, z_num_steps=2, proposals=1)
        np.testing.assert_allclose(blur(drawn.samples[0]), jnp.concatenate([y, y]), atol=atol)
    uneven = lambda x: x * (1 + jnp.arange(8.0)[:, None]) + jnp.roll(x, 1, axis=2)
    with pytest.raises(ValueError, match="noise_std: found 0, expected a positive number, because this operator hides"):
        tiny_model().restore(KEY, y, uneven, noise_std=0, num_samples=1)


STORED = Path(__file__).parent / "reference" / "stored_run" / "workdir"


@pytest.fixture
def photos(tmp_path):
    """A folder of three gray images, and two masks that hide their lower half: half.png, and small.png of 6 x 8."""
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.new("L", (8, 8), 50 * i).save(tmp_path / "photos" / f"{i}.png")
    mask = np.where(np.arange(8)[:, None] < np.full(8, 4), 255, 0).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "half.png")
    Image.fromarray(mask[:6]).save(tmp_path / "small.png")
    return tmp_path


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("inpant", {}, "task: found 'inpant', expected one of 'inpaint', 'denoise', 'superres'; did you mean inpaint"),
        ("inpaint", {}, "mask: found nothing, expected a value for --task=inpaint"),
        ("inpaint", {"mask": "FOLDER/none.png"}, "mask: found FOLDER/none.png unreadable (No such file or directory)"),
        ("inpaint", {"mask": "FOLDER/text"}, "mask: found FOLDER/text unreadable (not an image), expected an image"),
        ("denoise", {}, "noise_std: found nothing, expected the noise's standard deviation, with pixels in [-1, 1]"),
        ("denoise", {"noise_std": -1.0}, "noise_std: found -1.0, expected 0 or a positive number"),
        ("denoise", {"noise_std": 0.1, "factor": 2}, "factor: found with --task=denoise, expected --task=superres"),
        ("superres", {"factor": 3}, "factor: found 3, expected a divisor of height and width"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(task, flags, message, photos):
    (photos / "text").write_text("no image")
    flags = {"mask": None, "factor": None} | {
        name: value.replace("FOLDER", str(photos)) if name == "mask" else value for name, value in flags.items()
    }
    with pytest.raises(ValueError, match="found") as error:
        evaluation.task_operator(task, (8, 8, 1), noise_std=flags.pop("noise_std", None), flags=flags)
    assert str(error.value).startswith(message.replace("FOLDER", str(photos)))


def test_mask_of_another_shape_is_refused_before_anything_is_written(photos, programs):
    flags = ("--mode=restore", "--task=inpaint", f"--mask={photos}/small.png", f"--input={photos}/photos")
    done = programs.run("--pretrained=digits", f"--workdir={photos}/run", *flags, f"--out={photos}/out")
    assert done.returncode == 1
    assert done.stderr == ("error: --mask: found the shape (6, 8, 1), expected (8, 8, 1), that of one example\n")
    assert not (photos / "out").exists()
    assert not (photos / "run").exists()


def test_restored_images_are_written(photos, programs):
    """The restored images are the originals plus 10, so that their PSNR is known: 20 log10(255 / 10)."""
    shutil.copytree(STORED, photos / "run")
    code = """
import numpy as np
from dualmcmc_jax.evaluation import restoration
def restore(model, y, operator, **settings):
    assert settings == {"noise_std": 0.0, "num_samples": 20, "seed": 0}, settings
    x = np.stack([np.full((8, 8, 1), 50 * i, np.uint8) for i in range(3)])
    assert (y[:, 4:] == 0).all() and np.allclose(y[:, :4] * 127.5 + 127.5, x[:, :4])
    return restoration.Restorations(x, np.stack([x, x + 10], 1), x + 10, x / 100, x + 20, x + 5, np.zeros(3))
restoration.restore = restore
"""
    flags = ("--mode=restore", "--task=inpaint", f"--mask={photos}/half.png", f"--input={photos}/photos")
    done = programs.run(f"--workdir={photos}/run", *flags, code=code)
    assert done.returncode == 0, done.stderr
    out = photos / "run" / "restorations" / "inpaint"
    names = ["00000_0.png", "00001_1.png", "00002_2.png", "metrics.json", "restorations.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert np.asarray(Image.open(out / "00002_2.png")).tolist() == [[110] * 8] * 8
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["psnr_mean"] == pytest.approx(20 * np.log10(25.5), abs=1e-4)
    assert metrics["images"]["1.png"]["psnr_generator"] == pytest.approx(20 * np.log10(25.5 / 2), abs=1e-4)
    assert metrics["psnr_sample"] is None  # infinite
    assert (
        "samples 28.13, single samples inf, mean before the x-chain 34.15, generator alone 22.11, what is"
        in done.stdout
    )


def test_observations_are_degraded_as_asked_or_loaded_as_they_are(photos):
    x = np.random.RandomState(0).randint(0, 256, (200, 8, 8, 1)).astype(np.uint8)
    operator = operators.average_pooling(2)
    y = evaluation.degrade(x, operator, noise_std=0.3, seed=0)
    noise = y - to_float(x, np.float64).reshape(200, 4, 2, 4, 2, 1).mean((2, 4))
    assert noise.std() == pytest.approx(0.3, rel=0.05)
    assert not np.array_equal(y, evaluation.degrade(x, operator, noise_std=0.3, seed=1))
    data = tiny.config(data__crop=(0, 0, 8, 8)).data
    y, names = evaluation.load_observed(str(photos / "photos"), data, "superres", {"factor": 2, "mask": None})
    assert y.shape == (3, 4, 4, 1)
    np.testing.assert_allclose(y[:, 0, 0, 0], np.array([0, 50, 100]) / 127.5 - 1, rtol=1e-5)
    assert names == ["0.png", "1.png", "2.png"]


def test_many_observations_are_restored_in_groups_on_all_devices(monkeypatch):
    """Each device restores two observations at a time."""
    monkeypatch.setattr(parallel, "available", lambda: jax.local_devices()[:2])
    model = Model.create(tiny.config(evaluation__group_size=6), tiny_model().params)
    y = evaluation.degrade(np.full((5, 8, 8, 1), 200, np.uint8), HALF, noise_std=0.0, seed=0)
    restored = evaluation.restore(model, y, HALF, noise_std=0.0, num_samples=3, seed=0)
    assert restored.samples.shape == (5, 3, 8, 8, 1)
    assert (restored.samples[:, :, :4] == 200).all()
    assert (restored.observed[:, 4:] == 128).all()
    np.testing.assert_allclose(restored.mean, restored.samples.mean(1), atol=1)
    assert (restored.std[:, :4] < 1e-6).all()
    assert (restored.misfit < 1e-6).all()


def test_question_compares_hidden_pixels_with_closed_forms(monkeypatch):
    """A perfect restoration has no error. The error of the training mean is a variance plus a squared bias."""
    config = tiny.config(evaluation__num_neighbours=40, evaluation__num_samples=600)
    dataset = sources.load(config.data)
    inputs = suite.inputs(config, dataset, None)._replace(held_out=dataset.train[:30])

    def restore(model, y, operator, **settings):
        x = dataset.train[:30][evaluation.subset(30, 50)]
        np.testing.assert_allclose(y[:, :4], to_float(x, np.float32)[:, :4])
        return Restorations(x, x[:, None], x, x / 255, np.full_like(x, 0), x, np.zeros(30))

    monkeypatch.setattr(evaluation, "restore", restore)
    metrics = evaluation.measure(tiny_model(), inputs).metrics
    value = lambda name: metrics[f"restoration/{name}"]
    assert (value("restored/mse"), value("restored/psnr"), value("restored/agreement")) == (
        0,
        pytest.approx(106.02, abs=0.01),
        1,
    )
    assert (value("nearest/mse"), value("nearest/agreement")) == (0, 1)  # the images are training images
    hidden = to_float(dataset.train, np.float64)[:, 4:]
    assert value("generator/mse") == pytest.approx(((hidden[:30] + 1) ** 2).mean(), rel=1e-6)
    assert value("training_mean/mse") == pytest.approx(((hidden[:30] - hidden.mean(0)) ** 2).mean(), rel=1e-3)
    assert value("training_mean/agreement") < 1
