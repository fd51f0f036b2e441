"""Rows that ship take the place of asking; a drawn sample is asked again and compared."""

from __future__ import annotations

import dataclasses
import functools
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import provenance
from analysis.asking.evaluation import evaluate
from analysis.asking.packed import pack, packed_rows, unpack
from analysis.asking.replay import (
    ABSENT,
    CHANGED,
    DIFFERS,
    EQUAL,
    NEAR_TIE,
    TIED,
    NotShippedError,
    Replay,
    Shipped,
    sample_size,
)
from analysis.asking.store import FILE_NAME, Store
from lightkv import TGVKV, Request
from lightkv.contract.compressor import Compressor
from lightkv.embedded import questions
from lightkv.errors import StoreError
from tests.analysis.fake import FakeVLM, Picky

METHODS: dict[str, Compressor | None] = {"full": None, "tgv": TGVKV(retention=0.5)}
TASKS = ("embedded/read", "embedded/count")
SAMPLES = 100
SETTINGS: dict[str, Any] = {"samples": SAMPLES, "seed": 1, "progress": False, "batch_size": 50}


def say(request: Request, compressor: Compressor | None) -> str:
    return f"{request.question[:3]} {compressor is None}"


def shipping(folder: Path, vlm: FakeVLM | None = None, **changes: Any) -> Path:
    """A packed file of all cells."""
    with Store(folder, decisions=True) as store:
        evaluate(vlm or FakeVLM(say), TASKS, METHODS, store=store, **SETTINGS, **changes)  # type: ignore[arg-type]
        keys = list(store.configurations())
    (folder / "packed").write_bytes(pack(folder, keys))
    return folder / "packed"


def replayed(
    file: Path, vlm: FakeVLM, draw: int = 0, methods: Any = None, **changes: Any
) -> tuple[pd.DataFrame, Replay]:
    rows = packed_rows(file)
    assert rows is not None
    replay = Replay(rows, draw)
    with Store(None) as store, store.over(replay):
        settings = SETTINGS | changes
        frame = evaluate(vlm, TASKS, methods or METHODS, store=store, **settings)  # type: ignore[arg-type]
    assert store.replay is None
    return frame, replay


