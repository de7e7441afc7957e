"""Write tests/reference/cifar10.pth and celeba64.pth: the networks of the .npz files in the authors' checkpoint format.

Run `python tests/write_pth.py`. This needs torch. cifar10.pth also contains Adam states after two updates, and three
entries that the authors' checkpoints do not have: "nextE", "nextG" and "nextI" are the parameters after a third update,
which uses the gradients of the .npz file and the learning rates and L2 coefficients of the config.
"""

import copy
from pathlib import Path

import numpy as np
import torch

RATES = {"netE": (1e-4, 0.0), "netG": (3e-4, 5e-4), "netI": (1e-4, 5e-4)}


def write(name: str) -> None:
    """Write the .pth file of one data set."""
    path = Path(__file__).parent / "reference" / f"{name}.npz"
    reference = dict(np.load(path))
    take = lambda key: torch.tensor(reference[key], dtype=torch.float32)
    content = {"epoch": 7}
    for net in RATES:
        content[net] = {key.split("/")[1]: take(key) for key in reference if key.startswith(f"{net}/")}
        if name == "cifar10":
            content |= adam(net, content[net], lambda key, net=net: take(f"grad/{net}/{key}"))
    torch.save(content, path.with_suffix(".pth"))


def adam(net, state, gradient):
    """Return the state of Adam after two updates, and the parameters after a third update."""
    learning_rate, l2 = RATES[net]
    parameters = {key: x.clone().requires_grad_() for key, x in state.items() if not key.endswith(("_u", "_v"))}
    optimizer = torch.optim.Adam(parameters.values(), 0.0, betas=(0.0, 0.9), weight_decay=l2)
    for scale in (1.0, -0.5, 1.0):
        if scale == 1.0 and optimizer.state:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer.param_groups[0]["lr"] = learning_rate
        for key, x in parameters.items():
            x.grad = scale * gradient(key)
        optimizer.step()
    return {f"opt{net[-1]}": saved, f"next{net[-1]}": {key: x.detach() for key, x in parameters.items()}}


for name in ("cifar10", "celeba64"):
    write(name)
