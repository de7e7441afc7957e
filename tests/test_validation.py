"""The valid range of each config field."""

import importlib
from pathlib import Path

import pytest

from dualmcmc_jax import config_check, models
from dualmcmc_jax.configs import default

CONFIGS = [path.stem for path in (Path(__file__).parents[1] / "configs").glob("*.py")]


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_valid(name):
    config = importlib.import_module(f"dualmcmc_jax.configs.{name}").get_config()
    config_check.check(config)
    models.build(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("generator.kind", "quadratic", "generator.kind: found 'quadratic', expected one of 'mlp', 'conv', 'resnet'"),
        ("generator.kind", "cnn", "generator.kind: found 'cnn', expected one of 'mlp', 'conv', 'resnet'"),
        ("generator.norm", "layer", "generator.norm: found 'layer', expected one of 'batch', 'group'"),
        ("x_chain.init", "Generator", "x_chain.init: found 'Generator', expected one of 'generator', 'noise'"),
        ("z_chain.init", "prior", "z_chain.init: found 'prior', expected one of 'encoder', 'noise'"),
        ("train.compute_dtype", "bf16", "train.compute_dtype: found 'bf16', expected one of 'float32', 'bfloat16'"),
        (
            "energy.activation",
            "swish",
            "energy.activation: found 'swish', expected 'relu', the default, because",
        ),
        ("energy.activation", "gelu", "energy.activation: found 'gelu', expected one of 'relu', 'swish', 'softplus'"),
        ("x_chain.clip_score", -1.0, "x_chain.clip_score: found -1.0, expected 0 or a positive number"),
        ("data.noise_std", float("inf"), "data.noise_std: found inf, expected 0 or a positive number"),
        ("data.noise_steps", -1, "data.noise_steps: found -1, expected 0 or a positive number"),
        ("optimizer.warmup_steps", -1, "optimizer.warmup_steps: found -1, expected 0 or a positive number"),
        ("optimizer.energy.weight_decay", -0.1, "optimizer.energy.weight_decay: found -0.1, expected 0 or a positive"),
        ("loss.energy_penalty.weight", -1.0, "loss.energy_penalty.weight: found -1.0, expected 0 or a positive number"),
        ("x_chain.num_steps", -1, "x_chain.num_steps: found -1, expected 0 or a positive number"),
        ("z_chain.num_steps", 0, "z_chain.num_steps: found 0, expected 1 or more"),
        ("energy.temperature", 0.0, "energy.temperature: found 0.0, expected a positive number"),
        ("x_chain.step_size", float("nan"), "x_chain.step_size: found nan, expected a positive number"),
        ("optimizer.energy.learning_rate", float("inf"), "optimizer.energy.learning_rate: found inf, expected 0 or"),
        ("optimizer.b1", 1.0, "optimizer.b1: found 1.0, expected at least 0 and below 1"),
        ("train.ema_decay", -0.1, "train.ema_decay: found -0.1, expected at least 0 and below 1"),
        ("checkpoint.every", 0, "checkpoint.every: found 0, expected 1 or more"),
        (
            "evaluation.sampler",
            "nuts",
            "evaluation.sampler: found 'nuts', expected one of '', 'langevin', 'mala', 'hmc'",
        ),
        ("z_chain.num_leapfrog_steps", 0, "z_chain.num_leapfrog_steps: found 0, expected 1 or more"),
        ("x_chain.friction", -1.0, "x_chain.friction: found -1.0, expected 0 or a positive number"),
        ("x_chain.step_annealing", 0.0, "x_chain.step_annealing: found 0.0, expected a positive number"),
    ],
)
def test_impossible_values_are_refused(field, value, message):
    config = default.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match="found") as error:
        config_check.check(config)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("energy.temperature", 10**400),
        ("generator.latent_dim", 10**400),
        ("x_chain.num_chains", 2**63),
        ("energy.widths", [1] * 10**6),
        ("data.shape", [8, 10**30, 1]),
        ("evaluation.x_chain", [10, 10**400, 1.0]),
    ],
)
def test_huge_values_in_a_file_are_refused_in_a_short_line(field, value):
    section, name = field.split(".")
    with pytest.raises(ValueError, match="found") as error:
        config_check.as_config({section: {name: value}})
    assert len(str(error.value)) < 300
