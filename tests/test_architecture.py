"""Imports run strictly downwards: roof, evaluation, training, then core, models and data side by side."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import dualmcmc_jax

ROOT = Path(dualmcmc_jax.__file__).parent
BELOW = {
    "core": {"core"},
    "models": {"models"},
    "data": {"data"},
    "training": {"training", "core", "models", "data", "configs"},
    "evaluation": {"evaluation", "training", "core", "models", "data"},
}


def project_imports(path):
    """The project's modules that a file imports, as paths of names below the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1:] for alias in node.names if alias.name.startswith("dualmcmc_jax"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualmcmc_jax"):
            base = node.module.split(".")[1:]
            for alias in node.names:
                deeper = [*base, alias.name]
                is_module = (ROOT.joinpath(*deeper)).is_dir() or ROOT.joinpath(*deeper).with_suffix(".py").exists()
                yield deeper if is_module else base


def test_imports_run_downwards():
    graph = {}
    for wing, allowed in BELOW.items():
        for path in (ROOT / wing).glob("*.py"):
            graph[path.relative_to(ROOT).with_suffix("").as_posix()] = found = set()
            for name in project_imports(path):
                assert name[0] in allowed, f"{path.name} imports {'.'.join(name)}"
                if path.stem != "__init__" and len(name) > 1:
                    found.add("/".join(name))
    assert len(graph) > 15
    list(TopologicalSorter(graph).static_order())


def test_core_needs_jax_alone():
    for path in (ROOT / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in {"jax", "collections", "typing", "dualmcmc_jax"}
            elif isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] in {"jax", "math"} for alias in node.names)


def test_files_stay_short():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 200, path
