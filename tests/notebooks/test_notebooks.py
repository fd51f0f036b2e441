"""Notebooks are clean, hold no logic, and run."""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd
import pytest

from figures.artefacts import ids, made_by, notebook_of
from figures.export import PLOTTED, RECORD, ROWS
from figures.notebook import FOLDER, Notebook
from figures.runner import EXECUTED, MARKER, Unit

NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
KNOWN = {
    *("model", "device", "dtype", "tasks", "samples", "seed", "results", "out"),
    *("retentions", "pictures", "context", "profiled", "rows", "questions"),
}
LOGIC = (ast.FunctionDef, ast.ClassDef, ast.If, ast.For, ast.While, ast.Try, ast.Lambda)


def test_every_artefact_has_its_notebook() -> None:
    assert set(NAMES) == {notebook_of(one) for one in ids()}


@pytest.mark.parametrize("name", NAMES)
def test_clean(name: str) -> None:
    content = Notebook.named(name).content
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert content.metadata.kernelspec.name == "python3"
    assert set(content.metadata) <= {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in content.cells)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_literals_with_known_names(name: str) -> None:
    defaults = Notebook.named(name).defaults
    assert set(defaults) <= KNOWN
    assert {"results", "out"} <= set(defaults)


@pytest.mark.parametrize("name", NAMES)
def test_calls_and_words_only(name: str) -> None:
    content = Notebook.named(name).content
    for cell in content.cells:
        if cell.cell_type == "code":
            nodes = list(ast.walk(ast.parse(cell.source)))
            assert not [node for node in nodes if isinstance(node, LOGIC)]
    words = " ".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    assert "How to read it" in words
    assert all(one in words for one in made_by(name))


def test_smoke_run(tmp_path: Path) -> None:
    given = {"samples": 2, "tasks": ["embedded/read"]}
    unit = Unit.of(Notebook.named("ablation"), given, tmp_path)
    found = unit.run()
    assert found.error is None
    assert (unit.folder / MARKER).is_file() and (unit.folder / EXECUTED).is_file()
    folder = unit.folder / "T-T5"
    assert (folder / "T-T5.png").is_file() and (folder / RECORD).is_file()
    rows = pd.read_csv(folder / ROWS)
    assert len(rows) == 2 * 17
    assert pd.read_csv(folder / PLOTTED)["n"].eq(2).all()
    assert unit.run().reused
