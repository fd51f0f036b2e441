"""Simulated tables: gone on with, the same whatever came before, and true to the pages."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis.probing.canonical import jackknife_terms
from analysis.probing.information import gaussian_information
from analysis.scoring.aggregates import FEWEST
from analysis.simulation import candidates, scores
from analysis.simulation.grid import Cell, simulated
from analysis.simulation.information import (
    CORRELATIONS,
    DEFAULT,
    DIMENSIONS,
    KINDS,
    REPEATS,
    SAMPLES,
    cells,
    draw,
    gaussian_truth,
    simulate,
    truth,
)
from analysis.simulation.information_page import readable
from analysis.simulation.pages import markdown, section, write_section
from analysis.studies.probing_information import DEFAULT_SAMPLES, information_profile
from figures.cli import main
from lightkv.errors import InputError, InvalidValueError, StoreError

DOCS = Path(__file__).parents[2] / "docs"
TABLE = DOCS / "measurements" / "simulated_information.csv"

CELLS = [{"kind": kind, "n": n} for kind in ("a", "b") for n in (1, 2)]


def drawn(cell: Cell, generator: np.random.Generator) -> Iterator[Mapping[str, Any]]:
    for name in ("first", "second"):
        yield {"name": name, "value": float(generator.normal()), "missing": np.nan}


# ------------------------------------------------------------------ grid


def test_a_cell_depends_on_the_seed_and_itself_alone() -> None:
    whole = simulated(CELLS, drawn)
    assert list(whole.columns) == ["kind", "n", "seed", "name", "value", "missing"]
    assert whole["value"].nunique() == 8 and whole["missing"].isna().all()
    part = simulated(CELLS[2:3], drawn)
    pd.testing.assert_frame_equal(part, whole[4:6].reset_index(drop=True))
    assert not (simulated(CELLS, drawn, seed=1)["value"] == whole["value"]).any()


def test_an_unfinished_table_is_gone_on_with(tmp_path: Path) -> None:
    out, asked = tmp_path / "table.csv", []

    def failing(cell: Cell, generator: np.random.Generator) -> Iterator[Mapping[str, Any]]:
        asked.append((cell["kind"], cell["n"]))
        if len(asked) == 3:
            raise KeyboardInterrupt
        yield from drawn(cell, generator)

    with pytest.raises(KeyboardInterrupt):
        simulated(CELLS, failing, out=out)
    whole = simulated(CELLS, failing, out=out)
    assert asked == [("a", 1), ("a", 2), ("b", 1), ("b", 1), ("b", 2)]
    pd.testing.assert_frame_equal(whole, simulated(CELLS, drawn))
    pd.testing.assert_frame_equal(pd.read_csv(out), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_cells_that_are_added_stand_in_their_place(tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    simulated([CELLS[3], {"kind": "other", "n": 0}, CELLS[0]], drawn, out=out)
    whole = simulated(CELLS, drawn, out=out)
    pd.testing.assert_frame_equal(pd.read_csv(out).head(len(whole)), whole)
    assert pd.read_csv(out)["kind"].tolist()[len(whole) :] == ["other"] * 2


def test_what_a_table_can_not_be_kept_in(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="seed is -1; allowed: at least 0"):
        simulated(CELLS, drawn, seed=-1)
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="another table, its columns are"):
        simulated(CELLS, drawn, out=other)
    other.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="can't be read as CSV"):
        simulated(CELLS, drawn, out=other)
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere for table\.csv"):
        simulated(CELLS, drawn, out=tmp_path / "nowhere" / "table.csv")


# ------------------------------------------------------------------ pages


def test_a_table_is_written_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- here -->\nold\n<!-- /here -->\nafter\n")
    table = markdown(pd.DataFrame({"n": [1, 2], "x": ["a", "b"]}))
    assert table == "| n | x |\n| --- | --- |\n| 1 | a |\n| 2 | b |"
    for _ in range(2):
        write_section(page, "here", table)
        assert section(page.read_text(), "here") == table
    assert page.read_text().startswith("before\n<!-- here -->\n\n| n")
    assert page.read_text().endswith("|\n\n<!-- /here -->\nafter\n")
    with pytest.raises(InputError, match="no <!-- there -->"):
        write_section(page, "there", table)
    with pytest.raises(InputError, match="can't be read"):
        write_section(tmp_path, "here", table)


# ------------------------------------------------------------------ information


@pytest.mark.parametrize("kind", ["quadratic", "mixed-discrete"])
@pytest.mark.parametrize("rho", [0.3, 0.9])
def test_the_truth_is_the_mean_log_density_ratio(kind: str, rho: float) -> None:
    x, y = draw(kind, rho, (1, 1500, 1), np.random.default_rng(0))
    x, y = x[0], y[0]
    spread = np.sqrt(1 - rho**2)
    means = rho * ((x**2 - 1) / np.sqrt(2) if kind == "quadratic" else x)
    density = np.exp(-0.5 * ((y - means.T) / spread) ** 2)
    terms = np.log(np.diagonal(density)) - np.log(density.mean(1))
    error = terms.std() / np.sqrt(len(terms))
    assert abs(terms.mean() - truth(kind, rho, 1)) < 4 * error
    assert truth(kind, rho, 4) == pytest.approx(4 * truth(kind, rho, 1))
    assert truth(kind, 0.0, 4) == 0


def test_samples_have_the_covariances_that_are_claimed() -> None:
    for kind in KINDS:
        x, y = draw(kind, 0.6, (1, 20000, 2), np.random.default_rng(0))
        assert x.shape == y.shape == (1, 20000, 2)
        spread = np.cov(np.hstack([x[0], y[0]]).T)
        wanted = np.eye(4)
        if kind != "quadratic":
            wanted[[0, 1, 2, 3], [2, 3, 0, 1]] = 0.6
        assert np.abs(spread - wanted).max() < 0.05
    assert gaussian_truth("linear", 0.6, 4) == pytest.approx(0.893, abs=1e-3)
    assert gaussian_truth("mixed-discrete", 0.6, 1) == pytest.approx(-0.5 * np.log(0.64))
    assert gaussian_truth("quadratic", 0.6, 4) == 0
    assert truth("mixed-discrete", 0.9, 1) < np.log(2) < gaussian_truth("mixed-discrete", 0.9, 1)


def test_candidates_see_what_they_should() -> None:
    generator = np.random.default_rng(0)
    x, y = (side[0] for side in draw("linear", 0.9, (1, 400, 1), generator))
    exact = truth("linear", 0.9, 1)
    local = candidates.locally_corrected(x, y)
    assert local is not None and local.mean() == pytest.approx(exact, abs=0.2)
    bounds = candidates.held_out_bounds(candidates.gaussian_critic, x, y)
    assert set(bounds) == {"InfoNCE", "DV"}
    for terms in bounds.values():
        assert terms.shape == (400,) and terms.mean() == pytest.approx(exact, abs=0.2)
    x, y = (side[0] for side in draw("quadratic", 0.9, (1, 400, 1), generator))
    unseen = candidates.held_out_bounds(candidates.gaussian_critic, x, y)
    bent = candidates.held_out_bounds(candidates.quadratic_critic, x, y)
    for bound in ("InfoNCE", "DV"):
        assert unseen[bound].mean() < 0.1 < 0.2 < bent[bound].mean() < truth("quadratic", 0.9, 1)
    assert candidates.locally_corrected(*np.zeros((2, 32, 8))) is None


def test_the_table_of_estimators() -> None:
    frame = simulated(cells(64, samples=(32,), dimensions=(1, 2)), simulate)
    assert len(frame[["kind", "d", "rho"]].drop_duplicates()) == 24
    of_default = frame[frame["estimator"] == DEFAULT]
    assert (of_default["repeats"] == 64).all() and (of_default["linear_coverage"] > 0.8).all()
    assert (frame.loc[frame["estimator"] == "k-NN", "repeats"] == 4).all()
    assert (frame["bias"] - (frame["mean"] - frame["truth"])).abs().max() < 1e-3
    plain = frame[(frame["estimator"] == "plain") & (frame["kind"] == "linear")]
    known = of_default[of_default["kind"] == "linear"]
    assert plain["bias"].abs().mean() > 2 * known["bias"].abs().mean()
    assert frame.loc[frame["estimator"] == "DV, Gaussian", "linear"].isna().all()


def test_the_default_is_the_one_that_is_shipped() -> None:
    x, y = (side[0] for side in draw("linear", 0.6, (1, 64, 4), np.random.default_rng(0)))
    assert gaussian_information(x, y).value == pytest.approx(jackknife_terms(x, y).mean())
    assert gaussian_information(x, y).method == DEFAULT


def test_the_command_writes_the_table_and_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cells.__kwdefaults__, "samples", (64,))
    monkeypatch.setitem(cells.__kwdefaults__, "dimensions", (4,))
    page, out = tmp_path / "page.md", tmp_path / "table.csv"
    page.write_text("<!-- information -->\n<!-- /information -->\n")
    arguments = ["simulate", "information", "--repeats", "8", "--out", str(out)]
    done = CliRunner().invoke(main, [*arguments, "--write", str(page)])
    assert done.exit_code == 0, done.output
    frame = pd.read_csv(out)
    assert (frame["draws"] == 8).all() and (frame["seed"] == 0).all()
    assert section(page.read_text(), "information") == readable(frame)
    assert readable(frame) in done.output


# ------------------------------------------------------------------ what is shipped


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    return pd.read_csv(TABLE)


def test_the_page_shows_the_shipped_table(shipped: pd.DataFrame) -> None:
    assert section((DOCS / "probing.md").read_text(), "information") == readable(shipped)


def test_the_shipped_table_is_whole(shipped: pd.DataFrame) -> None:
    shown = shipped[["kind", "n", "d", "rho"]].drop_duplicates()
    assert len(shown) == len(KINDS) * len(SAMPLES) * len(DIMENSIONS) * len(CORRELATIONS)
    of_default = shipped[shipped["estimator"] == DEFAULT]
    assert len(of_default) == len(shown) and (of_default["repeats"] == REPEATS).all()


def test_the_default_is_the_best_of_the_shipped_table(shipped: pd.DataFrame) -> None:
    """Least bias from what it aims at, and intervals that hold what they say."""
    off = shipped.assign(bias=shipped["bias"].abs(), linear_bias=shipped["linear_bias"].abs())
    aimed = off.groupby("estimator")["linear_bias"].mean()
    assert aimed.idxmin() == DEFAULT
    linear = off[off["kind"] == "linear"].groupby("estimator")["bias"].mean()
    assert linear[aimed.isna()].min() > 10 * linear[DEFAULT]
    default = shipped[shipped["estimator"] == DEFAULT]
    assert default["linear_coverage"].min() >= 0.9


def test_the_study_asks_as_many_as_the_page_shows() -> None:
    parameters = inspect.signature(information_profile).parameters
    assert (DEFAULT_SAMPLES, parameters["dims"].default) == (64, 4)


# ------------------------------------------------------------------ benchmark scores


def test_coverage_of_scores_of_small_sets() -> None:
    table = simulated(scores.cells(200, sizes=(FEWEST,)), scores.simulate)
    assert list(dict.fromkeys(table["score"])) == [*scores.POPULATIONS, scores.AVERAGE]
    assert set(table["of"]) == {"score", "difference"}
    assert (table["coverage"] > 0.8).all()
    assert (table["intervals"] > 180).all()
    fewer = simulated(scores.cells(2, sizes=(FEWEST - 1,)), scores.simulate)
    assert not fewer.set_index("score").drop("coco_CIDEr")["intervals"].any()


def test_the_page_of_benchmarks_shows_the_table_that_ships() -> None:
    frame = pd.read_csv(DOCS / "measurements" / "simulated_scores.csv")
    names = ["score", "of", "units", "draws"]
    pd.testing.assert_frame_equal(frame[names], pd.DataFrame(scores.cells())[names])
    page = (DOCS / "published-benchmarks.md").read_text(encoding="utf-8")
    assert section(page, "scores") == scores.readable(frame)
