"""Stores joined: nothing lost, nothing twice, and what does not belong together refused."""

from __future__ import annotations

import dataclasses
import math
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from analysis.asking.jobs import Shard
from analysis.asking.merging import merge
from analysis.asking.store import FILE_NAME, Store
from analysis.asking.store_cli import merge_command, summary_command
from analysis.asking.stored import stored_rows, stored_summary
from lightkv import TGVKV
from lightkv.errors import InputError, InvalidValueError, StoreError, UnknownNameError
from tests.analysis.asked import echo, run
from tests.analysis.fake import FakeVLM
from tests.analysis.stored import CONFIGURATION, SCORER, outcome, outcomes, row, rows
from tests.analysis.test_store_trouble import older


def filled(folder: Path, *items: int, **changes: Any) -> Path:
    configuration = dataclasses.replace(CONFIGURATION, **changes)
    with Store(folder) as store:
        store.add(configuration, rows(*items), SCORER, outcomes(*items))
        store.note_asked([(configuration.key, "tgvkv 5 %", "question-first", "embedded/read", 4)])
    return folder


def items(folder: Path) -> list[tuple[str, int]]:
    with Store(folder, read_only=True) as store:
        frame = store.rows()
    return sorted(zip(frame["revision"], frame["item"], strict=True))


def call(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])


