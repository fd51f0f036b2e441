"""Every artefact: registered, complete, and drawn from a constructed and from a real frame."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.text import Text

from figures.artefacts import artefact, artefacts, ids, made_by, notebook_of
from figures.notebook import FOLDER
from figures.style import SMALLEST_FONT
from lightkv.errors import UnknownNameError
from tests.figures.frames import FRAMES

REAL = Path(__file__).parent / "data"
WANTED = {
    *("T-T1", "T-T4", "T-T5", "T-F1", "T-F2", "T-F5", "T-F7"),
    *("L-F1", "L-F3", "L-F6", "L-F7", "L-T5", "L-T6"),
    *("X-1", "X-2", "X-3", "X-4", "X-5", "X-6"),
}


def test_registry_holds_every_artefact() -> None:
    assert set(ids()) == WANTED == set(FRAMES)
    assert [one.id for one in artefacts()] == list(ids())


def test_unknown_id_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="T-T5"):
        artefact("T-T55")


@pytest.mark.parametrize("one", sorted(WANTED))
def test_every_artefact_has_a_notebook_a_study_and_words(one: str) -> None:
    from analysis.studies import STUDIES

    found = artefact(one)
    assert (FOLDER / f"{notebook_of(one)}.ipynb").is_file()
    assert one in made_by(notebook_of(one))
    assert one in STUDIES[found.study].artefacts
    assert found.claims and found.alt and found.caption and found.explanation
    assert all(claim.sentence and claim.source and claim.rule for claim in found.claims)


@pytest.mark.parametrize("one", sorted(WANTED))
def test_draws_from_a_constructed_frame(one: str) -> None:
    _check(one, FRAMES[one]())


@pytest.mark.parametrize("file", sorted(REAL.glob("*.csv")), ids=lambda file: file.stem)
def test_draws_from_stored_real_results(file: Path) -> None:
    _check(file.stem, pd.read_csv(file, keep_default_na=True, na_filter=True))


def test_paper_numbers_stand_beside_ours() -> None:
    for one in ("T-T1", "T-T4", "T-T5", "L-T5", "L-T6", "X-1", "L-F1", "L-F3", "X-6"):
        headings = [" ".join(map(str, name)) for name in artefact(one).table(FRAMES[one]()).columns]
        assert any("paper" in name for name in headings), one
        assert any("here" in name or "computed" in name for name in headings), one


def test_table_of_ablation_prints_the_papers_digits() -> None:
    table = artefact("T-T5").table(FRAMES["T-T5"]())
    row = table[table["parts", ""] == "TVB"].iloc[0]
    assert row["paper (LLaVA-1.5-7B)", "ChartQA at 5 %"] == 1.1
    assert row["here (embedded model)", "read at 5 %"].startswith("58.3 [")


def _check(one: str, frame: pd.DataFrame) -> None:
    found = artefact(one)
    figure = found.figure(frame)
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()]
    assert min(sizes) >= SMALLEST_FONT
    assert figure.get_size_inches()[1] < 10
    assert len(found.table(frame)) and len(found.plotted(frame))
    assert len(found.judge(frame)) == len(found.claims)
