"""Exported files: complete, whole, repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from analysis.outputs import replacing, write_text
from figures.artefacts import artefact
from figures.export import (
    PAPER,
    PLOTTED,
    RECORD,
    ROWS,
    TABLE,
    publish,
    savefig,
    write_json,
)
from figures.style import PRINT_WIDTH, canvas, styled
from figures.tables import as_text, cell, percent, read, to_html
from lightkv.errors import StoreError
from tests.figures.score_frames import ablation


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half of the new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_figures_have_print_resolution_and_repeat(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with styled():
            figure, axes = canvas(height=1.0)
            axes[0, 0].plot([1, 2])
            savefig(figure, tmp_path / name)
    for kind in ("png", "pdf", "svg"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert image.width >= 200 * PRINT_WIDTH
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")


def test_publish_writes_everything(tmp_path: Path) -> None:
    frame, one = ablation(), artefact("T-T5")
    figure, _ = canvas(height=1.0)
    folder = publish(one, frame, tmp_path, parameters={"samples": 24}, drawing=figure)
    wanted = {"T-T5.png", "T-T5.pdf", "T-T5.svg", PLOTTED, ROWS, TABLE, PAPER, RECORD}
    assert {file.name for file in folder.iterdir()} == wanted
    record = json.loads((folder / RECORD).read_text())
    assert record["parameters"] == {"samples": 24}
    assert {"versions", "hardware", "code", "time"} <= set(record["provenance"])
    assert [v["sentence"] for v in record["verdicts"]] == [c.sentence for c in one.claims]
    plotted = pd.read_csv(folder / PLOTTED)
    assert plotted["score"].between(plotted["low"], plotted["high"]).all()
    assert len(pd.read_csv(folder / ROWS)) == len(frame)


def test_tables_survive_the_way_through_csv(tmp_path: Path) -> None:
    table = pd.DataFrame(
        [["a", 1.5, float("nan")]],
        columns=pd.MultiIndex.from_tuples([("name", ""), ("here", "x, %"), ("here", "y, %")]),
    )
    as_text(table).to_csv(tmp_path / "t.csv", index=False)
    html = to_html(read(tmp_path / "t.csv"), "Caption & more")
    assert '<th scope="colgroup" colspan="2">here</th>' in html
    assert "<td>1.5</td><td>–</td>" in html
    assert "Caption &amp; more" in html


@pytest.mark.parametrize(
    ("value", "text"), [(1.23456, "1.23"), (1234.5, "1234.5"), (None, "–"), (True, "yes"), (3, "3")]
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


def test_percent_with_and_without_interval() -> None:
    assert percent(0.375, 0.25, 0.5) == "37.5 [25.0, 50.0]"
    assert percent(0.375) == "37.5"
    assert percent(float("nan")) == "–"


def test_sets_are_written_sorted(tmp_path: Path) -> None:
    write_json(tmp_path / "one.json", {"layers": frozenset((3, 1, 2))})
    assert json.loads((tmp_path / "one.json").read_text()) == {"layers": [1, 2, 3]}
