"""Numbers computed by the authors' PyTorch networks, in this project's layouts.

The .npz files hold weights, inputs, outputs, chains, losses and gradients at small width in float64.
"""

from pathlib import Path

import numpy as np

from dualmcmc_jax.configs import default
from dualmcmc_jax.training.params import Params

NAMES = ("cifar10", "celeba64")


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "reference" / f"{name}.npz") as file:
        return dict(file)


def config(name: str, reference):
    """The config of the networks and settings behind a reference file."""
    config = default.get_config()
    width = {net: int(reference[f"meta_n{net}f"]) for net in "gdi"}
    pyramid = name == "celeba64"
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


def params(reference, prefix: str = "") -> Params:
    """The weights, or with prefix "grad/" the gradients, as parameter trees; biases without effect are left out."""
    take = lambda name: np.asarray(reference[prefix + name], np.float64)
    stem = lambda net: sorted({key[5:].rsplit(".", 1)[0] for key in reference if key.startswith(net)})

    generator = {}
    for name in stem("netG/"):
        parts = [_RENAMED.get(part, part) for part in name.split(".")]
        if parts[0].startswith("lin"):
            weight, bias = take(f"netG/{name}.weight"), take(f"netG/{name}.bias")
            d = weight.shape[1]
            kernel = weight.reshape(-1, 4, 4, d).transpose(3, 1, 2, 0).reshape(d, -1)
            generator["linear"] = {"kernel": kernel, "bias": bias.reshape(-1, 4, 4).transpose(1, 2, 0).ravel()}
        elif parts[0].startswith("block"):
            block = generator.setdefault(f"block{int(parts[0][5:]) - 1}", {})
            if parts[1].startswith("norm"):
                block[parts[1]] = {"scale": take(f"netG/{name}.weight"), "bias": take(f"netG/{name}.bias")}
            else:
                block[parts[1]] = {"kernel": hwio(take(f"netG/{name}.weight"))}
        elif parts[0].startswith("bn"):
            generator["norm"] = {"scale": take(f"netG/{name}.weight"), "bias": take(f"netG/{name}.bias")}
        else:
            generator["conv"] = {"kernel": hwio(take(f"netG/{name}.weight")), "bias": take(f"netG/{name}.bias")}

    energy = {}
    for name in stem("netE/"):
        weight = take(f"netE/{name}.weight_orig")
        if name.startswith("lin"):
            energy["linear"] = {"kernel": weight.T}
        else:
            block, layer = _energy_path(name)
            energy.setdefault(block, {})[layer] = {"kernel": hwio(weight)}

    encoder = {}
    for name in stem("netI/"):
        weight = hwio(take(f"netI/{name}.weight"))
        if name.startswith("main"):
            encoder[f"conv{int(name[5:]) // 2}"] = {"kernel": weight}
        else:
            head = {"conv51": "mean", "conv52": "log_var"}[name]
            encoder[head] = {"kernel": weight, "bias": take(f"netI/{name}.bias")}
    return Params(energy, generator, encoder)


def vectors(reference):
    """Spectral norm's stored vectors, reordered from [I, kh, kw] to [kh, kw, I]."""
    found = {}
    for key in reference:
        if key.startswith("netE/") and key.endswith("weight_u"):
            name = key[5:].rsplit(".", 1)[0]
            path = "linear" if name.startswith("lin") else "/".join(_energy_path(name))
            i, *size = reference[f"netE/{name}.weight_orig"].shape[1:]
            v = reference[f"netE/{name}.weight_v"].reshape(i, *(size or (1, 1))).transpose(1, 2, 0)
            found[f"{path}/kernel"] = (np.float64(reference[key]), np.float64(v.ravel()))
    return found


def hwio(weight):
    return weight.transpose(2, 3, 1, 0)


def nhwc(x):
    return np.asarray(x, np.float64).transpose(0, 2, 3, 1)


def latent(z):
    return np.asarray(z, np.float64).reshape(len(z), -1)


_RENAMED = {"bn_1": "norm1", "bn_2": "norm2", "sc": "shortcut"}


def _energy_path(name):
    block, layer = name.split(".")
    index = 0 if block == "conv_1" else int(block.removeprefix("block")) - 1
    return f"block{index}", _RENAMED.get(layer, layer)
