"""The paper: Langevin kernels, densities, MCMC revisions and losses, as pure functions."""
