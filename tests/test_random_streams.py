"""Random streams: all are declared in one enumeration and are distinct."""

import ast
from pathlib import Path

import jax
import numpy as np
import pytest

import dualmcmc_jax
from dualmcmc_jax.cli import startup
from dualmcmc_jax.configs import digits
from dualmcmc_jax.random_streams import Stream, key, random_state


def test_streams_are_distinct():
    numbers = [stream.value for stream in Stream.__members__.values()]
    assert len(set(numbers)) == len(numbers)
    keys = np.array([jax.random.key_data(key(7, stream)) for stream in Stream])
    assert len(np.unique(keys, axis=0)) == len(Stream)
    draws = [random_state(seed, stream).randint(2**63, size=2, dtype=np.int64) for stream in Stream for seed in (7, 8)]
    assert len(np.unique(draws, axis=0)) == 2 * len(Stream)


def test_evaluations_seed_numpy_by_streams():
    """Two evaluations that seed NumPy with the user's seed alone would draw the same numbers."""
    for path in (Path(dualmcmc_jax.__file__).parent / "evaluation").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("RandomState", "default_rng"):
                assert all(isinstance(arg, ast.Constant) for arg in node.args), f"{path}:{node.lineno}"


def test_no_stream_is_declared_elsewhere():
    """Large constants in `fold_in` and constants with "STREAM" in their names belong in the enumeration."""
    root = Path(dualmcmc_jax.__file__).parent
    for path in root.rglob("*.py"):
        if path.name == "random_streams.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "fold_in":
                large = [a for a in node.args if isinstance(a, ast.Constant) and a.value >= 1000]
                assert not large, f"{path}:{node.lineno}"
            if isinstance(node, ast.Assign):
                names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
                assert not any("STREAM" in name for name in names), f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    ("setting", "other"), [("jax_default_prng_impl", "rbg"), ("jax_threefry_partitionable", False)]
)
def test_random_numbers_do_not_depend_on_the_environment(setting, other):
    """The variables JAX_DEFAULT_PRNG_IMPL and JAX_THREEFRY_PARTITIONABLE make these settings when JAX is imported."""
    draw = lambda: jax.random.normal(key(7, Stream.SAMPLES), (4,))
    expected, before = draw(), getattr(jax.config, setting)
    try:
        jax.config.update(setting, other)
        assert not np.array_equal(draw(), expected)
        startup.start(digits.get_config())
        np.testing.assert_array_equal(draw(), expected)
    finally:
        jax.config.update(setting, before)
