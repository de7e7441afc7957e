"""Table 3 of the paper: the reconstruction error of held-out data.

    python -m dualmcmc_jax.study table3 --config=digits

Expected: z-steps reduce the error of the inference model. In the paper, dual-MCMC reconstructs best. On digits, VAE and
Divergence Triangle reconstruct better (see configs/baselines).
"""

from dualmcmc_jax.configs import baselines
from dualmcmc_jax.study import Claim, Study, beats

PAPER = {"vae": 0.0341, "abp": 0.0183, "cooperative": 0.0271, "divergence_triangle": 0.0237, "dual-MCMC": 0.0072}


def get_study(config):
    """Return the methods of the table.

    An evaluation measures the error of the inference model alone and the error after additional z-steps. As in the
    authors' code, these steps start at the mean of the inference model.
    """
    baselines.check_base(config)
    variants = {name: baselines.changed(name, config) for name in baselines.names() if name in PAPER} | {
        "dual-MCMC": config
    }
    alone, revised = "reconstruction/encoder/mse", "reconstruction/encoder_mean_chain/mse"
    steps = Claim("z-steps beat the inference model alone", ((1, "dual-MCMC", alone), (-1, "dual-MCMC", revised)))
    claims = [beats("dual-MCMC", name, "reconstruction") for name in variants if name != "dual-MCMC"]
    return Study(variants, (steps, *claims), ("MSE, CIFAR-10", PAPER))
