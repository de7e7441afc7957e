"""Reconstructions, compared with direct calls of the networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation import reconstruction
from dualmcmc_jax.model import Model


def test_chain_from_the_mean_starts_there():
    """A z-chain that hardly moves keeps the error of the mean of q. From a draw of q the error differs."""
    config = tiny.config(train__compute_dtype="float64", evaluation__group_size=8, z_chain__step_size=1e-20)
    errors = reconstruction.reconstruct(tiny.model(config), sources.load(config.data).test[:8], seed=0)
    mean = errors["reconstruction/encoder/mse"]
    assert errors["reconstruction/encoder_mean_chain/mse"] == pytest.approx(mean, rel=1e-8)
    assert errors["reconstruction/encoder_chain/mse"] != pytest.approx(mean, rel=1e-4)


@pytest.mark.slow
def test_reconstruction_errors_equal_those_of_direct_calls():
    """The encoder's error is that of its mean. Chains that hardly move stay at samples of q or of the prior."""
    config = tiny.coupled(z_chain__step_size=1e-14)
    model = tiny.model(config)
    x = sources.load(config.data).test[:40]
    metrics = reconstruction.reconstruct(model, x, seed=0)
    decode, wrapped = jax.jit(model.decode), np.concatenate([x, x[:8]])
    groups = to_float(jnp.asarray(wrapped), jnp.float64).reshape(3, 16, 8, 8, 1)
    encode = jax.jit(model.encode)
    encoded = [encode(group) for group in groups]
    decoded = np.concatenate([decode(mean) for mean, _ in encoded])[:40]
    assert metrics["reconstruction/encoder/mse"] == pytest.approx(
        np.mean((decoded - to_float(x, np.float64)) ** 2), rel=1e-9
    )

    def expected(draw):
        random = np.random.RandomState(0)
        errors = [
            np.mean((np.asarray(decode(draw(random, mean, log_var))) - x) ** 2)
            for _ in range(40)
            for x, (mean, log_var) in zip(np.asarray(groups[:2]), np.asarray(encoded[:2]), strict=True)
        ]
        return np.mean(errors)

    of_q = expected(lambda random, mean, log_var: mean + np.exp(log_var / 2) * random.normal(size=mean.shape))
    of_prior = expected(lambda random, mean, _: random.normal(size=mean.shape))
    assert metrics["reconstruction/encoder_chain/mse"] == pytest.approx(of_q, rel=0.1)
    assert metrics["reconstruction/noise_chain/mse"] == pytest.approx(of_prior, rel=0.1)
    longer = Model.create(tiny.coupled(z_chain__num_steps=50), model.params)
    better = reconstruction.reconstruct(longer, x, seed=0)
    assert better["reconstruction/noise_chain/mse"] < metrics["reconstruction/noise_chain/mse"]
