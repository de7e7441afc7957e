"""Energy-based models taught by dual MCMC: a JAX implementation of Cui & Han (NeurIPS 2023).

From Python, all of these are dualmcmc_jax.NAME:

  load                                          a trained model, with its parameters
  langevin, chain_keys, Trace                   the kernel on any log-density
  synthesize, infer, revise_x, revise_z, reconstruct, Synthesis, Inference    the two revisions
  log_ebm, log_prior, log_likelihood, log_joint, log_posterior                the densities
  energy_loss, generator_loss, encoder_loss     the losses
  build, Net, Nets                              the networks of a config
"""

__version__ = "0.1.0"

_HOMES = {
    "model": "load Model",
    "core.langevin": "langevin chain_keys Trace",
    "core.sampling": "synthesize infer revise_x revise_z reconstruct Synthesis Inference",
    "core.densities": "log_ebm log_prior log_likelihood log_joint log_posterior",
    "core.losses": "energy_loss generator_loss encoder_loss",
    "models.build": "build Net Nets",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import a public name when it is first used, because importing JAX takes a second."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
