"""The structure of the package: imports run strictly downwards, and one module handles parallelism."""

import ast
import re
from pathlib import Path

import pytest

import dualmcmc_jax
from dualmcmc_jax.cli import completion

ROOT = Path(dualmcmc_jax.__file__).parent
LAYERS = (
    ("configs.studies",),  # written like the studies of users, so they may import everything
    ("configs.baselines",),
    ("main",),
    ("benchmark", "study"),
    ("cli",),
    ("evaluation", "own_density", "compose"),
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
    ("own_code", "random_streams", "spelling", "torch_reader"),
)
"""The layers from top to bottom. Parts of the same layer do not import each other."""
PARTS = {part: depth for depth, layer in enumerate(LAYERS) for part in layer}
# The package's own __init__.py is left out, because it imports its public names only when they are used.
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]
FILES += [path for path in sorted(completion.CONFIGS.rglob("*.py")) if path not in FILES]


def name_of(path):
    """Return the module name of a file relative to the package, such as "training.loop"."""
    in_package = path.is_relative_to(ROOT)
    relative = path.relative_to(ROOT) if in_package else Path("configs") / path.relative_to(completion.CONFIGS)
    return ".".join(relative.with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path) for path in FILES} | {name.partition(".")[0] for name in map(name_of, FILES)}


def part_of(name):
    """Return the part of the package that contains a module: the longest matching name in LAYERS."""
    return max((part for part in PARTS if f"{name}.".startswith(f"{part}.")), key=len, default=None)


def project_imports(text):
    """Yield the modules of the package that a file imports anywhere, named relative to the package."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, below = name.partition(".")
            if package == "dualmcmc_jax" and below:
                yield below if below in MODULES else below.rpartition(".")[0] or below


def upward_imports(name, text):
    """Yield a message for each import in a module that violates the order of the layers."""
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
    lines = [line for path in FILES for line in upward_imports(name_of(path), path.read_text())]
    assert not lines, "\n".join(lines)


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
def test_upward_import_is_reported(name, text, line):
    lines = list(upward_imports(name, text))
    assert lines == [] if line is None else (len(lines) == 1 and lines[0].startswith(line))


def test_core_imports_only_jax():
    for path in (ROOT / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in {"jax", "collections", "typing", "dualmcmc_jax"}
            elif isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] in {"jax", "math"} for alias in node.names)


def test_only_runtime_parallel_handles_devices():
    device_api = re.compile(
        r"\b(pmap|shard_map|Mesh|make_mesh|NamedSharding|PositionalSharding)\(|\bjax\.sharding\b|jax\.pmap"
    )
    assert [path.relative_to(ROOT).as_posix() for path in FILES if device_api.search(path.read_text())] == [
        "runtime/parallel.py"
    ]


def test_parameters_are_bound_only_in_model_models_and_training():
    """All layers above use `Model`, which binds the networks to their parameters."""
    bind = re.compile(r"\.bind\(")
    users = {name_of(path).partition(".")[0] for path in FILES if bind.search(path.read_text())}
    assert users == {"model", "models", "training"}, users  # models defines `Net.apply` in terms of `bind`
