"""One call makes an artefact; options that would do nothing are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import figures
from analysis.asking.store import Store
from figures.artefacts import artefact
from figures.making import ignored, make, make_all, refuse_idle, taken
from lightkv import VLM
from lightkv.errors import InputError, InvalidValueError, UnknownNameError
from tests.figures.score_frames import ablation

ONE: dict[str, Any] = {"samples": 2, "tasks": ["embedded/read"], "retentions": (0.2,)}


def test_study_table_figure_and_verdicts_in_one_call(embedded: VLM, tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        made = figures.make("T-T5", embedded, store=store, **ONE)
        again = make("T-T5", embedded, store=store, **ONE)
    pd.testing.assert_frame_equal(made.frame, again.frame)
    assert len(made.frame) == 2 * 9
    assert len(made.table) == 8 and len(made.verdicts) == 4
    assert made.parameters["samples"] == 2 and made.parameters["tasks"] == ("embedded/read",)
    assert made.parameters["model"] == "embedded" and made.parameters["dtype"] == "float32"
    assert "store" not in made.parameters and "progress" not in made.parameters
    assert "T-T5 Ablation" in repr(made) and repr(made).count("\n") == 4
    page = made._repr_html_()
    assert "How to read it" in page and "data:image/png" in page and "<table>" in page
    assert (made.publish(tmp_path) / "T-T5.png").is_file()


def test_the_record_names_defaults(embedded: VLM) -> None:
    made = make("L-F1")
    assert made.parameters["models"][0] == "llava-1.5-7b"
    assert "model" not in made.parameters


def test_a_frame_is_drawn_as_it_is() -> None:
    made = make("T-T5", frame=ablation())
    assert made.parameters == {} and len(made.table) == 8
    with pytest.raises(InputError, match="samples can't change a frame"):
        make("T-T5", frame=ablation(), samples=3)


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(InputError, match="T-T5 asks a model"):
        make("T-T5")
    with pytest.raises(UnknownNameError, match=r"option of T-T5 'sample'.*did you mean samples"):
        make("T-T5", sample=3)
    with pytest.raises(InputError, match="no artefact named"):
        list(make_all(" "))


def test_a_module_that_hides_a_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").write_text("mine = 1\n")
    (tmp_path / "script.py").write_text("from figures import make\n")
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    file = tmp_path.resolve() / "analysis.py"
    assert f"ShadowedError: 'analysis' is {file} here and hides the package" in done.stderr
    assert "rename that file" in done.stderr


def test_options_without_effect() -> None:
    costs, scored = artefact("L-F1"), artefact("T-T5")
    assert ignored(costs, {"samples": 1, "models": (), "model": "x"}) == ("samples", "model")
    assert ignored(scored, {"samples": 1, "seed": 0, "device": "cpu", "context": 3}) == ("context",)
    assert "samples" in taken(scored) and "store" not in taken(scored)
    refuse_idle([costs, scored], {"samples": 3})
    with pytest.raises(InvalidValueError, match=r"no effect on L-F1, which take models"):
        refuse_idle([costs], {"samples": 3})


def test_several_share_a_store_and_leave_alone_what_they_do_not_take(tmp_path: Path) -> None:
    everything = list(
        make_all("L-F1 L-T6", options={"ratio": 0.25}, results=tmp_path, out=tmp_path)
    )
    assert [made.artefact.id for made in everything] == ["L-F1", "L-T6"]
    assert everything[1].parameters["ratio"] == 0.25 and "ratio" not in everything[0].parameters
    assert (tmp_path / "L-T6" / "L-T6.csv").exists() or (tmp_path / "L-T6" / "rows.csv").exists()
    with pytest.raises(InvalidValueError, match="samples is 3"):
        next(make_all("L-F1 L-T6", samples=3))
