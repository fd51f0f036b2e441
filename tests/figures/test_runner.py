"""Notebooks run once per configuration; what is wrong with one is said before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from analysis.provenance import model_identity
from figures.notebook import Notebook, NotebookError
from figures.runner import EXECUTED, FAILED, MARKER, Unit, complete_units
from lightkv.errors import InvalidValueError, UnknownNameError

PARAMETERS = 'samples = 4\nname = "a"\nout = "x"\n'


def write(folder: Path, *cells: tuple[str, bool], name: str = "toy") -> Notebook:
    """A notebook of cells with or without the parameters tag."""
    made = new_notebook()  # type: ignore[no-untyped-call]
    for source, tagged in cells:
        one = new_code_cell(source)  # type: ignore[no-untyped-call]
        one.metadata["tags"] = ["parameters"] if tagged else []
        made.cells.append(one)
    made.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "P"}
    nbformat.write(made, folder / f"{name}.ipynb")  # type: ignore[no-untyped-call]
    return Notebook(folder / f"{name}.ipynb")


@pytest.fixture
def toy(tmp_path: Path) -> Notebook:
    return write(tmp_path, (PARAMETERS, True), ("samples + 1", False))


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of papermill, which only copies the notebook."""
    import papermill

    calls: list[dict[str, Any]] = []

    def execute(source: str, target: str, **options: Any) -> None:
        calls.append(options)
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    return calls


def test_unknown_parameter_is_an_error_before_anything_runs(toy: Notebook, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean samples"):
        Unit.of(toy, {"sample": 4}, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "cells",
    [
        [("samples = 4", False)],
        [("samples = 4", True), ("seed = 0", True)],
        [("samples = 2 + len([])", True)],
        [("import os", True)],
        [("samples =", True)],
    ],
    ids=["no tag", "two tags", "no literal", "no assignment", "no syntax"],
)
def test_parameters_that_are_not_well_formed(tmp_path: Path, cells: list[tuple[str, bool]]) -> None:
    with pytest.raises(NotebookError, match="parameters"):
        Unit.of(write(tmp_path, *cells), {}, tmp_path)


@pytest.mark.parametrize("value", ["four", True, [4]])
def test_a_value_of_another_kind(toy: Notebook, tmp_path: Path, value: object) -> None:
    with pytest.raises(InvalidValueError, match="samples"):
        Unit.of(toy, {"samples": value}, tmp_path)


def test_a_file_that_is_no_notebook(tmp_path: Path) -> None:
    (tmp_path / "bad.ipynb").write_text("{")
    with pytest.raises(NotebookError, match=r"bad\.ipynb"):
        Notebook(tmp_path / "bad.ipynb").complete({})


def test_unknown_notebook_names_the_nearest(toy: Notebook, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="toy"):
        Notebook.named("tou", tmp_path)
    with pytest.raises(NotebookError, match="no notebooks at"):
        Notebook.named("toy", tmp_path / "nowhere")


def test_key_changes_with_parameters_and_notebook_only(toy: Notebook, tmp_path: Path) -> None:
    one = Unit.of(toy, {}, tmp_path)
    assert one.key == Unit.of(toy, {"samples": 4}, tmp_path / "elsewhere").key
    assert one.key == Unit.of(toy, {"out": "other place"}, tmp_path).key
    assert one.key != Unit.of(toy, {"samples": 5}, tmp_path).key
    other = write(tmp_path, (PARAMETERS, True), ("samples + 2", False))
    assert one.key != Unit.of(other, {}, tmp_path).key


def test_key_of_a_model_follows_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before = model_identity(str(folder))
    (folder / "config.json").write_text('{"a": 1}')
    assert model_identity(str(folder)) != before
    assert len({model_identity(None), model_identity("embedded"), model_identity("a/b")}) == 3


def test_runs_once(toy: Notebook, tmp_path: Path, executed: list[dict[str, Any]]) -> None:
    unit = Unit.of(toy, {"samples": 9}, tmp_path / "results")
    first, second = unit.run(), unit.run()
    assert (first.reused, second.reused) == (False, True)
    assert len(executed) == 1
    assert executed[0]["parameters"] == {"samples": 9, "name": "a", "out": str(unit.folder)}
    assert json.loads((unit.folder / MARKER).read_text())["parameters"]["samples"] == 9
    assert complete_units(tmp_path / "results") == [unit.folder]


def test_a_folder_without_marker_is_run_anew(
    toy: Notebook, tmp_path: Path, executed: list[dict[str, Any]]
) -> None:
    unit = Unit.of(toy, {}, tmp_path)
    unit.folder.mkdir(parents=True)
    (unit.folder / "left over").write_text("from a run that was killed")
    assert complete_units(tmp_path) == []
    assert unit.run().error is None
    assert not (unit.folder / "left over").exists()
    assert len(executed) == 1


def test_an_interrupt_in_the_kernel_is_an_interrupt(
    toy: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    def interrupted(*_: Any, **__: Any) -> None:
        raise PapermillExecutionError(0, 1, "", "KeyboardInterrupt", "", [])  # type: ignore[no-untyped-call]

    monkeypatch.setattr(papermill, "execute_notebook", interrupted)
    unit = Unit.of(toy, {}, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        unit.run()
    assert not unit.complete


def test_a_failing_notebook_is_kept_and_tried_again(tmp_path: Path) -> None:
    notebook = write(tmp_path, (PARAMETERS, True), ("raise ValueError(f'no {samples}')", False))
    unit = Unit.of(notebook, {"samples": 7}, tmp_path / "results")
    result = unit.run()
    assert result.error == "ValueError: no 7"
    assert (unit.folder / FAILED).is_file()
    assert not (unit.folder / EXECUTED).exists()
    assert not unit.complete
