"""Energy-based models trained by Dual-MCMC Teaching (Cui & Han, NeurIPS 2023), in JAX.

The public API consists of these names, which can be imported from dualmcmc_jax:

  load, load_images, Model                        load and use a trained model
  sample, Diagnostics                             chains on a density of your own, with diagnostics
  product, mixture                                combine densities of models and functions
  inpainting, denoising, average_pooling,
  linear_operator, Restoration                    restore examples from observations: model.restore
  langevin, chain_keys, Trace                     the Langevin kernel, for any log-density
  synthesize, infer, revise_x, revise_z,
  reconstruct, Synthesis, Inference               the two MCMC revisions
  log_ebm, log_prior, log_likelihood,
  log_joint, log_posterior                        the densities
  energy_loss, generator_loss, encoder_loss       the losses
  build, Net, Nets                                the networks of a config
"""

__version__ = "0.1.0"

_NAMES_BY_MODULE = {
    "model": "load load_images Model Restoration",
    "core.operators": "inpainting denoising average_pooling linear_operator",
    "own_density": "sample Diagnostics",
    "compose": "product mixture",
    "core.langevin": "langevin chain_keys Trace",
    "core.sampling": "synthesize infer revise_x revise_z reconstruct Synthesis Inference",
    "core.densities": "log_ebm log_prior log_likelihood log_joint log_posterior",
    "core.losses": "energy_loss generator_loss encoder_loss",
    "models.build": "build Net Nets",
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    """Import a public name when it is first used, because importing JAX takes about a second."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
