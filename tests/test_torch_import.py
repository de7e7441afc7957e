"""Import of checkpoints of the authors' PyTorch code: the imported networks reproduce the authors' numbers."""

from functools import partial
from pathlib import Path

import authors
import jax
import jax.numpy as jnp
import numpy as np
import pth
import pytest

import dualmcmc_jax
from dualmcmc_jax import torch_reader
from dualmcmc_jax.interop import torch_import, torch_names
from dualmcmc_jax.study import runs
from dualmcmc_jax.training import checkpointing, optimizers
from dualmcmc_jax.training import state as train_state
from dualmcmc_jax.training.step import apply_gradient

pytestmark = pytest.mark.slow

FILES = {name: Path(__file__).parent / "reference" / f"{name}.pth" for name in authors.NAMES}


def config_of(name, dtype="float32"):
    config = authors.config(name, authors.load(name))
    config.train.compute_dtype = dtype
    config.train.batch_size = len(authors.load(name)["x"])
    return config


@pytest.fixture(scope="module")
def imported():
    """Return the train state that is imported from the CIFAR-10 checkpoint, in float32."""
    return torch_import.convert(FILES["cifar10"], config_of("cifar10"))


def relative_error(actual, expected):
    return np.linalg.norm(np.ravel(actual - expected)) / np.linalg.norm(np.ravel(expected))


@pytest.mark.parametrize("name", ["cifar10", pytest.param("celeba64", marks=pytest.mark.more)])
def test_imported_networks_reproduce_the_authors_outputs(name, tmp_path):
    """The file has float32 weights, and the reference was computed with float64 weights."""
    config, reference = config_of(name, "float64"), authors.load(name)
    state = torch_import.convert(FILES[name], config)
    assert int(state.step) == (2 if name == "cifar10" else 0)
    checkpointing.begin(config, tmp_path, state)
    model = dualmcmc_jax.load(tmp_path)
    x, z = authors.nhwc(reference["x"]), authors.latent(reference["z"])
    assert relative_error(model.energy(x), reference["E_x"]) < 1e-4
    generated = model.decode(z)
    assert relative_error(generated, authors.nhwc(reference["G_z"])) < 1e-4
    mean, log_var = model.encode(x)
    assert relative_error(mean, authors.latent(reference["I_mu"])) < 1e-4
    assert relative_error(log_var, authors.latent(reference["I_log_var"])) < 1e-4


def test_next_adam_update_equals_pytorchs(imported):
    """Every parameter moves as in PyTorch. The file contains the parameters after PyTorch's next update."""
    config, reference, state = config_of("cifar10"), authors.load("cifar10"), imported
    gradients = jax.tree.map(jnp.float32, authors.params(reference, config, "grad/"))
    all_optimizers = optimizers.build(config, steps_per_epoch=10)
    content = torch_reader.load(FILES["cifar10"])
    for net, torch_name in torch_names.NAMES.items():
        parts = (all_optimizers, gradients, state.opt_state, state.params)
        optimizer, *trees = (getattr(part, net) for part in parts)
        actual, _ = jax.jit(partial(apply_gradient, optimizer))(*trees)
        expected = torch_names.parameters(net, getattr(state.params, net), content[f"next{torch_name[-1]}"])
        moved = lambda new, net=net: jax.tree.map(np.subtract, new, getattr(state.params, net))
        for a, b in zip(jax.tree.leaves(moved(actual)), jax.tree.leaves(moved(expected)), strict=True):
            # The moves are differences of float32 numbers that are 1000 times larger.
            assert relative_error(a, b) < 2e-3


@pytest.mark.parametrize("name", FILES)
def test_imported_state_has_the_structure_of_a_new_state(name):
    """The shapes and dtypes are those of a new state. Adam counts the file's updates, the schedules count `step`."""
    config = config_of(name)
    state = torch_import.convert(FILES[name], config, step=700)
    assert int(state.step) == 700
    equal = jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), state, train_state.abstract(config))
    assert all(jax.tree.leaves(equal))
    counts = [x for path, x in jax.tree.leaves_with_path(state.opt_state) if "count" in jax.tree_util.keystr(path)]
    assert sorted({int(count) for count in counts}) == [2 if name == "cifar10" else 0, 700]


def content():
    """Return the networks of the CIFAR-10 checkpoint, without the optimizers."""
    return {k: v for k, v in torch_reader.load(FILES["cifar10"]).items() if k.startswith("net")}


def rename(state_dict, old, new):
    state_dict[new] = state_dict.pop(old)


