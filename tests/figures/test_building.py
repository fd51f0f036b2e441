"""Rows that ship: planned by the artefacts, built in pieces, taken by them, told in the report."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from analysis import provenance
from analysis.asking.packed import packed_rows, unpack
from analysis.asking.replay import CHANGED, DIFFERS, EQUAL, TIED, Replay, Shipped
from analysis.asking.store import FILE_NAME, Store
from figures import building
from figures.artefacts import artefact, artefacts
from figures.building import build, existing, plan, shipping, write
from figures.contract import Artefact
from figures.making import make, study_of, taken
from figures.origin import NONE_SHIP, replayed
from figures.report import write_report
from figures.runner import Finished
from lightkv.errors import InputError, InvalidValueError
from tests.analysis.fake import FakeVLM

FEW: dict[str, Any] = {"samples": 12, "seed": 1, "retentions": (0.5,), "tasks": ("embedded/read",)}


def say(request: Any, compressor: Any) -> str:
    return "1 2 3 4" if compressor is None else f"{compressor}"[-20:]


@pytest.fixture(autouse=True)
def two_small_artefacts(monkeypatch: pytest.MonkeyPatch) -> tuple[Artefact, ...]:
    """T-T1 and T-T5 on twelve questions; both ask the full cache and TGV-KV's parts."""
    small = tuple(dataclasses.replace(artefact(one), planned=FEW) for one in ("T-T1", "T-T5"))
    by_id = {one.id: one for one in small}
    monkeypatch.setattr(building, "artefacts", lambda: small)
    monkeypatch.setattr(building, "artefact", lambda one: by_id.get(one) or artefact(one))
    monkeypatch.setattr("figures.making.artefact", lambda one: by_id[one])
    monkeypatch.setattr(building, "packaged", lambda: Path("nowhere"))
    return small


def built(folder: Path, vlm: Any) -> Path:
    list(build(lambda name: vlm, folder, ()))
    assert write(lambda name: vlm, folder, folder / "packed") == (folder / "packed").stat().st_size
    return folder / "packed"


def test_a_killed_build_goes_on_and_asks_each_question_once(tmp_path: Path) -> None:
    vlm: Any = FakeVLM(say, fail_after=3)
    with pytest.raises(KeyboardInterrupt):
        list(build(lambda name: vlm, tmp_path))
    vlm.fail_after = None
    # With hardly any time each call asks one more batch.
    for _ in range(2):
        before = vlm.asked
        assert (
            list(build(lambda name: vlm, tmp_path, seconds=1e-9)) == [] and vlm.asked == before + 12
        )
    assert [one.id for one in build(lambda name: vlm, tmp_path)] == ["T-T1", "T-T5"]
    with Store(tmp_path, read_only=True) as store:
        rows = store.rows()
        there = list(plan(lambda name: vlm, store))
    assert not rows.duplicated(["key", "item"]).any()
    assert vlm.asked == len(rows) == there[0].rows + there[1].added
    assert there[1].added < there[1].rows and [one.left for one in there] == [0, 0]
    assert list(build(lambda name: vlm, tmp_path)) and vlm.asked == len(rows)


def test_a_plan_asks_nothing(tmp_path: Path) -> None:
    vlm: Any = FakeVLM(say)
    with Store(None) as store:
        both = list(plan(lambda name: vlm, store))
        one = list(plan(lambda name: vlm, store, ["T-T5"]))
    assert vlm.asked == 0 and both[0].rows == both[0].added == both[0].left == 10 * 12
    assert one[0].rows == one[0].added == one[0].left == 9 * 12
    # What T-T1 asks is not to be asked a second time.
    assert both[1].left == both[1].added < both[1].rows == 9 * 12


def test_a_build_starts_from_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = built(tmp_path / "first", FakeVLM(say))
    monkeypatch.setattr(building, "packaged", lambda: packed)
    later: Any = FakeVLM(say)
    assert len(list(build(lambda name: later, tmp_path / "second"))) == 2 and later.asked == 0


def test_a_plan_counts_what_a_build_would_start_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm: Any = FakeVLM(say)

    def left(folder: Path) -> int:
        with existing(folder) as store:
            return sum(one.left for one in plan(lambda name: vlm, store))

    whole = left(tmp_path / "empty")
    assert whole > 9 * 12 and not (tmp_path / "empty").exists()
    packed = built(tmp_path / "first", vlm)
    monkeypatch.setattr(building, "packaged", lambda: packed)
    assert left(tmp_path / "empty") == 0
    # A store that has been begun counts, whatever ships.
    list(build(lambda name: vlm, tmp_path / "first"))
    Store(tmp_path / "begun").close()
    assert left(tmp_path / "begun") == whole


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="L-F1 plans for no rows"):
        list(build(lambda name: FakeVLM(say), tmp_path, ["L-F1"]))  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="seconds is 0"):
        list(build(lambda name: FakeVLM(say), tmp_path, seconds=0))  # type: ignore[arg-type]


