"""Checkpoints written by PyTorch under the authors' names become workdirs with the authors' numbers."""

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
    """The state of the file for CIFAR-10, in float32."""
    return torch_import.convert(FILES["cifar10"], config_of("cifar10"))


def relative(actual, expected):
    return np.linalg.norm(np.ravel(actual - expected)) / np.linalg.norm(np.ravel(expected))


@pytest.mark.parametrize("name", ["cifar10", pytest.param("celeba64", marks=pytest.mark.more)])
def test_the_authors_numbers(name, tmp_path):
    config, reference = config_of(name, "float64"), authors.load(name)  # of weights rounded to float32
    state = torch_import.convert(FILES[name], config)
    assert int(state.step) == (2 if name == "cifar10" else 0)
    checkpointing.begin(config, tmp_path, state)
    model = dualmcmc_jax.load(tmp_path)
    x, z = authors.nhwc(reference["x"]), authors.latent(reference["z"])
    assert relative(model.energy(x), reference["E_x"]) < 1e-4
    generated = model.decode(z)
    assert relative(generated, authors.nhwc(reference["G_z"])) < 1e-4
    mean, log_var = model.encode(x)
    assert relative(mean, authors.latent(reference["I_mu"])) < 1e-4
    assert relative(log_var, authors.latent(reference["I_log_var"])) < 1e-4


def test_adam_goes_on(imported):
    """The next update is the one that PyTorch makes, for every parameter."""
    config, reference, state = config_of("cifar10"), authors.load("cifar10"), imported
    gradients = jax.tree.map(jnp.float32, authors.params(reference, config, "grad/"))
    updates = optimizers.build(config, steps_per_epoch=10)
    content = torch_reader.load(FILES["cifar10"])
    for net, theirs in torch_names.NAMES.items():
        parts = (getattr(tree, net) for tree in (updates, gradients, state.opt_state, state.params))
        update, *trees = parts
        actual, _ = jax.jit(partial(apply_gradient, update))(*trees)
        expected = torch_names.parameters(net, getattr(state.params, net), content[f"next{theirs[-1]}"])
        moved = lambda new, net=net: jax.tree.map(np.subtract, new, getattr(state.params, net))
        for a, b in zip(jax.tree.leaves(moved(actual)), jax.tree.leaves(moved(expected)), strict=True):
            assert relative(a, b) < 2e-3  # differences of float32 numbers a thousand times their size


@pytest.mark.parametrize("name", FILES)
def test_training_goes_on(name):
    """An imported state has what a fresh one has, of the same shapes and kinds."""
    config = config_of(name)
    state = torch_import.convert(FILES[name], config, step=700)
    assert int(state.step) == 700
    alike = jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), state, train_state.abstract(config))
    assert all(jax.tree.leaves(alike))
    counts = [x for path, x in jax.tree.leaves_with_path(state.opt_state) if "count" in jax.tree_util.keystr(path)]
    assert sorted({int(count) for count in counts}) == [2 if name == "cifar10" else 0, 700]


def content():
    return {k: v for k, v in torch_reader.load(FILES["cifar10"]).items() if k.startswith("net")}


def rename(state, old, new):
    state[new] = state.pop(old)


BAD = {
    "missing": (lambda c: c["netG"].pop("block3.conv2.weight"), ["netG.block3.conv2.weight: found none, expected"]),
    "extra": (
        lambda c: rename(c["netE"], "block3.conv1.weight_u", "block9.odd"),
        ["netE.block3.conv1.weight_u: found none", "netE.block9.odd: found (16,), expected no such tensor"],
    ),
    "misshapen": (
        lambda c: c["netI"].update({"main.0.weight": np.zeros((4, 3, 5, 5), np.float32)}),
        ["netI.main.0.weight: found (4, 3, 5, 5), expected (4, 3, 3, 3)"],
    ),
    "NaN": (
        lambda c: c["netI"].update({"conv51.bias": np.full(8, np.nan, np.float32)}),
        ["netI.conv51.bias: found NaN"],
    ),
    "no network": (lambda c: c.pop("netI"), []),
    "an odd Adam": (lambda c: c.update(optG={"state": {0: {"step": 3}}}), []),
    "no spectral norm": (
        lambda c: [c["netE"].pop(k) for k in list(c["netE"]) if "lin_5.weight_" in k],
        ["netE.lin_5"] * 3,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name, tmp_path, caplog):
    made, (spoil, expected) = content(), BAD[name]
    spoil(made)
    pth.save(tmp_path / "bad.pth", made)
    with pytest.raises(ValueError, match=r"bad.pth: found .*, expected") as error:
        torch_import.convert(tmp_path / "bad.pth", config_of("cifar10"))
    assert len(str(error.value).splitlines()) == 1
    assert len(caplog.messages) == len(expected)
    for line, start in zip(caplog.messages, expected, strict=True):
        assert line.startswith(start)


def test_names_of_other_programs(imported, tmp_path):
    """DataParallel's prefix, and batch normalisation's averages, which the authors' networks never use."""
    made = content()
    made["netG"] = {f"module.{name}": x for name, x in made["netG"].items()}
    made["netG"] |= {
        "module.bn_5.running_mean": np.zeros(16, np.float32),
        "module.bn_5.num_batches_tracked": np.int64([1]),
    }
    pth.save(tmp_path / "good.pth", made)
    state = torch_import.convert(tmp_path / "good.pth", config_of("cifar10"))
    jax.tree.map(np.testing.assert_array_equal, state.params, imported.params)


def test_a_run_is_not_overwritten(imported, tmp_path):
    config = config_of("cifar10")
    checkpointing.begin(config, tmp_path / "run", imported)
    with pytest.raises(ValueError, match="with checkpoints, expected a new folder"):
        checkpointing.begin(config, tmp_path / "run", imported)


def test_the_program_imports_it(programs, imported, tmp_path):
    command = [*runs.flags_of(config_of("cifar10")), "--mode=import"]
    command += [f"--weights={FILES['cifar10']}", f"--workdir={tmp_path / 'run'}"]
    done = programs.run(*command, "--step=7")
    assert done.stdout == f"imported {FILES['cifar10']} at step 7 into {tmp_path / 'run'}\n", done.stderr
    model = dualmcmc_jax.load(tmp_path / "run")
    assert model.step == 7
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), model.params, imported.average)
    done = programs.run(*command, f"--step={2**31}")
    assert done.stderr == f"error: --step: found {2**31}, expected at most {2**31 - 1}\n"