@pytest.mark.parametrize("count", [2, 3])
def test_merged_parts_equal_the_whole_row_by_row(count: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with Store(whole) as store:
        run(FakeVLM(echo), store=store)
        expected = stored_rows(store)
        summary = stored_summary(expected, store.asked())
    parts = []
    for number in range(1, count + 1):
        parts.append(tmp_path / f"part{number}")
        with Store(parts[-1]) as store:
            run(FakeVLM(echo), store=store, shard=Shard(number, count))
    added = merge(parts, tmp_path / "merged")
    assert sum(one.answers for one in added) == len(expected) == 20
    with Store(tmp_path / "merged", read_only=True) as store:
        merged, asked = stored_rows(store), store.asked()
    order = ["method", "item"]
    compared = [
        frame.drop(columns="seconds").sort_values(order, ignore_index=True)
        for frame in (merged, expected)
    ]
    pd.testing.assert_frame_equal(*compared)
    again = stored_summary(merged, asked)
    pd.testing.assert_frame_equal(
        again.drop(columns="seconds").sort_values("method", ignore_index=True),
        summary.drop(columns="seconds").sort_values("method", ignore_index=True),
    )
    rest = FakeVLM(echo)
    with Store(tmp_path / "merged") as store:
        run(rest, store=store)
    assert rest.asked == 0


def test_merging_again_or_overlapping_stores_adds_what_is_new(tmp_path: Path) -> None:
    a, b = filled(tmp_path / "a", 0, 1), filled(tmp_path / "b", 1, 2)
    assert [one.answers for one in merge([a, b], tmp_path / "c")] == [2, 1]
    assert [one.answers for one in merge([a, b], tmp_path / "c")] == [0, 0]
    assert items(tmp_path / "c") == [("abc", 0), ("abc", 1), ("abc", 2)]
    filled(a, 3)
    assert [one.answers for one in merge([a], tmp_path / "c")] == [1]


def test_everything_a_store_holds_is_merged(tmp_path: Path) -> None:
    a, b = filled(tmp_path / "a", 0), filled(tmp_path / "b", 0)
    with Store(b) as store:
        store.score(
            CONFIGURATION.key, dataclasses.replace(SCORER, metric="anls"), [outcome(0, 0.5)]
        )
        store.save_frame("study", {}, pd.DataFrame({"x": [1]}))
        store.note_refusal("k", "because")
        store.note_model("m", "{}")
        store.note_asked([(CONFIGURATION.key, "tgvkv 5 %", "question-first", "embedded/read", 9)])
    merge([a, b], tmp_path / "c")
    with Store(tmp_path / "c", read_only=True) as store:
        assert sorted(store.rows()["metric"]) == ["anls", "exact"]
        assert store.load_frame("study", {}) is not None
        assert (store.refusal("k"), store.model("m")) == ("because", "{}")
        assert store.asked()["questions"].tolist() == [9]


@pytest.mark.parametrize(
    "change", [{"answer": "other"}, {"kv_bytes": 7}, {"token_layers": 7}, {"question": "other"}]
)
def test_another_answer_under_the_same_key_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    a, b = filled(tmp_path / "a", 0), tmp_path / "b"
    with Store(b) as store:
        store.add(CONFIGURATION, [row(0, **change), row(1)], SCORER, outcomes(0, 1))
    with pytest.raises(StoreError, match=r"different answers or sizes for question 0 of embedded/"):
        merge([a, b], tmp_path / "c")
    assert items(tmp_path / "c") == [("abc", 0)], "the store before it is kept, none of the other"


def test_seconds_may_differ(tmp_path: Path) -> None:
    a, b = filled(tmp_path / "a", 0), tmp_path / "b"
    with Store(b) as store:
        store.add(CONFIGURATION, [row(0, seconds=99.0)], SCORER, outcomes(0))
    assert [one.answers for one in merge([a, b], tmp_path / "c")] == [1, 0]


def test_another_outcome_of_the_same_scorer_is_refused(tmp_path: Path) -> None:
    a, b = filled(tmp_path / "a", 0), tmp_path / "b"
    with Store(b) as store:
        store.add(CONFIGURATION, rows(0), SCORER, [outcome(0, 0.25)])
    with pytest.raises(StoreError, match=r"different outcomes of exact for question 0"):
        merge([a, b], tmp_path / "c")


@pytest.mark.parametrize("field", ["revision", "versions", "device", "dtype", "attention"])
def test_twins_are_refused_unless_one_is_chosen(tmp_path: Path, field: str) -> None:
    a, b = filled(tmp_path / "a", 0, 1), filled(tmp_path / "b", 1, 2, **{field: "other"})
    before = getattr(CONFIGURATION, field)
    with pytest.raises(StoreError, match=rf"with {field} other and {before}: --twins first"):
        merge([a, b], tmp_path / "c")
    assert len(items(tmp_path / "c")) == 2
    (first, second) = merge([a, b], tmp_path / "first", "first")
    assert (first.answers, second.answers, second.left_out) == (2, 0, 1)
    assert [one.answers for one in merge([b, a], tmp_path / "second", "first")] == [2, 0]
    assert [one.answers for one in merge([a, b], tmp_path / "both", "both")] == [2, 2]
    with Store(tmp_path / "both", read_only=True) as store:
        summary = stored_summary(stored_rows(store), store.asked())
    assert sorted(summary[field]) == sorted([before, "other"])
    assert summary["n"].tolist() == [2, 2], "twins are not mixed"


@pytest.mark.parametrize("field", ["parameters", "task_fingerprint", "seed", "max_new_tokens"])
def test_other_questions_or_methods_are_no_twins(tmp_path: Path, field: str) -> None:
    value = getattr(CONFIGURATION, field)
    other = {field: value + 1 if isinstance(value, int) else value + "x"}
    a, b = filled(tmp_path / "a", 0), filled(tmp_path / "b", 0, **other)
    assert [one.answers for one in merge([a, b], tmp_path / "c")] == [1, 1]


def test_a_store_that_holds_twins_itself_is_not_refused(tmp_path: Path) -> None:
    """It was asked again after the code had changed; another part of the new run joins it."""
    a = filled(filled(tmp_path / "a", 0), 0, revision="new")
    b = filled(tmp_path / "b", 1, revision="new")
    merge([a, b], tmp_path / "c")
    assert items(tmp_path / "c") == [("abc", 0), ("new", 0), ("new", 1)]


def test_what_can_not_be_merged_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    a = filled(tmp_path / "a", 0)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / FILE_NAME).write_bytes(b"no database at all, but long enough" * 200)
    cut = filled(tmp_path / "cut", *range(200))
    whole = (cut / FILE_NAME).read_bytes()
    (cut / FILE_NAME).write_bytes(whole[: len(whole) // 2])
    cases: list[tuple[list[Path], type[Exception], str]] = [
        ([], InputError, "at least one"),
        ([a, a], InputError, "once"),
        ([a, tmp_path / "c"], InputError, "not into itself"),
        ([a, tmp_path / "missing"], StoreError, "can't be opened"),
        ([a, tmp_path / "text"], StoreError, "is damaged or not a result file"),
        ([a, cut], StoreError, "is damaged"),
        ([a, older(tmp_path / "old")], StoreError, "format 2: open it once for writing"),
    ]
    for stores, error, words in cases:
        with pytest.raises(error, match=words):
            merge(stores, tmp_path / "c")
        assert not (tmp_path / "c").exists(), words
    with pytest.raises(InvalidValueError, match="twins"):
        merge([a], tmp_path / "c", "all")  # type: ignore[arg-type]


HALF = """
import os, signal, sys
from analysis.asking.store import Store
from tests.analysis.stored import CONFIGURATION, row, rows
with Store(sys.argv[1]) as store:
    store.add(CONFIGURATION, rows(0, 1))
    connection = store._database._connection
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    key = CONFIGURATION.key
    for item in range(2, 400):  # spills over into the file, as a large batch does
        store._database.insert("answers", [(key, *row(item, question="x" * 2000).values())], "")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_part_that_was_killed_in_mid_write_is_merged_up_to_its_last_batch(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HALF), str(killed)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert (killed / f"{FILE_NAME}-journal").stat().st_size > 0
    assert [one.answers for one in merge([killed], tmp_path / "c")] == [2]
    assert items(killed) == items(tmp_path / "c")


def test_a_merge_that_fails_on_the_way_keeps_what_was_there(tmp_path: Path) -> None:
    target, a = filled(tmp_path / "c", 9), filled(tmp_path / "a", 0)
    with sqlite3.connect(a / FILE_NAME) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("DELETE FROM answers")
    connection.close()
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        merge([a], target)
    assert items(target) == [("abc", 9)]
    assert [one.answers for one in merge([filled(tmp_path / "b", 1)], target)] == [1]


def test_the_commands_merge_and_summarise_without_a_model(tmp_path: Path) -> None:
    for number in (1, 2):
        with Store(tmp_path / str(number)) as store:
            run(FakeVLM(echo), store=store, shard=Shard(number, 2))
    part = call(summary_command, tmp_path / "1")
    assert part.exit_code == 0, part.output
    assert "2 of 2 rows are parts" in part.stderr
    merged = call(merge_command, tmp_path / "1", tmp_path / "2", "--out", tmp_path / "all")
    assert merged.exit_code == 0, merged.output
    assert merged.stdout.count("new answers") == 2
    file = tmp_path / "table.csv"
    whole = call(summary_command, tmp_path / "all", "--out", file)
    assert "parts" not in whole.stderr and "TGV-KV" in whole.stdout
    table = pd.read_csv(file)
    assert table["n"].tolist() == table["of"].tolist() == [10, 10]
    assert dict(zip(table["method"], table["score"], strict=True)) == {"vanilla": 1, "TGV-KV": 0.7}


def test_a_summary_stands_beside_a_control(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        run(FakeVLM(echo), store=store)
    file = tmp_path / "table.csv"
    done = call(summary_command, tmp_path / "store", "--beside", "TGV-KV", "--out", file)
    assert done.exit_code == 0 and "beside TGV-KV" in done.stdout, done.output
    table = pd.read_csv(file).set_index("method")
    assert table.loc["TGV-KV", "loyalty"] == 0.7 and table["n"].tolist() == [10, 10]
    assert math.isnan(table.loc["vanilla", "loyalty"]), "the full cache is what others stand beside"
    unknown = call(summary_command, tmp_path / "store", "--beside", "downsample")
    assert isinstance(unknown.exception, UnknownNameError)


def test_summaries_name_what_was_refused_and_what_is_not_scored(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add(CONFIGURATION, rows(0, 1), SCORER, outcomes(0))
        asked = [("k", "picky", "second-turn", "sums", 10)]
        store.note_asked([*asked, (CONFIGURATION.key, "mine", "question-first", "read", 2)])
        store.note_refusal("k", "no earlier question")
    result = call(summary_command, tmp_path)
    assert "left out: second-turn sums picky: no earlier question" in result.stderr
    assert "1 answers are not scored" in result.stderr
    assert "1 of 1 rows are parts" in result.stderr
    assert "mine" in result.stdout


def test_an_empty_store_has_no_summary(tmp_path: Path) -> None:
    Store(tmp_path).close()
    assert isinstance(call(summary_command, tmp_path).exception, InputError)
    assert isinstance(call(summary_command, tmp_path / "missing").exception, StoreError)


def test_rows_of_two_seeds_are_shown_apart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for seed in (0, 1):
            run(FakeVLM(echo), methods={"TGV-KV": TGVKV(retention=0.5)}, store=store, seed=seed)
        summary = stored_summary(stored_rows(store), store.asked())
    assert summary["seed"].tolist() == [0, 1]
    assert summary["n"].tolist() == [10, 10]
