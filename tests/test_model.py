"""A loaded model takes images as files and samples.npz hold them, and refuses arrays that it cannot use."""

import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

import dualmcmc_jax
from dualmcmc_jax.data import batches
from dualmcmc_jax.model import Model
from dualmcmc_jax.runtime import workdirs
from dualmcmc_jax.training import state as train_state

KEY = jax.random.key(0)


@cache
def model(**fields):
    """Return a model of random parameters, which needs no compiled initialization."""
    config, random = tiny.config(**fields), np.random.RandomState(0)
    fill = lambda leaf: random.normal(size=leaf.shape, scale=0.3).astype(leaf.dtype)
    return Model.create(config, jax.tree.map(fill, train_state.abstract(config).average))


def pixels(num=3):
    return np.random.RandomState(1).randint(256, size=(num, 8, 8, 1)).astype(np.uint8)


def test_uint8_images_are_scaled_by_every_method():
    x = pixels()
    scaled = batches.to_float(jnp.asarray(x), jnp.float32)
    for name in ("energy", "log_density", "encode", "reconstruct"):
        results = (getattr(model(), name)(images) for images in (x, scaled))
        jax.tree.map(np.testing.assert_array_equal, *results)
    np.testing.assert_array_equal(model().infer(KEY, x).z, model().infer(KEY, scaled).z)
    assert jax.jit(lambda model, x: model.energy(x))(model(), x).dtype == jnp.float32


