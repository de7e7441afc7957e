"""The digits config: quality of the trained models, memory, and the digit classifier that scores samples."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from sklearn.datasets import load_digits

from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import to_uint8
from dualmcmc_jax.features import classifiers
from dualmcmc_jax.metrics import frechet

ROOT = Path(__file__).parents[1]


def flat(images):
    return np.asarray(images, np.float64).reshape(len(images), -1) / 127.5 - 1


def test_digit_classifier_distinguishes_digits_from_a_fitted_gaussian():
    """Held-out digits have a score of 7.7, and draws from a Gaussian fitted to the pixels a score of 3.0.

    The Frechet distance in pixel space does not distinguish the two.
    """
    data = sources.load(tiny.config().data)
    classifier = classifiers.DigitClassifier()
    order = np.random.RandomState(0).permutation(1797)
    assert np.mean(classifier(data.test).argmax(1) == load_digits().target[order][1500:]) >= 0.99
    scores = classifiers.scores(classifier(data.test))
    assert 7.5 < scores["svc_score"] < 8
    assert scores["class_entropy"] > 2.28
    x = flat(data.train)
    fitted = np.random.default_rng(0).multivariate_normal(x.mean(0), np.cov(x.T), 1500)
    assert frechet.frechet_distance(frechet.moments(fitted), frechet.moments(x)) < 0.1
    images = to_uint8(fitted).reshape(-1, 8, 8, 1)
    assert classifiers.scores(classifier(images))["svc_score"] < 3.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "num_steps", "largest", "smallest", "largest_mse"),
    [
        (0, 300, 0.7, 3.5, 0.04),
        *(pytest.param(seed, 1500, 0.25, 5.0, 0.03, marks=pytest.mark.more) for seed in (0, 1, 2)),
    ],
)
def test_trained_digits_reach_the_expected_quality(seed, num_steps, largest, smallest, largest_mse, tmp_path):
    """Train in a separate process, as a user does: 300 updates, or on demand the 1,500 updates of the config.

    The bounds are the largest Frechet distance in pixel space and the smallest classifier score of the revised samples,
    and the largest reconstruction error after the z-chain.
    """
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    main = [sys.executable, "-m", "dualmcmc_jax.main", "--config=configs/digits.py", f"--workdir={tmp_path}"]
    every = num_steps // 3
    main += [f"--config.train.seed={seed}", f"--config.train.num_steps={num_steps}"]
    main += [f"--config.evaluation.every={every}", f"--config.checkpoint.every={every}"]
    start = time.perf_counter()
    with (tmp_path / "log").open("w") as log:
        training = subprocess.Popen(main, cwd=ROOT, env=env, stdout=log, stderr=log)
    peak_kib = 0
    while training.poll() is None:
        status = Path(f"/proc/{training.pid}/status").read_text()
        peak_kib = max([peak_kib, *map(int, re.findall(r"VmHWM:\s+(\d+)", status))])
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    assert training.returncode == 0, (tmp_path / "log").read_text()[-2000:]
    assert 100_000 < peak_kib < 1.5 * 1024**2
    start = time.perf_counter()
    subprocess.run([*main, "--mode=evaluate", "--seed=1"], cwd=ROOT, env=env, check=True, timeout=300)
    print(f"\nseed {seed}: trained in {seconds:.0f} s and {peak_kib / 1024**2:.2f} GiB", end=", ")
    print(f"evaluated in {time.perf_counter() - start:.0f} s")
    metrics = json.loads((tmp_path / "evaluation" / f"{num_steps}-seed-1" / "metrics.json").read_text())
    print(json.dumps(metrics, indent=2))
    distance = {name: metrics[f"{name}/frechet_pixels_pca"] for name in ("generator", "revised")}
    assert distance["revised"] <= largest
    assert distance["revised"] <= 0.8 * distance["generator"]
    assert metrics["revised/svc_score"] >= smallest
    assert metrics["revised/class_entropy"] >= 2.2
    mse = {method: metrics[f"reconstruction/{method}/mse"] for method in ("encoder", "encoder_chain", "noise_chain")}
    assert mse["encoder_chain"] <= largest_mse
    assert mse["encoder_chain"] <= 0.85 * mse["encoder"] < mse["noise_chain"]
    assert metrics["auroc/uniform_noise"] > 0.95
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    light = [row for row in rows if "light/revised/frechet_pixels_pca" in row]
    assert [row["step"] for row in light] == [every, 2 * every, 3 * every]
    assert light[2]["light/revised/frechet_pixels_pca"] < light[0]["light/revised/frechet_pixels_pca"]
