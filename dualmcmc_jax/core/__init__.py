"""What does the paper say? Its densities, Langevin dynamics, MCMC revisions and losses, as pure functions of arrays."""
