"""torch-fidelity's Inception network with random, calibrated weights, the oracle for our port.

`python tests/inception_oracle.py` rewrites tests/reference/inception.npz. This file holds the oracle's numbers for
machines without torch and torch-fidelity (0.4.0). The batch normalization of the random network is calibrated, because
the outputs of an uncalibrated network hardly depend on the input.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from dualmcmc_jax.features.inception import Inception

REFERENCE = Path(__file__).parent / "reference" / "inception.npz"
SIZES = (32, 64, 299)


def images(size):
    """Return two images, [2, size, size, 3] in uint8: smooth random pictures with noise."""
    random = np.random.RandomState(size)
    coarse = random.uniform(0, 255, (2, 5, 5, 3))
    smooth = ndimage.zoom(coarse, (1, size / 5, size / 5, 1), order=1)
    return np.clip(smooth + random.normal(0, 25, smooth.shape), 0, 255).astype(np.uint8)


def uncalibrated(seed=0):
    """Return He-normal weights by PyTorch name, without the means and variances of batch normalization."""
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.uint8))
    random = np.random.RandomState(seed)
    weights = {}
    for name, params in sorted(shapes["params"].items()):
        if name == "fc":
            continue
        name = name.replace("_branch", ".branch")
        height, width, inputs, outputs = params["kernel"].shape
        kernel = random.standard_normal((outputs, inputs, height, width)) * np.sqrt(2 / (height * width * inputs))
        weights[f"{name}.conv.weight"] = kernel.astype(np.float32)
        weights[f"{name}.bn.weight"] = random.uniform(0.5, 1.5, outputs).astype(np.float32)
        weights[f"{name}.bn.bias"] = random.normal(0, 0.2, outputs).astype(np.float32)
    weights["fc.weight"] = random.normal(0, 0.1, (1008, 2048)).astype(np.float32)
    weights["fc.bias"] = random.normal(0, 1, 1008).astype(np.float32)
    return weights


def reference():
    """Return the calibrated weights, and the stored outputs of torch-fidelity's network for `images` by name."""
    weights = uncalibrated()
    names = sorted(key.removesuffix(".bn.weight") for key in weights if key.endswith(".bn.weight"))
    with np.load(REFERENCE) as file:
        numbers = dict(file)
    sizes = np.cumsum([len(weights[f"{name}.bn.weight"]) for name in names])[:-1]
    for part in ("running_mean", "running_var"):
        for name, array in zip(names, np.split(numbers[part].astype(np.float32), sizes), strict=True):
            weights[f"{name}.bn.{part}"] = array
    return weights, numbers


def network(weights):
    """Return torch-fidelity's network, with outputs "2048", "logits_unbiased" and "logits"."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # torch-fidelity imports torchvision but does not use it here
        sys.meta_path.insert(0, _EmptyTorchvision())
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    for name in list(state):
        if name.endswith(".bn.weight"):
            state[name.replace("weight", "num_batches_tracked")] = torch.tensor(0)
            for part, start in (("running_mean", torch.zeros), ("running_var", torch.ones)):
                state.setdefault(name.replace("weight", part), start(len(state[name])))
    load = torch.load
    torch.load = lambda *_, **__: state
    try:
        return FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased", "logits"], "given")
    finally:
        torch.load = load


def outputs(net, x):
    """Return features, logits without bias, and logits with bias of uint8 images [B, H, W, 3]."""
    import torch

    with torch.no_grad():
        return tuple(y.numpy() for y in net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())))


def _raise_attribute_error(name):
    raise AttributeError(name)


class _EmptyTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An importer of a fake torchvision, in which every name is an empty class."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: (
            type(name, (), {}) if not name.startswith("__") else _raise_attribute_error(name)
        )
        return module

    def exec_module(self, module):
        pass


def main():
    """Calibrate the network, and write the reference file."""
    import torch

    weights = uncalibrated()
    net = network(weights)
    norms = {name: module for name, module in net.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    for module in norms.values():
        module.train()
        module.momentum = None
    large = [jax.image.resize(images(size).astype(np.float32), (2, 299, 299, 3), "linear") for size in SIZES]
    outputs(net, np.concatenate(large).clip(0, 255).astype(np.uint8))
    numbers = {}
    for part in ("running_mean", "running_var"):
        numbers[part] = np.concatenate([getattr(norms[name], part).numpy() for name in sorted(norms)])
        numbers[part] = numbers[part].astype(np.float16)
    np.savez_compressed(REFERENCE, **numbers)
    net = network(reference()[0])
    for size in SIZES:
        features, logits, _ = outputs(net, images(size))
        numbers |= {f"features_{size}": features[:, ::16], f"logits_{size}": logits[:, ::16]}
    np.savez_compressed(REFERENCE, **numbers)


if __name__ == "__main__":
    main()
