"""Table 3 of the paper: how well held-out data are reconstructed.

python -m dualmcmc_jax.study table3 --config=digits
"""

from dualmcmc_jax.configs.studies import Claim, Study, changed


def get_study(config):
    """The inference model alone, and z-chains of two lengths from it, of each model."""
    variants = {f"dual-MCMC, {k} z-steps": changed(config, z_chain__num_steps=k) for k in (10, 30)}
    alone, revised = "reconstruction/encoder/mse", "reconstruction/encoder_chain/mse"
    claims = [
        Claim(f"{name}: the z-revision beats the inference model alone", ((1, name, alone), (-1, name, revised)))
        for name in variants
    ]
    return Study(variants, tuple(claims), ("MSE, CIFAR-10", {"dual-MCMC, 10 z-steps": 0.0072}))
