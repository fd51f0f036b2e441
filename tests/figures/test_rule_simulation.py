"""Simulated errors of the rules of verdicts, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.scoring.intervals import rank_correlation
from analysis.simulation.caption_scores import caption_scores
from analysis.simulation.pages import section
from figures import rule_draws, rule_simulation
from figures.artefacts.agreement import AGREED
from figures.cli import main
from figures.rule_simulation import QUESTIONS, REPEATS, SLOW, cells, readable
from figures.verdicts import FEWEST_QUESTIONS, Outcome

DOCS = Path(__file__).parents[2] / "docs"
TABLE = DOCS / "measurements" / "simulated_verdicts.csv"


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    return pd.read_csv(TABLE)


def test_the_page_shows_the_shipped_table(shipped: pd.DataFrame) -> None:
    assert section((DOCS / "reproducing.md").read_text(), "verdicts") == readable(shipped)


def test_the_shipped_table_is_whole(shipped: pd.DataFrame) -> None:
    shown = shipped[["rule", "setting", "n"]].drop_duplicates()
    assert len(shown) == len(rule_simulation._DRAWS) * len(QUESTIONS)
    assert set(shipped["repeats"]) == {REPEATS, REPEATS // SLOW}


def test_rules_err_about_as_often_as_they_say(shipped: pd.DataFrame) -> None:
    """One-sided level 2.5 %; the worst of many settings and 400 runs lies above it."""
    uneven = shipped["setting"].str.startswith("few gain much")
    assert shipped[~uneven]["share"].max() <= 0.06
    assert shipped[shipped["n"] >= 24]["share"].max() <= 0.06
    assert min(QUESTIONS) >= FEWEST_QUESTIONS


def test_scores_have_the_shares_that_are_claimed() -> None:
    generator = np.random.default_rng(0)
    for nested in (True, False):
        one, other = rule_draws.right_and_wrong(generator, (0.7, 0.4), 20000, nested)
        assert one.mean() == pytest.approx(0.7, abs=0.02)
        assert other.mean() == pytest.approx(0.4, abs=0.02)
        assert (other > one).any() != nested


def test_captions_are_those_that_ship_and_their_edge_is_their_difference() -> None:
    scores = caption_scores("CIDEr")
    assert {len(one) for one in scores.values()} == {16} and scores["vanilla"].max() > 5
    draws = dict(rule_draws.caption_differences())
    words = {"CIDEr, lightkv, 98 % of the full cache", "ROUGE-L, tgvkv over snapkv"}
    assert words <= set(draws) and len(draws) == 2 * (5 + 4)
    generator = np.random.default_rng(0)
    for draw in (draws[word] for word in words):
        verdicts = [draw(generator, 200) for _ in range(40)]
        assert 0.3 < np.mean([one.p_holds for one in verdicts]) < 0.7
        assert sum(one.outcome is Outcome.UNDECIDED for one in verdicts) > 30


def test_orders_that_are_simulated_lie_on_the_edge_of_agreement() -> None:
    ranks = np.arange(1, len(rule_draws.SIMILAR) + 1)
    assert rank_correlation(ranks, rule_draws.SIMILAR) == pytest.approx(AGREED)


def test_effects_that_are_simulated_are_zero() -> None:
    for kind, classes in rule_draws.RESPONSES.items():
        assert sum(share for share, _, _ in classes) == pytest.approx(1), kind
        assert sum(share * (a - b) for share, a, b in classes) == pytest.approx(0), kind


def test_the_command_writes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ("better, at 0", "mean above")
    few = {k: v for k, v in rule_simulation._DRAWS.items() if k[0] in kept}
    monkeypatch.setattr(rule_simulation, "_DRAWS", few)
    monkeypatch.setitem(cells.__kwdefaults__, "questions", (12,))
    page, out = tmp_path / "page.md", tmp_path / "table.csv"
    page.write_text("<!-- verdicts --><!-- /verdicts -->")
    arguments = ["simulate", "verdicts", "--repeats", "4", "--out", str(out)]
    done = CliRunner().invoke(main, [*arguments, "--write", str(page)])
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(out)
    assert set(frame["rule"]) == set(kept) and (frame["draws"] == 4).all()
    assert frame["share"].between(0, 1).all()
    assert section(page.read_text(), "verdicts") == readable(frame)
