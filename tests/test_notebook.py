"""The cells of the Colab notebook run, except those that need Colab or a GPU. Training takes fewer updates here."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "launch" / "colab.ipynb"


def pictures(notebook):
    """Return the outputs of a notebook that are PNG images."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output for output in outputs if "image/png" in output.get("data", {})]


def test_notebook_runs(tmp_path, monkeypatch):
    for name in ("XLA_FLAGS", "JAX_ENABLE_X64"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not {"colab", "gpu"} & set(cell.metadata.get("tags", []))]
    (steps,) = [cell for cell in notebook.cells if "NUM_STEPS = 1500" in cell.source]
    steps.source = steps.source.replace("NUM_STEPS = 1500", "NUM_STEPS = 50")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(pictures(notebook)) == 5
    assert (tmp_path / "runs" / "digits" / "checkpoints" / "50").exists()


def test_committed_outputs_are_pictures():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len(pictures(notebook)) == len(outputs) == 5
    assert NOTEBOOK.stat().st_size < 300_000


@pytest.mark.parametrize("tag", ["colab", "gpu"])
def test_cells_for_colab_and_gpus_have_valid_syntax_and_flags(tag):
    from IPython.core.inputtransformer2 import TransformerManager

    from dualmcmc_jax.cli import command_line, completion

    sources = [
        cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if tag in cell.metadata.get("tags", [])
    ]
    assert sources
    script = completion.script([f"--{flag}=" for flag in command_line.flags.FLAGS], [])
    for source in sources:
        compile(TransformerManager().transform_cell(source), "cell", "exec")
        for line in source.splitlines():
            if line.startswith("!dualmcmc"):
                assert all(f"{word.partition('=')[0]}=" in script for word in line.split()[1:])


def test_missing_repository_address_raises_an_error():
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if "git clone" in cell.source]
    (source,) = cells
    assert source.startswith('REPOSITORY = ""')
    python = "\n".join(line for line in source.splitlines() if not line.startswith("!"))
    with pytest.raises(ValueError, match="REPOSITORY: found nothing"):
        exec(python, {})
    exec(python.replace('REPOSITORY = ""', 'REPOSITORY = "https://example.com/dualmcmc_jax"'), {})
