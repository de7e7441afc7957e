"""Scores of unusual examples, and how well they separate sets, compared with scikit-learn and with closed forms."""

import csv
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from sklearn import metrics

from dualmcmc_jax.evaluation import detection as question
from dualmcmc_jax.metrics import detection
from dualmcmc_jax.model import Model, Scores
from dualmcmc_jax.training import state as train_state

STORED = Path(__file__).parent / "reference" / "stored_run" / "workdir"


def by_sklearn(data, other):
    labels, scores = np.repeat([0, 1], [len(data), len(other)]), np.concatenate([data, other])
    accepted, kept, _ = metrics.roc_curve(1 - labels, -scores, drop_intermediate=False)  # the data are positive
    auroc, aupr = metrics.roc_auc_score(labels, scores), metrics.average_precision_score(labels, scores)
    return auroc, accepted[np.argmax(kept >= 0.95)], aupr


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize("sizes", [(1, 1), (20, 7), (57, 200), (60, 60)])
def test_rates_equal_those_of_scikit_learn(sizes, decimals):
    """With few decimals, many scores are equal."""
    random = np.random.RandomState(sum(sizes))
    data, other = (random.normal(mean, size=size).round(decimals) for mean, size in zip((0, 1), sizes, strict=True))
    np.testing.assert_allclose(detection.rates(data, other), by_sklearn(data, other), rtol=1e-12, atol=1e-15)
    assert all(np.isnan(detection.rates(data, np.append(other, np.inf))))


def test_rates_of_separate_and_equal_sets_are_known():
    low, high = np.arange(100.0), np.arange(100.0, 200.0)
    assert detection.rates(low, high) == (1, 0, 1)
    assert detection.rates(high, low)[:2] == (0, 1)
    auroc, fpr95, _ = detection.rates(low, low)
    assert (auroc, fpr95) == (0.5, 0.95)


def test_intervals_are_those_of_resampled_sets():
    """The ends of the intervals have Monte Carlo errors of about 0.005."""
    random = np.random.RandomState(0)
    data, other = random.normal(size=60).round(1), random.normal(1, size=40).round(1)
    draws = [detection.rates(random.choice(data, 60), random.choice(other, 40)) for _ in range(1000)]
    expected = np.percentile(draws, (2.5, 97.5), axis=0).T
    found = np.array(detection.intervals(data, other, num_resamples=1010))
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], atol=0.02)
    np.testing.assert_allclose(found[1], expected[1], atol=0.06)  # the FPR95 jumps
    for value, (low, high) in zip(detection.rates(data, other), found, strict=True):
        assert low < value < high
    np.testing.assert_array_equal(detection.intervals(data, other), detection.intervals(data, other))


def test_percentiles_count_a_tie_as_one_half():
    reference, of = Scores(*np.arange(8.0).reshape(4, 2)), Scores(*np.array([[-1, 0, 0.5, 1], *4 * [[9.0] * 4]])[:4])
    np.testing.assert_array_equal(of.percentiles(reference).energy, [0, 25, 50, 75])
    np.testing.assert_array_equal(of.percentiles(reference).latent_norm, [100] * 4)


@pytest.fixture(scope="module")
def gaussian():
    """A model x = z w + b with one latent, and the exact posterior as inference model."""
    fields = {"data__source": "toy2d:rings", "data__shape": (2,), "generator__widths": (), "encoder__widths": ()}
    config = tiny.config(generator__latent_dim=1, generator__variance=0.3, **fields)
    params = jax.tree.map(lambda leaf: 0.1 * np.ones(leaf.shape), train_state.abstract(config).average)
    w, b = np.array([1.5, -0.7]), np.array([0.2, 0.4])
    variance = 1 / (1 + w @ w / 0.3)
    slope = variance * w / 0.3
    generator = {"mlp": {"out": {"kernel": w[None], "bias": b}}}
    kernel = np.stack([slope, np.zeros(2)], axis=1)
    encoder = {"mlp": {"out": {"kernel": kernel, "bias": np.array([-b @ slope, np.log(variance)])}}}
    return Model.create(config, params._replace(generator=generator, encoder=encoder)), w, b


def test_log_likelihood_of_a_linear_model_is_exact(gaussian):
    """With the exact posterior, importance sampling has no error. The other scores are those of their definitions."""
    model, w, b = gaussian
    x = np.random.RandomState(0).normal(size=(5, 2))
    covariance = np.outer(w, w) + 0.3 * np.eye(2)
    squares = np.sum((x - b) @ np.linalg.inv(covariance) * (x - b), axis=1)
    exact = -0.5 * squares - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    scores = model.detect(x, num_latents=3)
    np.testing.assert_allclose(scores.log_likelihood, exact, rtol=1e-10)
    np.testing.assert_allclose(scores.energy, model.energy(x), rtol=1e-12)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(5))
    z = model.bound().infer(jax.vmap(jax.random.fold_in, (0, None))(keys, 0), jnp.asarray(x)).z
    np.testing.assert_allclose(scores.latent_norm, np.abs(z[:, 0]), rtol=1e-10)
    np.testing.assert_allclose(scores.reconstruction_error, np.mean((z * w + b - x) ** 2, axis=1), rtol=1e-10)
    with pytest.raises(ValueError, match=r"^num_latents: found 0, expected 1 or more$"):
        model.detect(x, num_latents=0)


