"""What a config's fields may hold."""

import math

from dualmcmc_jax.configs import default

CHOICES = {
    "energy.kind": ("mlp", "resnet", "quadratic"),
    "generator.kind": ("mlp", "resnet"),
    "generator.norm": ("batch", "group"),
    "encoder.kind": ("mlp", "resnet"),
    "x_chain.init": ("generator", "noise", "persistent"),
    "z_chain.init": ("encoder", "noise", "persistent"),
    "health.policy": ("stop", "rollback"),
    "train.compute_dtype": ("float32", "bfloat16", "tensorfloat32", "float64"),
}
AT_LEAST_ONE = (
    "generator.latent_dim",
    "z_chain.num_steps",
    "train.num_steps",
    "train.batch_size",
    "checkpoint.every",
    "checkpoint.keep",
    "log.every",
    "log.images_every",
    "log.num_images",
    "evaluation.batch_size",
    "evaluation.light_samples",
)
POSITIVE = ("energy.temperature", "generator.variance", "x_chain.step_size", "z_chain.step_size", "optimizer.decay")
BELOW_ONE = ("optimizer.b1", "optimizer.b2", "train.ema_decay")


def check(config) -> None:
    """Raises ValueError naming the first field whose value no run could have, what was found and what was expected.

    All other numbers must be finite and not negative. Whether networks, data and devices fit together is checked where
    they meet.
    """
    kinds = {name: type(value) for name, value in fields(default.get_config())}
    for name, value in fields(config):
        kind = kinds.get(name, type(value))
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
            expected = f"a {kind.__name__}"
        elif name == "evaluation.ood":
            expected = None if all(isinstance(item, str) for item in value) else "a tuple of data sources"
        elif name == "evaluation.x_chain":
            expected = None if not value or _is_chain(value) else "() or (num_steps, step_size, temperature)"
        elif kind is tuple:
            integers = all(isinstance(item, int) and item >= 0 for item in value)
            expected = None if integers else "a tuple of integers, 0 or more"
            if name == "data.shape" and integers and not (value and all(value)):
                expected = "a tuple of positive integers"
            if name == "data.crop" and integers and value and not _is_box(value):
                expected = "(left, top, right, bottom) with left < right and top < bottom"
        elif name in CHOICES:
            expected = None if value in CHOICES[name] else f"one of {', '.join(map(repr, CHOICES[name]))}"
        elif name == "train.seed":
            expected = None if 0 <= value < 2**63 else "an integer from 0 to 2**63 - 1"
        elif name in AT_LEAST_ONE:
            expected = None if value >= 1 else "1 or more"
        elif name in POSITIVE:
            expected = None if 0 < value < math.inf else "a positive number"
        elif name in BELOW_ONE:
            expected = None if 0 <= value < 1 else "at least 0 and below 1"
        else:
            number = isinstance(value, int | float)
            expected = None if not number or 0 <= value < math.inf else "0 or a positive number"
        if expected:
            raise ValueError(f"{name}: found {value!r}, expected {expected}")


def _is_chain(value):
    numbers = len(value) == 3 and all(isinstance(item, int | float) for item in value)
    return numbers and isinstance(value[0], int) and value[0] >= 0 and all(0 < item < math.inf for item in value[1:])


def _is_box(crop):
    return len(crop) == 4 and crop[0] < crop[2] and crop[1] < crop[3]


def fields(section, prefix=""):
    """(name, value) of every field, names with dots."""
    for name, value in section.items():
        yield from fields(value, f"{prefix}{name}.") if hasattr(value, "items") else [(prefix + name, value)]