def made(file: Path, vlm: Any, results: Path, **options: Any) -> Any:
    rows = packed_rows(file)
    assert rows is not None
    with Store(results) as store:
        return make("T-T5", vlm, store=store, shipped=Replay(rows), **options)


def test_artefacts_take_rows_that_ship(tmp_path: Path) -> None:
    packed = built(tmp_path / "build", FakeVLM(say))
    vlm = FakeVLM(say)
    one = made(packed, vlm, tmp_path / "results")
    assert one.origin.shipped and one.parameters["samples"] == 12 and one.parameters["seed"] == 1
    assert len(one.frame) == sum(one.origin.used.values()) == 9 * 12
    assert vlm.asked == len(one.origin.compared) == 9 * 12
    # A second time, nothing is asked again: what came of it is stored.
    again = made(packed, vlm, tmp_path / "results")
    assert vlm.asked == 9 * 12 and again.origin == one.origin


def test_options_and_changed_code_ask_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = built(tmp_path / "build", FakeVLM(say))
    few = {"samples": 2, "tasks": ("embedded/read",), "retentions": (0.5,)}
    one = made(packed, FakeVLM(say), tmp_path / "results", **few)
    assert not one.origin.shipped and one.origin.why == "samples, tasks, retentions was set"
    assert len(one.frame) == 9 * 2
    code = provenance.code_of
    monkeypatch.setattr(provenance, "code_of", lambda *parts: code(*parts) + "x")
    monkeypatch.setattr("analysis.studies.eviction.SAMPLES", 3)
    other = made(packed, FakeVLM(say), tmp_path / "results")
    assert not other.origin.shipped and other.origin.why == CHANGED and not other.origin.compared
    assert set(other.frame["seed"]) == {0}
    nothing = make("T-T5", FakeVLM(say), shipped=Replay(Shipped(Store(None))), **{})  # type: ignore[arg-type]
    assert nothing.origin.why == NONE_SHIP
    assert make("T-T5", FakeVLM(say)).origin.why == ""  # type: ignore[arg-type]


def test_the_report_says_what_was_replayed(tmp_path: Path) -> None:
    packed = built(tmp_path / "build", FakeVLM(say))
    unpack(packed, tmp_path / "wrong")
    with sqlite3.connect(tmp_path / "wrong" / FILE_NAME) as connection:
        key = "(SELECT key FROM configurations WHERE parameters = 'vanilla')"
        connection.execute(f"UPDATE answers SET answer = 'planted <1>' WHERE key = {key}")
        connection.execute(f"UPDATE decisions SET gap = 0.001 WHERE key = {key} AND item < 5")
        connection.execute(f"DELETE FROM decisions WHERE key = {key} AND item > 9")
    connection.close()
    write(lambda name: FakeVLM(say), tmp_path / "wrong", tmp_path / "wrong.xz")  # type: ignore[arg-type]
    one = made(tmp_path / "wrong.xz", FakeVLM(say), tmp_path / "results")
    states = Counter(row.state for row in one.origin.compared)
    assert states == {EQUAL: 8 * 12, DIFFERS: 7, TIED: 5}
    one.publish(tmp_path / "unit")
    record = json.loads(
        (tmp_path / "unit" / "T-T5" / "record.json").read_text(),
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )
    assert record["rows"]["shipped"] and len(record["rows"]["compared"]) == 9 * 12
    finished = Finished(tmp_path / "unit", 1.0)
    page = write_report({"T-T5": finished}, tmp_path / "report").read_text()
    assert "Replayed <strong>108</strong> of 108 shipped rows: <strong>7</strong> differ" in page
    assert "and 5 where two tokens were nearly as likely" in page
    assert page.count("planted &lt;1&gt;") == 12
    assert "From rows that ship; 108 of 108 were asked again here." in page


def test_shared_rows_count_once() -> None:
    row = {"key": "a", "item": 1, "state": EQUAL}
    one = {"used": {"a": 10, "b": 5}, "compared": [row, {**row, "item": 2, "state": DIFFERS}]}
    other = {"used": {"a": 20}, "compared": [row, {**row, "item": 3, "state": TIED}]}
    both = replayed([one, other, {}])
    assert (both.rows, both.again) == (25, 3)
    assert [row["item"] for row in both.differ] == [2] and [r["item"] for r in both.tied] == [3]


def test_every_plan_fits_its_study() -> None:
    """At least as many questions as without it, on a seed that did not choose the number."""
    planned = [one for one in artefacts() if one.planned]
    assert len(planned) >= 17
    for one in planned:
        study = study_of(one)
        assert set(one.planned) <= set(taken(one))
        assert one.planned["samples"] >= max(48, study.samples or 0) and one.planned["seed"] == 1
    assert [one.id for one in shipping()] == ["T-T1", "T-T5"]
