"""The notebook is clean, holds no logic, makes any artefact, and refuses what it doesn't know."""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd
import pytest

from figures.artefacts import ids
from figures.export import PLOTTED, RECORD, ROWS
from figures.notebook import FOLDER, Notebook, NotebookError, refuse_unknown
from figures.reproduce import NOTEBOOK
from figures.runner import EXECUTED, MARKER, Unit
from lightkv.errors import InvalidValueError, UnknownNameError

NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
LOGIC = (ast.FunctionDef, ast.ClassDef, ast.If, ast.For, ast.While, ast.Try, ast.Lambda)


@pytest.mark.parametrize("name", NAMES)
def test_clean(name: str) -> None:
    content = Notebook.named(name).content
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert content.metadata.kernelspec.name == "python3"
    assert set(content.metadata) <= {"kernelspec", "language_info"}
    assert all(set(cell.metadata) <= {"tags"} for cell in content.cells)


@pytest.mark.parametrize("name", NAMES)
def test_calls_and_words_only(name: str) -> None:
    for cell in Notebook.named(name).content.cells:
        if cell.cell_type == "code":
            nodes = list(ast.walk(ast.parse(cell.source)))
            assert not [node for node in nodes if isinstance(node, LOGIC)]


def test_parameters_leave_numbers_to_the_studies() -> None:
    defaults = Notebook.named(NOTEBOOK).defaults
    assert defaults["samples"] is defaults["seed"] is defaults["tasks"] is None
    assert set(defaults["artefacts"].split()) <= set(ids())
    assert {"model", "device", "dtype", "options", "results", "out"} <= set(defaults)


SOURCE = 'samples = 4\nname = "a"'


def test_what_papermill_only_warns_about_is_refused() -> None:
    refuse_unknown(["", SOURCE, "refuse_unknown(In)"])
    refuse_unknown(["", SOURCE, "# Parameters\nsamples = 9\n", "refuse_unknown(In)"])
    with pytest.raises(UnknownNameError, match="did you mean samples"):
        refuse_unknown(["", SOURCE, "# Parameters\nsample = 9\n", "refuse_unknown(In)"])
    with pytest.raises(InvalidValueError, match="samples is 'many'"):
        refuse_unknown(["", SOURCE, '# Parameters\nsamples = "many"\n', "refuse_unknown(In)"])
    with pytest.raises(NotebookError, match="this notebook"):
        refuse_unknown(["", "import os", "# Parameters\nsamples = 1\n"])


def test_plain_papermill_refuses_an_unknown_parameter(tmp_path: Path) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    with pytest.raises(PapermillExecutionError, match="did you mean samples"):
        papermill.execute_notebook(
            str(FOLDER / f"{NOTEBOOK}.ipynb"),
            str(tmp_path / "out.ipynb"),
            parameters={"sample": 2},
            kernel_name="python3",
            progress_bar=False,
            cwd=str(tmp_path),
        )
    assert [file.name for file in tmp_path.iterdir()] == ["out.ipynb"]


def test_smoke_run(tmp_path: Path) -> None:
    parameters = {"artefacts": "T-T5 L-F1", "samples": 2, "tasks": ["embedded/read"]}
    unit = Unit.of(Notebook.named(NOTEBOOK), parameters, tmp_path, name="some")
    result = unit.run()
    assert result.error is None
    assert unit.artefacts == ("T-T5", "L-F1") and unit.folder.name.startswith("some-")
    assert (unit.folder / MARKER).is_file() and (unit.folder / EXECUTED).is_file()
    folder = unit.folder / "T-T5"
    assert (folder / "T-T5.png").is_file() and (folder / RECORD).is_file()
    rows = pd.read_csv(folder / ROWS)
    assert len(rows) == 2 * 17
    assert pd.read_csv(folder / PLOTTED)["n"].eq(2).all()
    assert (unit.folder / "L-F1" / "L-F1.pdf").is_file()
    assert unit.run().reused