def test_reconstructions_are_those_of_the_bound_model():
    x = pixels()
    start, end = model().reconstruct(x)
    inferred = model().infer(KEY, x)
    np.testing.assert_allclose(start, model().decode(inferred.start), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(end, model().decode(inferred.z), rtol=1e-5, atol=1e-6)
    other, _ = model().reconstruct(x, key=jax.random.key(1), num_steps=0)
    assert np.any(other != start)


def test_sampling_can_use_another_sampler_than_training():
    """The sampler takes its parameters from the config of the x-chain. Settings replace both."""
    fields = {"x_chain__sampler": "annealed", "evaluation__sampler": "hmc", "x_chain__num_leapfrog_steps": 2}
    hmc = model(x_chain__step_size=1e-7, **fields)
    assert hmc.config.x_chain.sampler == "hmc"
    assert hmc.with_trained_x_chain().config.x_chain.sampler == "annealed"
    assert hmc.with_x_chain(1, 1e-4, 1.0, sampler="mala").config.x_chain.sampler == "mala"
    assert hmc.with_x_chain(1, 1e-4, 1.0).config.x_chain.sampler == "hmc"
    with pytest.raises(ValueError, match="sampler: found 'nuts', expected one of 'langevin'"):
        hmc.with_x_chain(1, 1e-4, 1.0, sampler="nuts")

    samples = hmc.synthesize(KEY, 3)
    assert samples.trace.acceptance.shape == (3, 3)
    explicit = {"sampler": "hmc", "num_leapfrog_steps": 2, "num_steps": 3, "step_size": 1e-7}
    plain = model()
    np.testing.assert_allclose(plain.sample(KEY, 3, **explicit), samples.revised, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(hmc.sample(KEY, 3), samples.revised)
    with pytest.raises(TypeError, match=r"friction: found an unknown setting, expected .*num_leapfrog_steps"):
        hmc.sample(KEY, 3, friction=0.1)


IMAGES = r"\[B, 8, 8, 1\] of floats in \[-1, 1\] or of uint8"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (pixels()[0], rf"x: found the shape \(8, 8, 1\), expected {IMAGES}; for one example, use x\[None\]$"),
        (pixels()[..., 0], rf"x: found the shape \(3, 8, 8\), expected {IMAGES}; use x\[\.\.\., None\]$"),
        (np.moveaxis(pixels(), -1, 1), r"x: found the shape \(3, 1, 8, 8\), .*; use numpy\.moveaxis\(x, 1, -1\)$"),
        (np.zeros((2, 16, 16, 1), np.uint8), rf"x: found the shape \(2, 16, 16, 1\), expected {IMAGES}$"),
        (pixels(0), rf"x: found the shape \(0, 8, 8, 1\), expected {IMAGES}$"),
        (pixels().astype(int), rf"x: found int64, expected {IMAGES}$"),
        (0.5, r"x: found the shape \(\), "),
        ("photo.png", rf"x: found str, expected an array {IMAGES}; load_images reads files$"),
        (None, rf"x: found NoneType, expected an array {IMAGES}$"),
    ],
)
def test_other_arrays_are_refused_in_one_line(x, message):
    for call in (
        model().energy,
        model().log_density,
        model().encode,
        model().reconstruct,
        lambda x: model().infer(KEY, x),
    ):
        with pytest.raises(ValueError, match=message):
            call(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: model().synthesize(KEY, 4, steps=3),
            "steps: found an unknown setting, expected one of num_steps, step_s",
        ),
        (
            lambda: model().infer(KEY, pixels(), num_step=3),
            r"num_step: found .*, keep_every; did you mean num_steps\?$",
        ),
        (lambda: model().reconstruct(pixels(), steps=3), "steps: found .*, variance, init, unroll, keep_every$"),
        (lambda: model().synthesize(0, 4), r"key: found int, expected a PRNG key, such as jax\.random\.key\(0\)$"),
        (lambda: model().infer(None, pixels()), "key: found NoneType, expected a PRNG key"),
        (lambda: model().reconstruct(pixels(), key=0), "key: found int, expected a PRNG key"),
        (lambda: model().synthesize(jax.random.split(KEY), 4), r"key: found key<fry> of shape \(2,\), expected a PRNG"),
    ],
)
def test_other_settings_and_keys_are_refused_in_one_line(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


def test_latents_and_vectors_are_checked_and_never_scaled():
    with pytest.raises(ValueError, match=r"z: found the shape \(4,\), expected \[B, 4\] of floats; .*z\[None\]"):
        model().decode(np.zeros(4))
    with pytest.raises(ValueError, match="num_samples: found 0, expected 1 or more"):
        model().synthesize(KEY, 0)
    of_vectors = model(data__shape=(2,))
    with pytest.raises(ValueError, match=r"x: found uint8, expected \[B, 2\] of floats$"):
        of_vectors.energy(np.zeros((3, 2), np.uint8))
    with pytest.raises(ValueError, match=r"x: found the shape \(2,\), expected \[B, 2\] of floats; for one"):
        of_vectors.energy(np.zeros(2))
    with pytest.raises(ValueError, match=r"data\.shape: found \(2,\), expected \(S, S, 1\) or \(S, S, 3\)"):
        dualmcmc_jax.load_images(["photo.png"], of_vectors)


def test_image_files_are_loaded_as_in_training(tmp_path):
    for i, size in enumerate([(8, 8), (20, 10)]):
        Image.new("RGB", size, (50 * i, 50 * i, 50 * i)).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    both = [str(tmp_path / "0.png"), tmp_path / "1.png"]
    for paths in (both, tmp_path, str(tmp_path), (path for path in both)):
        images = dualmcmc_jax.load_images(paths, model())
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images[:, 0, 0, 0], [0, 50])
        assert model().energy(images).shape == (2,)
    np.testing.assert_array_equal(dualmcmc_jax.load_images(both[1:] * 2, model()), images[[1, 1]])
    assert dualmcmc_jax.load_images(both[0], model()).shape == (1, 8, 8, 1)
    (tmp_path / "empty").mkdir()
    for paths, found in [
        (tmp_path / "notes.txt", r"notes\.txt unreadable \(not an image\), expected an image file"),
        ([*both, tmp_path / "none.png"], r"none\.png unreadable \(No such file or directory\), expected an image file"),
        ([], "no images, expected image files, or a folder or zip file of them"),
        (tmp_path / "empty", "no images, expected"),
    ]:
        with pytest.raises(ValueError, match=rf"^paths: found .*{found}"):
            dualmcmc_jax.load_images(paths, model())


def test_load_refuses_a_path_without_a_model(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json: found no such file, expected the config of a run"):
        dualmcmc_jax.load(tmp_path)
    with pytest.raises(ValueError, match=r"nothing at .*/none, expected a workdir or a model\.safetensors"):
        dualmcmc_jax.load(tmp_path / "none")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.safetensors").touch()
    workdirs.replace(tmp_path / "export" / "config.json", json.dumps(tiny.config().to_dict()))
    with pytest.raises(ValueError, match=r"expected a workdir with them or the file .*/export/model\.safetensors$"):
        dualmcmc_jax.load(tmp_path / "export")
    workdirs.replace(tmp_path / "config.json", json.dumps({"train": {"steps": 3}}))
    with pytest.raises(ValueError, match=r"config\.json: found .*steps.*; expected the config of a run"):
        dualmcmc_jax.load(tmp_path)
