"""Imports run strictly downwards through the folders of the package, and parallelism has one place."""

import ast
import re
from pathlib import Path

import pytest

import dualmcmc_jax
from dualmcmc_jax.cli import completion

ROOT = Path(dualmcmc_jax.__file__).parent
LAYERS = (
    ("configs.studies",),  # written as users write theirs
    ("configs.baselines",),
    ("main",),
    ("benchmark", "study"),
    ("cli",),
    ("evaluation",),
    ("report",),
    ("features",),
    ("metrics",),
    ("model",),
    ("interop",),
    ("config_check",),
    ("configs",),
    ("training",),
    ("runtime",),
    ("models",),
    ("data",),
    ("core",),
    ("random_streams", "torch_reader"),
)
"""From top to bottom. Parts of one layer do not import each other."""
PARTS = {part: depth for depth, layer in enumerate(LAYERS) for part in layer}
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]  # which names, and imports none
FILES += [path for path in sorted(completion.CONFIGS.rglob("*.py")) if path not in FILES]


def name_of(path):
    """The name of a file's module below the package: "training.loop"."""
    inside = path.is_relative_to(ROOT)
    relative = path.relative_to(ROOT) if inside else Path("configs") / path.relative_to(completion.CONFIGS)
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path) for path in FILES} | {name.partition(".")[0] for name in map(name_of, FILES)}


def part_of(name):
    """The part of the package that a module belongs to, the longest that is in the table."""
    return max((part for part in PARTS if f"{name}.".startswith(f"{part}.")), key=len, default=None)


def project_imports(text):
    """The modules of the package that a file imports, wherever in it, by their names below the package."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            package, _, below = name.partition(".")
            if package == "dualmcmc_jax" and below:
                yield below if below in MODULES else below.rpartition(".")[0] or below


def offences(name, text):
    """Lines that name each import of a module that does not run downwards."""
    here = part_of(name)
    assert here, f"{name} is in no layer"
    for imported in project_imports(text):
        there = part_of(imported)
        if there is None:
            yield f"{name} imports {imported}, which is in no layer"
        elif there != here and PARTS[there] <= PARTS[here]:
            yield f"{name} imports {imported}: {there} is not below {here}"


def test_imports_run_downwards():
    assert len(FILES) > 80
    found = [line for path in FILES for line in offences(name_of(path), path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("core.x", "from dualmcmc_jax import models", "core.x imports models: models is not below core"),
        ("data.x", "def f():\n    from dualmcmc_jax.runtime.storage import push", "data.x imports runtime.storage: "),
        ("runtime.x", "import dualmcmc_jax.training.step", "runtime.x imports training.step: training is not below"),
        ("training.x", "from dualmcmc_jax.configs import default", "training.x imports configs.default: "),
        ("configs.x", "from dualmcmc_jax.study import Study", "configs.x imports study: "),
        ("study.x", "from dualmcmc_jax import benchmark", "study.x imports benchmark: benchmark is not below study"),
        ("configs.studies.x", "from dualmcmc_jax.study import Study", None),
        ("training.x", "from dualmcmc_jax.training import step\nfrom dualmcmc_jax import core, random_streams", None),
    ],
)
def test_an_offence_is_named(name, text, line):
    found = list(offences(name, text))
    assert found == [] if line is None else (len(found) == 1 and found[0].startswith(line))


def test_core_needs_jax_alone():
    for path in (ROOT / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in {"jax", "collections", "typing", "dualmcmc_jax"}
            elif isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] in {"jax", "math"} for alias in node.names)


def test_devices_are_the_business_of_one_module():
    used = re.compile(
        r"\b(pmap|shard_map|Mesh|make_mesh|NamedSharding|PositionalSharding)\(|\bjax\.sharding\b|jax\.pmap"
    )
    assert [path.relative_to(ROOT).as_posix() for path in FILES if used.search(path.read_text())] == [
        "runtime/parallel.py"
    ]


def test_parameters_are_bound_in_few_places():
    """Only the model, which everything above shares, and training bind networks to parameters."""
    bind = re.compile(r"\.bind\(")
    users = {name_of(path).partition(".")[0] for path in FILES if bind.search(path.read_text())}
    assert users == {"model", "models", "training"}, users  # `Net.apply` of models is defined by it
