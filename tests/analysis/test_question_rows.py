"""Question rows as a file, and the table of every method that ships."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.asking.evaluation import evaluate
from analysis.asking.question_rows import COLUMNS, read_rows, shipped_rows, write_rows
from analysis.studies.protocols import evaluated, every_method
from analysis.tasks.embedded import EVERY_KIND
from lightkv import VLM
from lightkv.catalogue import method
from lightkv.errors import InputError
from lightkv.protocols import PROTOCOLS

RETENTIONS = (0.5, 0.2, 0.1, 0.05)


def test_written_and_read_back_rows_are_the_same(embedded: VLM, tmp_path: Path) -> None:
    frame = evaluate(
        embedded,
        ["embedded/color"],
        {"vanilla": None, "random 20 %": method("random", 0.2)},
        samples=3,
        progress=False,
    )
    file = tmp_path / "rows.csv.gz"
    write_rows(frame, file)
    first = file.read_bytes()
    write_rows(frame, file)
    assert file.read_bytes() == first
    rows_read = read_rows(file)
    wanted = frame[[*COLUMNS, "answer"]]
    pd.testing.assert_frame_equal(rows_read, wanted, check_dtype=False, rtol=1e-5, atol=0)
    named = evaluated(file)
    assert set(named["method"]) == {"vanilla", "random"}
    assert named.groupby("method")["retention"].first().to_dict()["random"] == 0.2
    assert named[named["method"] == "vanilla"]["retention"].isna().all()
    facts = {"fact_tokens": [12, None, 30] * 2, "fact_hint": ["none", None, "right"] * 2}
    write_rows(frame.assign(**facts), file)
    known = read_rows(file)[list(facts)]
    pd.testing.assert_frame_equal(known, frame.assign(**facts)[list(facts)], check_dtype=False)
    write_rows(frame.assign(answer=["", "NA", "a, b"] * 2), file)
    assert read_rows(file)["answer"].tolist() == ["", "NA", "a, b"] * 2
    write_rows(frame.replace({"method": {"random 20 %": "lightkv | tgvkv 20 %"}}), file)
    composed = evaluated(file)
    assert set(composed["method"]) == {"vanilla", "lightkv | tgvkv"}


def test_files_that_hold_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_rows(tmp_path / "missing.csv.gz")
    plain = tmp_path / "plain.csv.gz"
    plain.write_text("score\n1\n")
    with pytest.raises(InputError, match="gzip"):
        read_rows(plain)
    pd.DataFrame({"score": [1.0]}).to_csv(plain, compression="gzip", index=False)
    with pytest.raises(InputError, match=r"lacks the columns \['model'"):
        read_rows(plain)


def test_the_table_that_ships_is_of_this_checkpoint(embedded: VLM) -> None:
    rows = every_method(embedded)
    assert set(rows["fingerprint"]) == {embedded.fingerprint}
    assert set(rows["protocol"]) == set(PROTOCOLS) and set(rows["task"]) == set(EVERY_KIND)
    for name in ("tgvkv", "snapkv", "random"):
        of_method = rows[(rows["method"] == name) & (rows["protocol"] == "question-first")]
        assert set(of_method["retention"]) == set(RETENTIONS)
        cells = of_method.groupby(["task", "retention"])["item"].nunique()
        assert len(cells) == len(EVERY_KIND) * len(RETENTIONS) and cells.eq(16).all()
    assert shipped_rows("another model") is None


def test_other_choices_are_asked(embedded: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    import analysis.studies.protocols as study

    monkeypatch.setattr(
        study, "compressors", lambda *_: {"vanilla": None, "random 50 %": method("random", 0.5)}
    )
    rows = every_method(embedded, tasks=("embedded/color",), samples=2, progress=False)
    assert len(rows) == 3 * 2 * 2 and set(rows["retention"].dropna()) == {0.5}
    shipped = every_method(embedded)
    assert len(every_method(embedded, methods=("all",), samples=1, tasks=("embedded/color",))) == 6
    assert len(every_method(embedded, samples=16, seed=0)) == len(shipped) > 50_000


def test_a_stored_answer_is_given_again(embedded: VLM) -> None:
    """What ships is what the code answers today, for a few methods."""
    stored = every_method(embedded)
    label = {"vanilla": None, "snapkv 20 %": method("snapkv", 0.2)}
    asked = evaluate(
        embedded, ["embedded/read"], label, protocols=("second-turn",), samples=4, progress=False
    )
    for name in ("vanilla", "snapkv"):
        of_store = stored[(stored["method"] == name) & (stored["protocol"] == "second-turn")]
        of_store = of_store[(of_store["task"] == "embedded/read") & of_store["item"].lt(4)]
        of_store = of_store[
            of_store["retention"].isna() | (of_store["retention"] == 0.2)
        ].sort_values("item")
        again = asked[asked["method"].str.startswith(name)].sort_values("item")
        # Another processor rounds otherwise, which may turn one answer.
        apart = of_store["score"].to_numpy() != again["score"].to_numpy()
        assert apart.sum() <= 1
        assert of_store["kv_bytes"].tolist() == again["kv_bytes"].tolist()
