"""Hostile model.safetensors files are refused by their header, before memory is allocated for what it says."""

import json
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import dualmcmc_jax
from dualmcmc_jax import config_check
from dualmcmc_jax.interop import weights_file
from dualmcmc_jax.training import state as train_state


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file of random parameters, which need no compiled initialization."""
    config, random = tiny.config(), np.random.RandomState(0)
    fill = lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype)
    path = tmp_path_factory.mktemp("written") / "model.safetensors"
    weights_file.write(path, config, jax.tree.map(fill, train_state.abstract(config))._replace(step=7))
    return path


def rewrite(path, out, **fields):
    """Copy a file, with other values of config fields in its header."""
    with safe_open(path, "numpy") as file:
        header = file.metadata()
    config = json.loads(header["config"])
    for name, value in fields.items():
        section, field = name.split("__")
        config[section][field] = value
    save_file(load_file(path), out, header | {"config": json.dumps(config)})
    return out


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (
            {"x_chain__init": "persistent", "x_chain__num_chains": 20_000_000},
            r"persistent chains of 5,120 MB for a file of 0\.03 MB",
        ),
        ({"x_chain__init": "persistent", "x_chain__num_chains": 10**18}, r"persistent chains of [\d,]+ MB"),
        ({"energy__widths": [1] * 4_000_000}, "a header of 12 MB"),
        ({"energy__widths": [1] * 100_000}, r"an invalid config .*found 100000 values, expected 100 at most"),
        ({"energy__widths": [10**15]}, "tensors that do not fit the config in the header"),
        ({"generator__latent_dim": 10**12}, "tensors that do not fit the config in the header"),
        ({"energy__temperature": 10**400}, r"an invalid config in the header \(energy\.temperature: found 1000"),
    ],
)
def test_sizes_that_no_tensor_backs_are_refused_by_the_header(fields, found, written, tmp_path):
    path = rewrite(written, tmp_path / "bad.safetensors", **fields)
    with pytest.raises(ValueError, match=rf"bad\.safetensors: found .*{found}") as error:
        dualmcmc_jax.load(path)
    assert len(str(error.value)) < 500


def test_loading_a_model_creates_no_persistent_chains(written, tmp_path):
    path = rewrite(written, tmp_path / "good.safetensors", x_chain__init="persistent", x_chain__num_chains=1000)
    assert dualmcmc_jax.load(path).step == 7
    config, weights = weights_file.read(path)
    assert weights.state(config).chains.x.shape == (1000, 8, 8, 1)


def test_parameters_that_equal_their_average_are_stored_once(written, tmp_path):
    config, weights = weights_file.read(written)
    weights_file.write(tmp_path / "once.safetensors", config, weights._replace(params=weights.average))
    assert (tmp_path / "once.safetensors").stat().st_size < 0.7 * written.stat().st_size
    _, read = weights_file.read(tmp_path / "once.safetensors")
    for params in (read.params, read.average):
        jax.tree.map(np.testing.assert_array_equal, params, weights.average)
    leaves = zip(jax.tree.leaves(read.params), jax.tree.leaves(read.average), strict=True)
    assert not any(np.shares_memory(*pair) for pair in leaves)


def test_tensors_in_bfloat16_become_float32(written, tmp_path):
    config, weights = weights_file.read(written)
    halves = jax.tree.map(lambda x: x.astype(jnp.bfloat16), weights.average)
    weights_file.write(tmp_path / "half.safetensors", config, weights._replace(params=halves, average=halves))
    _, read = weights_file.read(tmp_path / "half.safetensors")
    for x, half in zip(jax.tree.leaves(read.average), jax.tree.leaves(halves), strict=True):
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, half.astype(np.float32))


@pytest.mark.parametrize("field", config_check.CHOICES)
def test_no_code_is_imported_that_a_stored_config_names(field, written, tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("planted", "planted:Net", "planted.Net"):
        path = rewrite(written, tmp_path / "bad.safetensors", **{field.replace(".", "__"): name})
        is_own = field.endswith(".kind") and ":" in name  # a network of the user
        found = (
            f"^{field}: found your code '{name}', which runs only if you name it now, expected --config.{field}={name}"
        )
        message = rf"bad\.safetensors: found an invalid config .*{field}: found '{name}'"
        with pytest.raises(ValueError, match=found if is_own else message):
            dualmcmc_jax.load(path)
    assert "planted" not in sys.modules


def test_header_longer_than_the_file_is_refused(tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ValueError, match=r"bad\.safetensors: found .*, expected a model\.safetensors"):
        weights_file.read(path)
