"""The optimizers, compared with PyTorch's formulas for Adam with L2 in the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def sequence(config, num_updates):
    """Return the parameters [num_updates, 4] of the generator after each update, from the same start and gradients."""
    optimizer = optimizers.build(config, steps_per_epoch=3).generator
    random = np.random.default_rng(0)
    params, rows = jnp.asarray(random.normal(size=4)), []
    state = optimizer.init(params)
    for gradient in random.normal(size=(num_updates, 4)):
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = params + updates
        rows.append(params)
    return np.stack(rows)


def in_float64(**settings):
    config = default.get_config()
    config.train.compute_dtype = "float64"
    config.optimizer.update(b1=0.5, decay=0.5)
    config.optimizer.generator.update({"learning_rate": 0.1, "l2": 0.0} | settings)
    return config


def test_weight_decay_is_that_of_adamw():
    """PyTorch's AdamW: w <- (1 - rate * weight_decay) w - rate * m / (sqrt(v) + eps). L2 in the gradient differs."""
    actual = sequence(in_float64(weight_decay=0.3), 7)
    random = np.random.default_rng(0)
    w, m, v = random.normal(size=4), np.zeros(4), np.zeros(4)
    for step, gradient in enumerate(random.normal(size=(7, 4))):
        rate = 0.1 * 0.5 ** (step // 3)
        m, v = 0.5 * m + 0.5 * gradient, 0.9 * v + 0.1 * gradient**2
        move = (m / (1 - 0.5 ** (step + 1))) / (np.sqrt(v / (1 - 0.9 ** (step + 1))) + 1e-8)
        w = (1 - rate * 0.3) * w - rate * move
        np.testing.assert_allclose(actual[step], w, rtol=1e-13)


def test_weight_decay_shrinks_parameters_without_a_gradient():
    optimizer = optimizers.build(in_float64(weight_decay=0.3, learning_rate=1.0), 10).generator
    params = jnp.arange(1.0, 4.0)
    updates, _ = optimizer.update(jnp.zeros(3), optimizer.init(params), params)
    np.testing.assert_allclose(params + updates, 0.7 * params, rtol=1e-14)


def test_learning_rates_grow_linearly_and_then_decay():
    """With constant gradients and b1 = 0, a step of Adam is the learning rate: rate * min(1, (t + 1) / 4) * decay."""
    config = in_float64()
    config.optimizer.update(b1=0.0, warmup_steps=4)
    optimizer = optimizers.build(config, steps_per_epoch=3).generator
    gradient, steps = jnp.ones(1), []
    state = optimizer.init(gradient)
    for _ in range(8):
        updates, state = optimizer.update(gradient, state, gradient)
        steps.append(-float(updates[0]))
    expected = 0.1 * np.array([0.25, 0.5, 0.75, 1, 1, 1, 1, 1]) * 0.5 ** (np.arange(8) // 3)
    np.testing.assert_allclose(steps, expected, rtol=1e-7)
    resumed = optimizers.resumed(optimizer.init(gradient), step=2, moments=None)
    np.testing.assert_allclose(optimizer.update(gradient, resumed, gradient)[0], -0.075, rtol=1e-7)


def test_without_weight_decay_the_state_has_the_layout_of_earlier_versions():
    """Checkpoints hold the states of the optimizers, so the states of earlier versions must fit."""
    state = optimizers.build(in_float64(), 3).generator.init(jnp.ones(4))
    earlier = (optax.EmptyState, optax.EmptyState, optax.ScaleByAdamState, optax.ScaleByScheduleState)
    assert tuple(map(type, state)) == earlier


def test_each_network_has_its_own_learning_rate():
    config = default.get_config()
    gradients = jnp.ones(3)
    steps = [o.update(gradients, o.init(gradients), jnp.zeros(3))[0] for o in optimizers.build(config, 10)]
    np.testing.assert_allclose(jax.tree.leaves(steps), np.outer([-1e-4, -3e-4, -1e-4], np.ones(3)), rtol=1e-6)
