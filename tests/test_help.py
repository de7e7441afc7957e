"""The help, configs/default.py and config docstrings list every row of the program's tables."""

import importlib
import re
from pathlib import Path

import pytest

from dualmcmc_jax import config_check, main
from dualmcmc_jax.cli import completion
from dualmcmc_jax.configs import default
from dualmcmc_jax.core import samplers
from dualmcmc_jax.data import sources, toy2d
from dualmcmc_jax.features import inception
from dualmcmc_jax.training.objectives import OBJECTIVES

DEFAULT = Path(default.__file__).read_text()
CONFIGS = [name for name in completion.configs() if name != "default"]


def words(text):
    return set(re.findall(r"\w+", text))


def test_help_fits_on_one_screen_and_begins_with_three_commands():
    lines = main.help_text().splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    commands = [line.split("  ")[1] for line in lines if line.startswith("  dualmcmc ")]
    assert commands == ["dualmcmc --config=digits" + mode for mode in ("", " --mode=sample", " --mode=evaluate")]


def test_help_lists_every_row_of_the_tables():
    text = main.help_text()
    names = {name.removeprefix("baselines/") for name in CONFIGS}
    assert {*names, *(mode.name for mode in main.MODES), *sources.SOURCES, *toy2d.names()} <= words(text)


def test_name_and_address_of_the_inception_weights_agree():
    root = Path(main.__file__).parents[1]
    texts = [main.help_text(), *((root / page).read_text() for page in ("README.md", "docs/evaluation.md"))]
    assert inception.NAME in texts[0]
    for text in texts[1:]:
        assert inception.URL in text
        assert "pt_inception" not in text


def comment(field):
    """Return the comment of a field in configs/default.py: the lines before the field, and the end of its line."""
    section, name = field.rsplit(".", 1)
    match = re.search(rf"((?:^ *#.*\n)*)^ *{section}\.{name} = [^#\n]*(#.*)?$", DEFAULT, re.MULTILINE)
    return f"{match[1]} {match[2] or ''}"


FIELDS = [
    name
    for name in config_check.fields(default.get_config())
    if name.count(".") == 1 and name.partition(".")[2] not in samplers.parameters()
]


@pytest.mark.parametrize("field", FIELDS)
def test_default_config_documents_every_field(field):
    assert len(comment(field)) > 10


@pytest.mark.parametrize("field", config_check.CHOICES)
def test_default_config_lists_every_choice(field):
    for choice in config_check.CHOICES[field]:
        assert f'"{choice}"' in comment(field)


def test_default_config_lists_every_parameter_of_a_sampler():
    for name, sampler in samplers.SAMPLERS.items():
        assert all(
            re.search(rf"^    #   {parameter} +{name}: \w", DEFAULT, re.MULTILINE) for parameter in sampler.parameters
        )


def test_default_config_lists_every_source_and_every_loss_weight():
    assert all(re.search(rf'"{name}[":]', comment("data.source")) for name in sources.SOURCES)
    for name, objective in OBJECTIVES.items():
        (line,) = re.findall(rf"# +loss\.{name}\.(.*)", DEFAULT)
        assert objective.weights.keys() <= words(line)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_docstring_gives_its_command_and_the_result(name):
    doc = importlib.import_module(f"dualmcmc_jax.configs.{name.replace('/', '.')}").__doc__
    assert f"python -m dualmcmc_jax.main --config=configs/{name}.py" in doc
    assert re.search("Expected|Measured", doc)


def test_toy2d_config_lists_every_density():
    doc = importlib.import_module("dualmcmc_jax.configs.toy2d").__doc__
    assert re.findall(r"^  (\w+) .* std ", doc, re.MULTILINE) == list(toy2d.names())
