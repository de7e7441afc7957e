"""The training curves are in an order that helps a reader: losses first, then errors, energies and gradients."""

import numpy as np

from dualmcmc_jax.report import curves


def test_losses_come_first_and_networks_keep_their_order():
    names = ("encoder_loss", "energy_data", "energy_gradient_norm", "energy_loss", "energy_model", "generator_loss")
    names += ("posterior_mse_end", "posterior_mse_start", "revision_mse", "steps_per_second", "light/generator/fid")
    history = {name: (np.arange(3), np.arange(3.0)) for name in names}
    figure = curves.training(history | {"energy_model": (np.arange(3), np.full(3, 5.0))})
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == [
        *("energy_loss", "generator_loss", "encoder_loss"),
        *("revision_mse", "posterior_mse_end", "posterior_mse_start"),
        *("energy_data", "energy_model", "energy_gap", "energy_gradient_norm", "steps_per_second"),
    ]
    (gap,) = (axis for axis in figure.axes if axis.get_title() == "energy_gap")
    np.testing.assert_array_equal(gap.lines[0].get_ydata(), [-5, -4, -3])