@pytest.fixture(scope="module", autouse=True)
def questions_once() -> Iterator[None]:
    """Pictures are drawn once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(questions, "items", functools.cache(questions.items))
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipping(tmp_path_factory.mktemp("shipping"))


def altered(packed: Path, folder: Path, *statements: str) -> Path:
    """The packed file after some rows were changed."""
    unpack(packed, folder)
    with sqlite3.connect(folder / FILE_NAME) as connection:
        for statement in statements:
            connection.execute(statement)
        keys = [key for (key,) in connection.execute("SELECT key FROM configurations")]
    connection.close()
    (folder / "packed").write_bytes(pack(folder, keys))
    return folder / "packed"


def test_rows_that_ship_are_those_of_asking(packed: Path) -> None:
    asked = evaluate(FakeVLM(say), TASKS, METHODS, **SETTINGS)  # type: ignore[arg-type]
    vlm = FakeVLM(say)
    frame, replay = replayed(packed, vlm)
    pd.testing.assert_frame_equal(asked.drop(columns="seconds"), frame.drop(columns="seconds"))
    # 299 of 400, a fourth of them in each cell.
    assert vlm.asked == len(replay.compared) == 4 * 75
    assert {one.state for one in replay.compared} == {EQUAL}
    assert sum(replay.used.values()) == 4 * SAMPLES


def test_another_seed_draws_others(packed: Path) -> None:
    draws = [
        {(one.key, one.item) for one in replayed(packed, FakeVLM(say), seed)[1].compared}
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] and len(draws[0] & draws[2]) < 0.9 * len(draws[0])


def test_one_wrong_row_in_a_hundred_is_noticed(packed: Path, tmp_path: Path) -> None:
    """Four rows of 400, all of one cell."""
    wrong = altered(
        packed,
        tmp_path,
        "UPDATE answers SET answer = 'planted' WHERE key = (SELECT min(key) FROM answers) "
        "AND item < 4",
    )
    assert len(packed_rows(wrong).store.rows()[lambda rows: rows["answer"] == "planted"]) == 4  # type: ignore[union-attr]
    seen = [
        [one for one in replayed(wrong, FakeVLM(say), seed)[1].compared if one.state == DIFFERS]
        for seed in range(3)
    ]
    assert all(seen)
    first = next(one for several in seen for one in several)
    assert first.shipped == "planted" and first.here.endswith(("True", "False"))


@pytest.mark.parametrize(("gap", "state"), [(0.99 * NEAR_TIE, TIED), (NEAR_TIE, DIFFERS)])
def test_another_answer_at_a_near_tie_is_apart(
    packed: Path, tmp_path: Path, gap: float, state: str
) -> None:
    tied = altered(
        packed, tmp_path, f"UPDATE decisions SET gap = {gap}", "UPDATE answers SET answer = 'x'"
    )
    _, replay = replayed(tied, FakeVLM(say))
    assert {one.state for one in replay.compared} == {state}


@pytest.mark.parametrize("change", ["UPDATE decisions SET gap = 9e999", "DELETE FROM decisions"])
def test_a_lead_that_is_no_number_is_none(packed: Path, tmp_path: Path, change: str) -> None:
    other = altered(packed, tmp_path, change, "UPDATE answers SET answer = 'x'")
    _, replay = replayed(other, FakeVLM(say))
    assert {(one.state, one.gap) for one in replay.compared} == {(DIFFERS, None)}


@pytest.mark.parametrize("size", ["kv_bytes", "token_layers"])
def test_another_size_differs_whatever_the_lead(packed: Path, tmp_path: Path, size: str) -> None:
    other = altered(
        packed, tmp_path, "UPDATE decisions SET gap = 0", f"UPDATE answers SET {size} = {size} + 1"
    )
    _, replay = replayed(other, FakeVLM(say))
    assert {one.state for one in replay.compared} == {DIFFERS}


def test_a_longer_answer_of_the_same_words_differs(packed: Path, tmp_path: Path) -> None:
    longer = altered(packed, tmp_path, "UPDATE answers SET generated_tokens = 3")
    assert {one.state for one in replayed(longer, FakeVLM(say))[1].compared} == {DIFFERS}


def test_changed_code_asks_anew(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = provenance.code_of

    def changed(parts: Any, *rest: Any) -> str:
        parts = list(parts)
        return code(parts, *rest) + ("x" if METHODS["tgv"] in parts else "")

    monkeypatch.setattr(provenance, "code_of", changed)
    vlm = FakeVLM(say)
    with pytest.raises(NotShippedError, match=CHANGED) as raised:
        replayed(packed, vlm)
    assert len(raised.value.jobs) == 4 and vlm.asked == 0
    frame, _ = replayed(packed, vlm, methods={"full": None})
    assert len(frame) == 2 * SAMPLES


def test_what_does_not_ship_is_not_taken(packed: Path) -> None:
    for changes in ({"samples": SAMPLES + 1}, {"seed": 2}, {"max_new_tokens": 3}):
        with pytest.raises(NotShippedError, match=ABSENT):
            replayed(packed, FakeVLM(say), **changes)
    with pytest.raises(NotShippedError, match=ABSENT):
        replayed(packed, FakeVLM(say, fingerprint="another"))
    fewer, _ = replayed(packed, FakeVLM(say), samples=10)
    assert len(fewer) == 40


def test_other_libraries_are_found_out_by_the_sample(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "answering_versions", lambda: {"torch": "99"})
    assert len(replayed(packed, FakeVLM(say))[1].compared) == 300


def test_a_method_that_is_refused_is_left_out(packed: Path) -> None:
    told: list[str] = []
    methods = METHODS | {"picky": Picky(retention=0.5)}
    frame, _ = replayed(
        packed, FakeVLM(say), methods=methods, on_refusal=lambda *what: told.append(what[2])
    )
    assert set(told) == {"picky"} and set(frame["method"]) == set(METHODS)


def test_how_many_are_asked_again() -> None:
    assert sample_size(128, 128_000, 1) == 5
    assert sample_size(128, 128_000, 2) == 3
    assert sample_size(128, 128_000, 8) == 1
    assert sample_size(1600, 16_000, 2) == 30
    assert sample_size(3, 128_000, 1) == 3
    # Wrong rows all in one cell, or in each alike: missed in 5 % at most.
    cells = [1600, 400, 50, 50]
    drawn = [sample_size(one, sum(cells), 1) for one in cells]
    for wrong in ([21, 0, 0, 0], [0, 21, 0, 0], [16, 4, 1, 0], [0, 0, 20, 1]):
        missed = math.prod(
            math.comb(n - bad, k) / math.comb(n, k)
            for n, bad, k in zip(cells, wrong, drawn, strict=True)
        )
        assert missed <= 0.05


def test_a_new_metric_scores_what_ships(packed: Path, tmp_path: Path) -> None:
    unscored = altered(packed, tmp_path, "DELETE FROM outcomes")
    frame, _ = replayed(unscored, FakeVLM(say))
    usual, _ = replayed(packed, FakeVLM(say))
    assert frame["score"].notna().all() and frame["score"].equals(usual["score"])


def test_packing_again_gives_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    unpack(packed, tmp_path)
    with Store(tmp_path, decisions=True) as store:
        keys = list(store.configurations())
        vlm = FakeVLM(say)
        evaluate(vlm, TASKS, METHODS, store=store, **SETTINGS)  # type: ignore[arg-type]
        assert vlm.asked == 0
        assert store.gaps(keys[0]) == dict.fromkeys(range(SAMPLES), 3.0)
    assert pack(tmp_path, keys) == packed.read_bytes()
    (tmp_path / "less").write_bytes(pack(tmp_path, keys[:1]))
    less = packed_rows(tmp_path / "less")
    assert less is not None and less.size == SAMPLES
    assert set(less.store.rows()["key"]) == {keys[0]}


def test_files_that_are_not_packed_rows(tmp_path: Path) -> None:
    assert packed_rows(tmp_path / "nothing") is None
    (tmp_path / "text").write_text("rows")
    with pytest.raises(StoreError, match="can't be read as packed rows"):
        packed_rows(tmp_path / "text")
    assert Shipped(Store(None)).size == 0


def test_a_store_without_decisions_has_none_of_it(tmp_path: Path) -> None:
    vlm = dataclasses.replace(FakeVLM(say), head=None)  # type: ignore[arg-type]
    vlm.head = type("Never", (), {"__call__": lambda *_: None})()  # type: ignore[assignment]
    with Store(tmp_path) as store:
        evaluate(vlm, TASKS, METHODS, store=store, **(SETTINGS | {"samples": 2}))  # type: ignore[arg-type]
    tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        assert ("decisions",) not in connection.execute(tables).fetchall()
    connection.close()
