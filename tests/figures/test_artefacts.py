"""Every artefact: registered, complete, and drawn from a constructed and from a real frame."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.text import Text

from figures import artefacts as declared
from figures.artefacts import artefact, artefacts, ids
from figures.contract import Artefact
from figures.making import study_of
from figures.style import SMALLEST_FONT
from lightkv.errors import InvalidValueError, UnknownNameError
from tests.figures.frames import FRAMES, frame_of

REAL = Path(__file__).parent / "data"
ALL = pytest.mark.parametrize("one", artefacts(), ids=lambda one: one.id)


def test_artefacts_are_ordered_by_paper_figures_first() -> None:
    assert [one.id for one in artefacts()] == list(ids())
    places = [ids().index(one) for one in ("L-F1", "L-F7", "L-T5", "T-F1", "T-T5", "X-1", "X-6")]
    assert places == sorted(places)


def test_unknown_id_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="T-T5"):
        artefact("T-T55")


def test_two_artefacts_of_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from figures.artefacts import ablation

    twin = dataclasses.replace(artefact("T-T5"), id="T-T1")
    monkeypatch.setattr(ablation, "TWIN", twin, raising=False)
    declared._declared.cache_clear()
    with pytest.raises(InvalidValueError, match="two artefacts is 'T-T1'"):
        ids()
    monkeypatch.undo()
    declared._declared.cache_clear()
    assert "T-T1" in ids()


@pytest.mark.parametrize("bad", ["T-5T", "A-1", "T-T", "T-T5 "])
def test_ids_say_what_they_are(bad: str) -> None:
    with pytest.raises(InvalidValueError, match="id of an artefact"):
        dataclasses.replace(artefact("T-T5"), id=bad)


@ALL
def test_every_artefact_has_a_study_and_words(one: Artefact) -> None:
    assert set(one.options) <= set(study_of(one).parameters)
    assert one.claims and one.alt and one.caption and one.explanation
    assert all(claim.sentence and claim.source and claim.rule for claim in one.claims)


@ALL
def test_draws_from_a_small_frame(one: Artefact) -> None:
    _check(one.id, frame_of(one))


@pytest.mark.parametrize("file", sorted(REAL.glob("*.csv")), ids=lambda file: file.stem)
def test_draws_from_stored_real_results(file: Path) -> None:
    _check(file.stem, pd.read_csv(file, keep_default_na=True, na_filter=True))


def test_paper_numbers_stand_beside_ours() -> None:
    for one in ("T-T1", "T-T4", "T-T5", "L-T5", "L-T6", "X-1", "L-F1", "L-F3", "X-6"):
        of_paper = artefact(one)
        headings = [" ".join(map(str, name)) for name in of_paper.table(frame_of(of_paper)).columns]
        assert any("paper" in name for name in headings), one
        assert any("here" in name or "computed" in name for name in headings), one


def test_table_of_ablation_prints_the_papers_digits() -> None:
    table = artefact("T-T5").table(FRAMES["component_ablation"]())
    row = table[table["parts", ""] == "TVB"].iloc[0]
    assert row["paper (LLaVA-1.5-7B)", "ChartQA at 5 %"] == 1.1
    assert row["here (embedded model)", "read at 5 %"].startswith("60.0 [")


def test_every_method_stands_beside_the_control_where_it_was_asked() -> None:
    frame = FRAMES["every_method"]()
    spent = {"token_share": frame["kv_share"], "seconds": 1.0, "answer": "same"}
    tgv = frame[(frame["method"] == "tgvkv") & (frame["protocol"] == "question-first")]
    control = tgv.assign(method="downsample", score=0.0)
    asked = pd.concat([frame, control]).assign(**spent)
    table = artefact("X-6").table(asked).set_index([("method", ""), ("retention, %", "")])
    at_half = table["here (embedded model)"].loc[("tgvkv", "50.0")]
    score = at_half["question-first, %"].split(" ")[0]
    assert at_half["answers of the full cache, %"].startswith("100.0 [")
    assert at_half["over downsample at equal entries, points"].startswith(f"{score} [")
    assert at_half["where downsample is wrong, %"].startswith(f"{score} [")
    plain = artefact("X-6").table(frame)
    assert not any("downsample" in name for _, name in plain.columns)


def _check(one: str, frame: pd.DataFrame) -> None:
    checked = artefact(one)
    figure = checked.figure(frame)
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()]
    assert min(sizes) >= SMALLEST_FONT
    assert figure.get_size_inches()[1] < 10
    assert len(checked.table(frame)) and len(checked.plotted(frame))
    assert len(checked.judge(frame)) == len(checked.claims)
