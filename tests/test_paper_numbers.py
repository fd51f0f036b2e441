"""The transcribed tables are readable, complete and free of duplicates."""

from __future__ import annotations

import pytest

from figures.paper import FLAGS, artefacts, describe, numbers
from lightkv.errors import UnknownNameError

KEY = ["model", "method", "setting", "benchmark", "metric"]
WITHOUT_VALUE = ["EMPTY", "NOT_REPORTED", "OOM"]


def test_every_table_of_both_papers_is_there() -> None:
    expected = [f"L-T{i}" for i in range(1, 11)] + [f"T-T{i}" for i in range(1, 10)]
    assert sorted(artefacts()) == sorted(expected)


@pytest.mark.parametrize("artefact", artefacts())
def test_counts_equal_the_index(artefact: str) -> None:
    frame, entry = numbers(artefact), describe(artefact)
    assert len(frame) == entry["n_rows_csv"]
    assert frame["value"].notna().sum() == entry["n_values"]
    assert frame["note"].str.contains("CHECK").sum() == entry["n_check_flags"]
    for flag, count in entry["n_without_value_by_reason"].items():
        assert (frame["flag"] == flag).sum() == count


@pytest.mark.parametrize("artefact", artefacts())
def test_rows_are_unique_and_named(artefact: str) -> None:
    frame, entry = numbers(artefact), describe(artefact)
    assert not frame.duplicated(KEY).any()
    assert set(frame["method"]) == set(entry["methods"])
    assert set(frame["setting"]) - {""} == set(entry["settings"])


@pytest.mark.parametrize("artefact", artefacts())
def test_only_flagged_rows_lack_a_value(artefact: str) -> None:
    frame = numbers(artefact)
    assert (frame["value"].isna() == frame["flag"].isin(WITHOUT_VALUE)).all()
    assert set(frame["flag"]) <= {"", *FLAGS}
    assert (frame["flagged"] == (frame["flag"] != "")).all()


def test_printed_digits_are_kept() -> None:
    frame = numbers("L-T1").set_index(KEY)
    row = frame.loc[("llava-1.5-7b", "elasticcache", "compression=55%", "efficiency",
                     "kv_cache_memory")]  # fmt: skip
    assert (row["printed"], row["value"]) == ("0.20", 0.2)


def test_an_unknown_table_is_a_typed_error() -> None:
    with pytest.raises(UnknownNameError, match="L-T1"):
        numbers("L-T11")
