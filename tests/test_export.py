"""A trained model is exported to a file, imported again, and used from Python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

import dualmcmc_jax
from dualmcmc_jax.data import sources
from dualmcmc_jax.interop import weights_file
from dualmcmc_jax.training import checkpointing, loop

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FLAGS = {
    "train.num_steps": 4,
    "train.batch_size": 20,
    "energy.widths": (8,),
    "generator.widths": (8,),
    "encoder.widths": (8,),
    "evaluation.every": 0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir after four updates, with spectral norm and averaged parameters."""
    workdir = tmp_path_factory.mktemp("run")
    config = tiny.config(train__num_steps=4)
    dataset = sources.load(config.data)
    loop.train(config, workdir, dataset=dataset, draw=lambda step, state: {}, measure=lambda state: {})
    return workdir


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.safetensors"
    weights_file.write(path, tiny.config(train__num_steps=4), checkpointing.restore(tiny.config(), run))
    return path


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_exported_model_is_read_back_unchanged(run, exported):
    state = checkpointing.restore(tiny.config(), run)
    config, read = weights_file.read(exported)
    assert config.to_dict() == tiny.config(train__num_steps=4).to_dict()
    assert int(read.step) == 4
    for part in ("params", "average", "vectors"):
        assert_equal(getattr(state, part), getattr(read, part))
    assert any(np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (read.params, read.average)), strict=True))


def test_model_of_a_workdir_equals_its_exported_model(run, exported):
    model, from_file = dualmcmc_jax.load(run), dualmcmc_jax.load(str(exported))
    assert model.step == from_file.step == 4
    drawn = model.synthesize(jax.random.key(0), 5)
    assert_equal(drawn, from_file.synthesize(jax.random.key(0), 5))
    assert_equal(model.energy(drawn.revised), from_file.energy(drawn.revised))
    mean, log_var = model.encode(drawn.revised)
    assert mean.shape == log_var.shape == (5, 4)
    assert_equal(model.decode(drawn.z), drawn.generated)
    inferred = model.infer(jax.random.key(1), drawn.revised, num_steps=3, keep_every=1)
    assert inferred.trace.states.shape == (4, 5, 4)
    assert_equal(inferred.trace.states[0], inferred.start)


def test_training_continues_from_an_exported_model(exported, tmp_path):
    config, weights = weights_file.read(exported)
    checkpointing.begin(config, tmp_path / "run", weights.state(config))
    config.train.num_steps = 6
    nothing = {"draw": lambda step, state: {}, "measure": lambda state: {}}
    assert int(loop.train(config, tmp_path / "run", dataset=sources.load(config.data), **nothing).step) == 6


def invalid_files(tensors, header):
    """Yield the problem of each file, its tensors and its header."""
    yield "a missing tensor", {k: v for k, v in tensors.items() if "hidden0" not in k}, header
    yield "an additional tensor", tensors | {"odd": np.zeros(1)}, header
    yield "a tensor of another shape", tensors | {min(tensors): np.zeros(3, np.float32)}, header
    yield "a tensor with NaN", tensors | {min(tensors): np.full_like(tensors[min(tensors)], np.nan)}, header
    yield "no header", tensors, None
    yield "a negative step", tensors, header | {"step": "-1"}
    yield "no config", tensors, {k: v for k, v in header.items() if k != "config"}
    yield "a config with unknown fields", tensors, header | {"config": '{"train": {"odd": 1}}'}
    yield "a config that is not JSON", tensors, header | {"config": "[" * 100_000}
    yield "data of size 0", tensors, header | {"config": '{"data": {"shape": [0]}}'}
    yield "a seed of 41 digits", tensors, header | {"config": '{"train": {"seed": 1%s}}' % ("0" * 40)}
    yield "a config with an invalid value", tensors, header | {"config": '{"train": {"batch_size": 0}}'}


def test_invalid_model_files_are_refused_in_one_line(exported, tmp_path):
    header = {"format": "dualmcmc_jax", "step": "4", "config": json.dumps(tiny.config().to_dict())}
    for problem, tensors, metadata in invalid_files(load_file(exported), header):
        save_file(tensors, tmp_path / "bad.safetensors", metadata)
        with pytest.raises(ValueError, match=r"bad\.safetensors: found .*, expected a model\.safetensors") as error:
            weights_file.read(tmp_path / "bad.safetensors")
        assert len(str(error.value).splitlines()) == 1, problem
    for content in (b"", b"\xff" * 100, exported.read_bytes()[:-5], b"\xff\xff\xff\x7f\0\0\0\0{}"):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.safetensors: found"):
            weights_file.read(tmp_path / "bad.safetensors")


def test_float64_model_requires_float64_in_jax(exported, tmp_path):
    config, state = weights_file.read(exported)
    config.train.compute_dtype = "float64"
    weights_file.write(tmp_path / "model.safetensors", config, state)
    code = f"import dualmcmc_jax; dualmcmc_jax.load({str(tmp_path / 'model.safetensors')!r})"
    env = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert "found float64, expected jax.config.update" in done.stderr


def test_public_names_exist_and_have_docstrings():
    assert {"load", "langevin", "synthesize", "infer", "energy_loss", "build"} <= set(dualmcmc_jax.__all__)
    for name in dualmcmc_jax.__all__:
        assert getattr(dualmcmc_jax, name).__doc__
    assert set(dualmcmc_jax.__all__) <= set(dir(dualmcmc_jax))
    with pytest.raises(AttributeError, match="no attribute 'odd'"):
        dualmcmc_jax.odd  # noqa: B018


def test_langevin_samples_a_users_density():
    keys = dualmcmc_jax.chain_keys(jax.random.key(0), jnp.arange(4000))
    log_density = lambda x: -2 * (x[:, 0] - 1) ** 2
    x, _ = dualmcmc_jax.langevin(keys, jnp.zeros((4000, 1)), log_density, num_steps=300, step_size=0.01)
    assert abs(x.mean() - 1) < 0.04
    assert abs(x.std() - 0.5) < 0.03


def test_program_exports_and_imports_a_model(programs, tmp_path):
    fields = [f"--config.{name}={value}" for name, value in FLAGS.items()]

    def program(*flags, workdir):
        return programs.run("--config=digits", f"--workdir={workdir}", *flags, *fields)

    done = program("--quiet", workdir=tmp_path / "one")
    assert (done.returncode, done.stderr) == (0, "")
    done = program("--mode=export", "--license=cc-by-4.0", workdir=tmp_path / "one")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "one" / "export" / "4"
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "README.md", "config.json"}
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "--config.train.batch_size=20" in card
    assert repr(dualmcmc_jax.load(out / "model.safetensors")) == "Model(step=4, x (8, 8, 1), z (16,), 'digits')"
    done = program("--mode=import", f"--weights={out / 'model.safetensors'}", workdir=tmp_path / "two")
    assert done.stdout.splitlines()[-1] == f"imported {out / 'model.safetensors'} at step 4 into {tmp_path / 'two'}"
    assert_equal(dualmcmc_jax.load(tmp_path / "one").params, dualmcmc_jax.load(tmp_path / "two").params)
    done = program("--mode=import", f"--weights={out / 'model.safetensors'}", workdir=tmp_path / "two")
    assert done.returncode == 1
    assert "with checkpoints, expected a new folder" in done.stderr
