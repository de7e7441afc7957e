"""The optimizers, compared with PyTorch's formulas for Adam with L2 in the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualmcmc_jax.configs import default
from dualmcmc_jax.training import optimizers


@pytest.mark.parametrize("clip_norm", [0.0, 0.3])
def test_optimizer_follows_the_formulas_of_adam(clip_norm):
    config = default.get_config()
    config.train.compute_dtype = "float64"
    config.optimizer.update(b1=0.5, b2=0.9, decay=0.5, clip_norm=clip_norm)
    config.optimizer.generator.update(learning_rate=0.1, l2=0.01)
    optimizer = optimizers.build(config, steps_per_epoch=3).generator
    random = np.random.default_rng(0)
    start = random.normal(size=4)
    params, w, m, v = jnp.asarray(start), start, np.zeros(4), np.zeros(4)
    state = optimizer.init(params)
    for step in range(7):
        gradient = random.normal(size=4)
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = params + updates
        if clip_norm:
            gradient = gradient * min(1, clip_norm / np.linalg.norm(gradient))
        gradient = gradient + 0.01 * w
        m = 0.5 * m + 0.5 * gradient
        v = 0.9 * v + 0.1 * gradient**2
        m_hat, v_hat = m / (1 - 0.5 ** (step + 1)), v / (1 - 0.9 ** (step + 1))
        w = w - 0.1 * 0.5 ** (step // 3) * m_hat / (np.sqrt(v_hat) + 1e-8)
        np.testing.assert_allclose(params, w, rtol=1e-13)


def test_each_network_has_its_own_learning_rate():
    config = default.get_config()
    gradients = jnp.ones(3)
    steps = [o.update(gradients, o.init(gradients), jnp.zeros(3))[0] for o in optimizers.build(config, 10)]
    np.testing.assert_allclose(jax.tree.leaves(steps), np.outer([-1e-4, -3e-4, -1e-4], np.ones(3)), rtol=1e-6)
