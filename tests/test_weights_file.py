"""Hostile model.safetensors files are refused by their header, before memory is allocated for what it says."""

import json
import struct

import jax
import numpy as np
import pytest
import tiny
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import dualmcmc_jax
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


def test_header_longer_than_the_file_is_refused(tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ValueError, match=r"bad\.safetensors: found .*, expected a model\.safetensors"):
        weights_file.read(path)
