"""What the default digits run must show, on three seeds: the program as a user starts it, then its samples."""

import os
import re
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from dualmcmc_jax import models
from dualmcmc_jax.configs import digits
from dualmcmc_jax.core import sampling
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation import distances
from dualmcmc_jax.training import checkpoints
from dualmcmc_jax.training.step import data_settings

ROOT = Path(__file__).parents[1]


class Judge:
    """An SVC trained on the training digits: how sure it is of each sample's class, and how varied the classes are."""

    def __init__(self):
        images, labels = load_digits(return_X_y=True)
        order = np.random.RandomState(0).permutation(len(images))
        x, y = images[order] / 8 - 1, labels[order]
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            self.svc = SVC(C=10, probability=True, random_state=0).fit(x[:1500], y[:1500])
        self.accuracy = self.svc.score(x[1500:], y[1500:])

    def __call__(self, x):
        """(Inception-style score, entropy of the class histogram in nats) of x [N, 64] in [-1, 1]."""
        p = self.svc.predict_proba(x)
        divergence = np.sum(p * (np.log(p + 1e-12) - np.log(p.mean(0))), axis=1)
        share = np.bincount(p.argmax(1), minlength=10) / len(x)
        return np.exp(divergence.mean()), -np.sum(share * np.log(share + 1e-12))


@pytest.fixture(scope="module")
def judge():
    return Judge()


def flat(images):
    return np.asarray(images, np.float64).reshape(len(images), -1) / 127.5 - 1


def test_the_judge_knows_digits(judge):
    """Held-out digits score 7.7; a Gaussian fitted to the pixels, which the pixel distance cannot tell apart, 3.0."""
    data = sources.load(tiny.config().data)
    assert judge.accuracy >= 0.99
    score, entropy = judge(flat(data.test))
    assert 7.5 < score < 8
    assert entropy > 2.28
    x = flat(data.train)
    fitted = np.random.default_rng(0).multivariate_normal(x.mean(0), np.cov(x.T), 1500)
    assert judge(fitted)[0] < 3.5
    assert distances.frechet(fitted, x) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.more), pytest.param(2, marks=pytest.mark.more)])
def test_digits(seed, judge, tmp_path):
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    main = [sys.executable, "-m", "dualmcmc_jax.main", "--config=configs/digits.py", f"--workdir={tmp_path}"]
    main += [f"--config.train.seed={seed}"]
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
    subprocess.run(
        [*main, "--mode=sample", "--num_samples=1500", "--seed=1"], cwd=ROOT, env=env, check=True, timeout=300
    )

    data = sources.load(tiny.config().data)
    drawn = np.load(tmp_path / "samples" / "samples.npz")
    distance = {name: distances.frechet(flat(drawn[name]), flat(data.train)) for name in ("generator", "revised")}
    score, entropy = judge(flat(drawn["revised"]))
    mse = reconstruction(tmp_path, seed, data.test)
    print(f"\nseed {seed}: {distance}, score {score:.2f}, entropy {entropy:.3f}, reconstruction {mse}")
    print(f"training took {seconds:.0f} s and {peak_kib / 1024**2:.2f} GiB")
    assert distance["revised"] <= 0.25
    assert distance["revised"] <= 0.8 * distance["generator"]
    assert score >= 5.0
    assert entropy >= 2.2
    assert mse["revised"] <= 0.030
    assert mse["revised"] <= 0.85 * mse["encoder mean"] < mse["encoder draw"]


def reconstruction(workdir, seed, images):
    """Mean squared error on held-out images: decoded from q's mean, from a draw of q, and after the z-revision."""
    config = digits.get_config()
    config.train.seed = seed
    params = checkpoints.restore(config, workdir).average
    nets = models.build(config)
    x = to_float(jnp.asarray(images), jnp.float32)
    encode, decode = partial(nets.encoder.apply, params.encoder), partial(nets.generator.apply, params.generator)
    keys = chain_keys(jax.random.key(0), jnp.arange(len(x)))
    start, end = jax.jit(lambda x: sampling.reconstruct(keys, encode, decode, x, **data_settings(config)))(x)
    pictures = {"encoder mean": decode(encode(x)[0]), "encoder draw": start, "revised": end}
    return {name: float(jnp.mean((picture - x) ** 2)) for name, picture in pictures.items()}
