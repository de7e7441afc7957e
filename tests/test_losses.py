"""The gradient of each loss, compared with a gradient worked out by hand for linear-Gaussian models."""

import jax
import jax.numpy as jnp
import numpy as np

from dualmcmc_jax.core import losses

random = np.random.default_rng(1)
B, D, d = 6, 4, 2
x, x_revised = random.normal(size=(2, B, D))
z, z_revised = random.normal(size=(2, B, d))


def test_energy_loss_gradient_equals_that_by_hand():
    """For f(x) = -x^T A x / (2 T), dL/dA = 3 mean x x^T / (2 T) - 5 mean x~ x~^T / (2 T) with weights 3 and 5."""
    temperature = 0.7
    a = random.normal(size=(D, D))

    def loss(a):
        energy = lambda x: 0.5 * jnp.einsum("bi,ij,bj->b", x, a, x)
        return losses.energy_loss(energy, x, x_revised, temperature=temperature, data_weight=3.0, model_weight=5.0)

    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(a)
    second = lambda x: x.T @ x / (2 * B * temperature)
    np.testing.assert_allclose(gradient, 3 * second(x) - 5 * second(x_revised), rtol=1e-12)
    np.testing.assert_allclose(terms["energy_data"], np.mean([xi @ a @ xi / 2 for xi in x]), rtol=1e-12)
    np.testing.assert_allclose(terms["energy_model"], np.mean([xi @ a @ xi / 2 for xi in x_revised]), rtol=1e-12)
    np.testing.assert_allclose(value, (3 * terms["energy_data"] - 5 * terms["energy_model"]) / temperature, rtol=1e-12)


def test_energy_penalty_equals_that_by_hand():
    """For energy(x) = w x + b, it is weight / T times the sum over x and x~ of mean (w x + b)^2, a quadratic form."""
    w, b, weight, temperature = random.normal(size=D), 0.4, 3.0, 0.7

    def loss(w, b):
        states = x, x_revised
        return losses.energy_penalty_loss(lambda x: x @ w + b, *states, temperature=temperature, weight=weight)

    (value, terms), (dw, db) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(w, b)
    squared = sum(w @ (s.T @ s / B) @ w + 2 * b * s.mean(0) @ w + b**2 for s in (x, x_revised))
    np.testing.assert_allclose(terms["squared_energy"], squared, rtol=1e-12)
    np.testing.assert_allclose(value, weight * squared / temperature, rtol=1e-12)
    by_hand = sum(2 * s.T @ (s @ w + b) / B for s in (x, x_revised))
    np.testing.assert_allclose(dw, weight * by_hand / temperature, rtol=1e-12)
    np.testing.assert_allclose(db, weight * sum(2 * np.mean(s @ w + b) for s in (x, x_revised)) / temperature)


def test_gradient_penalty_equals_that_by_hand():
    """For energy(x) = x^T A x / 2, the gradient is (A + A^T) x / 2, and its squared norm is quadratic in x.

    The gradient of the penalty with respect to A is that of this quadratic form. A constant energy has no effect.
    """
    a, weight, temperature = random.normal(size=(D, D)), 3.0, 0.7
    energy = lambda a: lambda x: 0.5 * jnp.einsum("bi,ij,bj->b", x, a, x) + 5.0
    loss = lambda a: losses.gradient_penalty_loss(energy(a), x, x_revised, temperature=temperature, weight=weight)
    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(a)
    symmetric, second = (a + a.T) / 2, (x.T @ x + x_revised.T @ x_revised) / B
    np.testing.assert_allclose(terms["squared_slope"], np.trace(symmetric @ second @ symmetric), rtol=1e-12)
    np.testing.assert_allclose(value, weight * terms["squared_slope"] / temperature, rtol=1e-12)
    by_hand = symmetric @ second + second @ symmetric
    np.testing.assert_allclose(gradient, weight * by_hand / temperature, rtol=1e-12)


def test_penalties_of_weight_0_call_no_network():
    for penalty in (losses.energy_penalty_loss, losses.gradient_penalty_loss):
        assert penalty(None, x, x_revised, temperature=0.7, weight=0.0) == (0, {})


def test_gradient_step_lowers_the_energy_of_data():
    """A step against the gradient of Eq. 7 lowers the energy of data relative to the energy of samples."""
    energy = lambda w: lambda x: x @ w
    loss = lambda w: losses.energy_loss(energy(w), x, x + 1, temperature=1.0, data_weight=1.0, model_weight=1.0)[0]
    w = -jax.grad(loss)(jnp.zeros(D))
    assert energy(w)(x).mean() < energy(w)(x + 1).mean()


def test_generator_loss_gradient_equals_that_by_hand():
    """For g(z) = W z and 2 sigma^2 = 1, each pair adds -2 mean (x - W z) z^T to dL/dW, with weights 3 and 5."""
    w = random.normal(size=(D, d))
    loss = lambda w: losses.generator_loss(
        lambda z: z @ w.T, (x, z_revised), (x_revised, z), data_weight=3.0, model_weight=5.0
    )
    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(w)
    part = lambda x, z: -2 * (x - z @ w.T).T @ z / B
    np.testing.assert_allclose(gradient, 3 * part(x, z_revised) + 5 * part(x_revised, z), rtol=1e-12)
    np.testing.assert_allclose(terms["error_data"], np.sum((x - z_revised @ w.T) ** 2) / B, rtol=1e-12)
    np.testing.assert_allclose(value, 3 * terms["error_data"] + 5 * terms["error_model"], rtol=1e-12)


def test_encoder_loss_gradient_equals_that_by_hand():
    """For q(z | x) = N(V x, e^l), dL/dV = -mean e^-l (z - V x) x^T and dL/dl = mean (1 - (z - V x)^2 e^-l) / 2."""
    v, log_var = random.normal(size=(d, D)), random.normal(size=d)

    def loss(v, log_var):
        encode = lambda x: (x @ v.T, jnp.tile(log_var, (B, 1)))
        return losses.encoder_loss(encode, (x, z_revised), (x_revised, z), data_weight=3.0, model_weight=5.0)[0]

    by_mean, by_log_var = jax.grad(loss, argnums=(0, 1))(v, log_var)
    precision = np.exp(-log_var)
    residual = lambda x, z: z - x @ v.T
    mean_part = lambda x, z: -(precision * residual(x, z)).T @ x / B
    var_part = lambda x, z: 0.5 * np.mean(1 - residual(x, z) ** 2 * precision, axis=0)
    # The loss adds 1e-6 to the variance. The relative change of the gradients is about 1e-6 / variance.
    np.testing.assert_allclose(by_mean, 3 * mean_part(x, z_revised) + 5 * mean_part(x_revised, z), rtol=1e-4)
    np.testing.assert_allclose(by_log_var, 3 * var_part(x, z_revised) + 5 * var_part(x_revised, z), rtol=1e-4)
