"""How well held-out examples are reconstructed (Table 3 and Figure 3 of the paper)."""

from collections.abc import Callable

import jax
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.core.langevin import chain_keys
from dualmcmc_jax.core.sampling import reconstruct
from dualmcmc_jax.data.batches import to_float
from dualmcmc_jax.evaluation.drawing import group_size
from dualmcmc_jax.metrics import image_similarity
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training.params import Params
from dualmcmc_jax.training.state import param_dtype
from dualmcmc_jax.training.step import data_settings


def reconstructor(config) -> Callable[..., dict[str, float]]:
    """measure(params, x, *, seed): mean error of examples x [N, ...], uint8 images or vectors, by "METHOD/MEASURE".

    Methods: "encoder", g of the mean of q(z | x); "encoder_chain", after the z-revision of a draw of q; "noise_chain",
    after as many steps from N(0, I). Measures: mse in squared units of x, and of images psnr in decibels and, if its
    window fits, ssim.
    """
    nets = models.build(config)
    measures = {"mse": image_similarity.mse}
    if len(config.data.shape) == 3:
        measures["psnr"] = image_similarity.psnr
        if min(config.data.shape[:2]) >= image_similarity.WINDOW:
            measures["ssim"] = image_similarity.ssim

    def group(constants, index, x):
        params, key = constants
        x = to_float(x, param_dtype(config))
        encode, decode = nets.encoder.bind(params.encoder), nets.generator.bind(params.generator)
        settings = data_settings(config)
        revise = lambda init, i: reconstruct(
            chain_keys(jax.random.fold_in(key, i), index), encode, decode, x, **settings | {"init": init}
        )[1]
        made = {
            "encoder": decode(encode(x)[0]),
            "encoder_chain": revise("encoder", 0),
            "noise_chain": revise("noise", 1),
        }
        return {f"{how}/{what}": measure(y, x) for how, y in made.items() for what, measure in measures.items()}

    run = parallel.stream(group, group_size(config), desc="reconstructing")

    def measure(params: Params, x: np.ndarray, *, seed: int) -> dict[str, float]:
        key = jax.random.fold_in(jax.random.key(seed), _STREAM)
        found = parallel.collect(run((params, key), len(x), x))
        return {name: float(np.mean(values, dtype=np.float64)) for name, values in found.items()}

    return measure


_STREAM = 2025
"""Keeps this randomness apart from that of training, of samples and of strips of the same seed."""