INVALID = {
    "a missing tensor": (
        lambda c: c["netG"].pop("block3.conv2.weight"),
        ["netG.block3.conv2.weight: found none, expected"],
    ),
    "an unknown tensor": (
        lambda c: rename(c["netE"], "block3.conv1.weight_u", "block9.odd"),
        ["netE.block3.conv1.weight_u: found none", "netE.block9.odd: found (16,), expected no such tensor"],
    ),
    "a tensor of another shape": (
        lambda c: c["netI"].update({"main.0.weight": np.zeros((4, 3, 5, 5), np.float32)}),
        ["netI.main.0.weight: found (4, 3, 5, 5), expected (4, 3, 3, 3)"],
    ),
    "a tensor with NaN": (
        lambda c: c["netI"].update({"conv51.bias": np.full(8, np.nan, np.float32)}),
        ["netI.conv51.bias: found NaN"],
    ),
    "no encoder": (lambda c: c.pop("netI"), []),
    "an incomplete Adam state": (lambda c: c.update(optG={"state": {0: {"step": 3}}}), []),
    "no spectral norm": (
        lambda c: [c["netE"].pop(k) for k in list(c["netE"]) if "lin_5.weight_" in k],
        ["netE.lin_5"] * 3,
    ),
}
"""Changes that make a checkpoint invalid, and how the logged lines begin."""


@pytest.mark.parametrize("name", INVALID)
def test_tensors_that_do_not_fit_are_named(name, tmp_path, caplog):
    checkpoint, (make_invalid, expected) = content(), INVALID[name]
    make_invalid(checkpoint)
    pth.save(tmp_path / "bad.pth", checkpoint)
    with pytest.raises(ValueError, match=r"bad.pth: found .*, expected") as error:
        torch_import.convert(tmp_path / "bad.pth", config_of("cifar10"))
    assert len(str(error.value).splitlines()) == 1
    assert len(caplog.messages) == len(expected)
    for line, start in zip(caplog.messages, expected, strict=True):
        assert line.startswith(start)


def test_import_needs_the_activation_of_the_authors(tmp_path):
    config = config_of("cifar10")
    config.energy.activation = "swish"
    with pytest.raises(
        ValueError, match=r"^energy.activation: found 'swish', expected 'relu', as in the authors' code"
    ):
        torch_import.convert(tmp_path / "not_read.pth", config)


def test_names_of_a_network_are_reported_before_its_optimizer(tmp_path, caplog):
    """The states of Adam are found by the order of the network's parameters, so one more parameter has no state."""
    checkpoint = content() | {"optG": {"state": {0: {"step": 3}}}}
    checkpoint["netG"]["extra.weight"] = np.zeros((2, 2), np.float32)
    pth.save(tmp_path / "bad.pth", checkpoint)
    with pytest.raises(ValueError, match=r"bad.pth: found 1 tensors that do not fit the config"):
        torch_import.convert(tmp_path / "bad.pth", config_of("cifar10"))
    assert [line.split(":")[0] for line in caplog.messages] == ["netG.extra.weight"]


def test_tensors_without_effect_are_ignored(imported, tmp_path):
    """The prefix of DataParallel is removed. The running averages of batch normalization are ignored."""
    checkpoint = content()
    checkpoint["netG"] = {f"module.{name}": x for name, x in checkpoint["netG"].items()}
    checkpoint["netG"] |= {
        "module.bn_5.running_mean": np.zeros(16, np.float32),
        "module.bn_5.num_batches_tracked": np.int64([1]),
    }
    pth.save(tmp_path / "good.pth", checkpoint)
    state = torch_import.convert(tmp_path / "good.pth", config_of("cifar10"))
    jax.tree.map(np.testing.assert_array_equal, state.params, imported.params)


def test_import_does_not_overwrite_a_run(imported, tmp_path):
    config = config_of("cifar10")
    checkpointing.begin(config, tmp_path / "run", imported)
    with pytest.raises(ValueError, match="with checkpoints, expected a new folder"):
        checkpointing.begin(config, tmp_path / "run", imported)


def test_program_imports_a_checkpoint(programs, imported, tmp_path):
    command = [*runs.flags_of(config_of("cifar10")), "--mode=import"]
    command += [f"--weights={FILES['cifar10']}", f"--workdir={tmp_path / 'run'}"]
    done = programs.run(*command, "--step=7")
    assert done.stdout == f"imported {FILES['cifar10']} at step 7 into {tmp_path / 'run'}\n", done.stderr
    model = dualmcmc_jax.load(tmp_path / "run")
    assert model.step == 7
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), model.params, imported.average)
    done = programs.run(*command, f"--step={2**31}")
    assert done.stderr == f"error: --step: found {2**31}, expected at most {2**31 - 1}\n"
