"""Reference numbers that the authors' PyTorch networks computed, converted to the layouts of this project.

The .npz files hold weights, inputs, outputs, chains, losses and gradients of narrow networks in float64.
"""

from pathlib import Path

import jax
import numpy as np

from dualmcmc_jax import models
from dualmcmc_jax.configs import default
from dualmcmc_jax.interop import torch_names
from dualmcmc_jax.models.build import Params

NAMES = ("cifar10", "celeba64")


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "reference" / f"{name}.npz") as file:
        return dict(file)


def config(name: str, reference):
    """Return the config with the networks and settings of a reference file."""
    config = default.get_config()
    width = {net: int(reference[f"meta_n{net}f"]) for net in "gdi"}
    pyramid = name == "celeba64"  # the widths change from block to block
    levels = 5 if pyramid else 4
    energy = [width["d"] // (2 ** (4 - i) if pyramid else 1) for i in range(levels)]
    generator = [width["g"] // (2**i if pyramid else 1) for i in range(levels)]
    size = 64 if pyramid else 32
    config.data.shape = (size, size, 3)
    config.energy.update(kind="resnet", widths=tuple(energy), num_pools=5 if pyramid else 2)
    config.generator.update(kind="resnet", widths=tuple(generator), latent_dim=int(reference["meta_nz"]))
    config.encoder.update(kind="resnet", widths=tuple(width["i"] * 2**i for i in range(4)))
    config.generator.variance = float(reference["meta_sigma"]) ** 2 / 2
    config.energy.temperature = float(reference["meta_x_noise"] / reference["meta_x_step"]) ** 2
    config.x_chain.step_size = float(reference["meta_x_noise"]) ** 2 / 2
    config.z_chain.step_size = float(reference["meta_z_noise"]) ** 2 / 2
    config.loss.generator.model_weight = float(reference["meta_sample_weight"])
    config.train.compute_dtype = "float64"
    return config


def params(reference, config, prefix: str = "") -> Params:
    """Return the weights as parameters, or the gradients if prefix is "grad/". Biases without effect are omitted."""
    tensors = {net: tensors_of(reference, f"{prefix}{name}/") for net, name in torch_names.NAMES.items()}
    return Params(**{net: torch_names.parameters(net, like, tensors[net]) for net, like in shapes(config).items()})


def vectors(reference, config):
    """Return the singular vectors of spectral normalization that the reference contains."""
    return torch_names.vectors(shapes(config)["energy"], tensors_of(reference, "netE/"))


def shapes(config):
    """Return the shapes of the parameters of each network, by its name."""
    nets = models.build(config)._asdict()
    return {name: jax.eval_shape(net.init, jax.random.key(0)) for name, net in nets.items()}


def tensors_of(reference, prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): np.asarray(x, np.float64) for k, x in reference.items() if k.startswith(prefix)}


def nhwc(x):
    """Convert images [B, C, H, W] to [B, H, W, C]."""
    return np.asarray(x, np.float64).transpose(0, 2, 3, 1)


def latent(z):
    """Convert latents [B, d, 1, 1] to [B, d]."""
    return np.asarray(z, np.float64).reshape(len(z), -1)