def test_scores_are_oriented_and_those_of_untrained_networks_are_left_out():
    """Higher energies, errors and norms, and lower likelihoods, mean other examples."""
    signs = np.array([1, -1, 1, 1])[:, None]
    held_out, other = (Scores(*values * signs) for values in np.arange(40.0).reshape(2, 4, 5))
    results = question.separation({"far": other}, held_out, [*question.LABELS], seed=0)
    assert [rates["auroc"] for rates in results["far"].values()] == 4 * [[1, 1, 1]]
    (block,) = question.blocks(results, {"far": 5}, 15)
    ones, zeros = (f"{x} ({x} to {x})" for x in ("1.000", "0.000"))
    assert block.table.rows["log p(x) ↑ (nats)"] == [ones, zeros, ones]
    assert block.table.columns[2] == "AUPR ↑ (chance: 0.250)"
    config = tiny.config(loss__energy__data_weight=0.0, loss__energy__model_weight=0.0)
    assert [*question.used(config)] == ["log_likelihood", "reconstruction_error", "latent_norm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, a folder of noisy images, and the same images as arrays."""
    folder = tmp_path_factory.mktemp("detect")
    shutil.copytree(STORED, folder / "run")
    x = np.random.RandomState(0).randint(256, size=(9, 8, 8)).astype(np.uint8)
    np.savez(folder / "noise.npz", x)
    (folder / "mine").mkdir()
    for i, image in enumerate(x):
        Image.fromarray(image).save(folder / "mine" / f"{i}.png")
    (folder / "other.csv").write_text("a,b\n")
    (folder / "picture.png").write_text("")
    return folder


def test_table_figure_and_rates_are_written(folder, tmp_path, programs):
    """Equal images have equal energies, and the percentiles are those of the energies of held-out data."""
    flags = [f"--workdir={folder}/run", "--mode=detect", f"--input={folder}/mine", f"--input=noise={folder}/noise.npz"]
    done = programs.run(*flags, f"--out={tmp_path}/new/scores.csv")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["scores.csv", "scores.json", "scores.png"]
    rows = list(csv.DictReader((tmp_path / "new" / "scores.csv").open()))
    assert [(row["set"], row["name"]) for row in rows] == [
        *(("mine", f"{i}.png") for i in range(9)),
        *(("noise", str(i)) for i in range(9)),
    ]
    assert [row["energy"] for row in rows[:9]] == [row["energy"] for row in rows[9:]]
    assert all(0 <= float(row["latent_norm_percentile"]) <= 100 for row in rows)
    results = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert results["mine"]["energy"] == results["noise"]["energy"]
    energies, shares = (np.array([float(row[name]) for row in rows]) for name in ("energy", "energy_percentile"))
    assert results["mine"]["energy"]["auroc"][0] == pytest.approx(shares.mean() / 100, abs=1e-4)
    assert np.all(np.diff(shares[np.argsort(energies)]) >= 0)
    for label in ("energy ↓", "log p(x) ↑ (nats)", "mine (9)", "AUPR ↑ (chance: 0."):
        assert label in done.stdout


def test_example_in_detect_prints_what_it_shows(capsys):
    text = (Path(__file__).parents[1] / "docs" / "detect.md").read_text()
    block = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    exec(compile(block, "detect.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["FOLDER/none"], "input: found nothing at FOLDER/none, expected a folder, a zip file"),
        (["FOLDER/mine", "mine=FOLDER/noise.npz"], "input: found two sets named 'mine', expected different names"),
        (["a="], "input: found 'a=', expected NAME=SOURCE"),
        (["toy2d:rings"], "data.shape: found (8, 8, 1), expected (2,), the shape of 'toy2d:rings'"),
    ],
)
def test_sets_that_cannot_be_read_are_refused_in_one_line(inputs, message, folder):
    inputs, message = (json.loads(json.dumps(text).replace("FOLDER", str(folder))) for text in (inputs, message))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        question.load(inputs, tiny.config().data)


def test_sets_have_the_names_of_their_sources(folder, monkeypatch):
    monkeypatch.chdir(folder)
    sets = question.load(["mine", "noise.npz", "more=noise.npz", "digits"], tiny.config().data)
    sizes = {name: len(examples.x) for name, examples in sets.items()}
    assert sizes == {"mine": 9, "noise": 9, "more": 9, "digits": 1797}


CASES = [
    ("--input=FOLDER/mine --out=FOLDER/scores", "--out: found FOLDER/scores, expected a file that ends in .csv"),
    ("--input=FOLDER/mine --out=FOLDER/other.csv", "--out: found a file FOLDER/other.csv that --mode=detect has not"),
    ("--input=FOLDER/mine --out=FOLDER/picture.csv", "--out: found a file FOLDER/picture.png that --mode=detect has"),
    ("--mode=reconstruct --input=a --input=b", "--input: found 2 values, expected 1 with --mode=reconstruct"),
]


def test_invalid_flags_are_refused_in_one_line(folder, programs):
    before = sorted(folder.rglob("*"))
    cases = [(text.replace("FOLDER", str(folder)).split(), message) for text, message in CASES]
    running = [programs.start("--mode=detect", f"--workdir={folder}/run", *flags) for flags, _ in cases]
    for program, (_, message) in zip(running, cases, strict=True):
        assert program.wait(120) == 1
        assert message.replace("FOLDER", str(folder)) in program.stderr.strip().splitlines()[-1]
    assert sorted(folder.rglob("*")) == before
