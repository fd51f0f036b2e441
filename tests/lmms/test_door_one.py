"""Benchmarks of the harness inside our evaluation."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from analysis.asking.evaluation import evaluate
from analysis.asking.scoring import scoring_of
from analysis.asking.store import Store
from analysis.scoring.benchmarks import benchmark_scores, parts_of
from analysis.scoring.captions import is_caption_score
from analysis.scoring.summaries import compare, summarise
from analysis.tasks import Task, task
from lightkv import TGVKV, VLM, LightKV
from lightkv.errors import (
    InputError,
    InvalidValueError,
    LightKVError,
    UnknownNameError,
    UnsupportedError,
)
from tests.closeness import assert_close
from tests.lmms.conftest import BENCHMARKS, COUNT, rows_of, write_benchmark

METHODS = {
    "vanilla": None,
    "tgvkv": TGVKV(retention=0.2),
    "lightkv": LightKV((2, 4, 6), (4, 2, 1), (0.5, 0.5, 0.5)),
}


def named(folder: Path, name: str) -> Task:
    return task(f"lmms:{folder / name}.yaml")


@pytest.fixture(scope="session")
def answered(benchmarks: Path, embedded: VLM) -> pd.DataFrame:
    """All benchmarks under three methods."""
    tasks = [named(benchmarks, name) for name in BENCHMARKS]
    return evaluate(embedded, tasks, METHODS, samples=None, batch_size=4, progress=False)


def test_every_question_is_asked_as_the_harness_words_it(
    benchmarks: Path, answered: pd.DataFrame
) -> None:
    assert len(answered) == len(BENCHMARKS) * len(METHODS) * COUNT
    for name in BENCHMARKS:
        benchmark = named(benchmarks, name)
        items = benchmark.items(None, 0)
        assert [item.index for item in items] == list(range(COUNT))
        for item in items:
            (turn,) = benchmark.lmms.doc_to_messages(benchmark.lmms.eval_docs[item.index])  # type: ignore[attr-defined]
            shown, text = turn["content"]
            assert item.question == text["text"]
            (picture,) = item.pictures
            assert isinstance(picture, Image.Image)
            assert picture.tobytes() == shown["url"].tobytes()
    right = answered[answered["method"] == "vanilla"].groupby("task")["score"].mean()
    assert right["lmms/tiny_vizwiz"] >= 0.6, "the embedded model understands the questions"


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_the_harness_on_the_same_answers(
    benchmarks: Path, answered: pd.DataFrame, name: str, method: str, tmp_path: Path
) -> None:
    benchmark: Any = named(benchmarks, name)
    rows = answered[(answered["task"] == benchmark.name) & (answered["method"] == method)]
    ours = {name: score.value for name, score in benchmark_scores(rows).items()}
    raw: dict[str, list[Any]] = {}
    for packed in rows["outcome"]:
        for names, value in packed["results"]:
            for one in names:
                raw.setdefault(one, []).append(value)
    ours.pop("mme_score", None)
    scores = benchmark.lmms.aggregation()
    for score in ours:
        more = (SimpleNamespace(output_path=str(tmp_path)),) if is_caption_score(score) else ()
        assert_close(ours[score], scores[score](raw[score], *more), 1e-9, scale=1.0)
    unscored = set(scores) - set(ours) - {"submission"}
    assert ours and all(one.endswith("_METEOR") for one in unscored)


def test_summaries_and_comparisons_hold_all_scores(answered: pd.DataFrame) -> None:
    summary = summarise(answered)
    pope = summary[(summary["task"] == "lmms/tiny_pope") & (summary["method"] == "tgvkv")]
    assert {"pope_accuracy", "pope_f1_score", "pope_recall"} <= set(pope["metric"])
    assert set(pope["n"]) == {COUNT}
    both = compare(answered, "tgvkv", "vanilla")
    mme = both[(both["task"] == "lmms/tiny_mme")].set_index("metric")
    assert set(mme.index) == {"mme_perception_score", "mme_cognition_score", "mme_score"}
    parts = mme["score"][["mme_perception_score", "mme_cognition_score"]]
    assert_close(mme["score"]["mme_score"], parts.sum(), 1e-9)
    assert_close(mme["difference"], mme["score"] - mme["baseline_score"], 1e-9, scale=400.0)


def test_several_scores_of_one_run_are_stored_once(
    benchmarks: Path, embedded: VLM, tmp_path: Path
) -> None:
    benchmark = named(benchmarks, "tiny_coco")
    with Store(tmp_path) as store:
        for _ in range(2):
            frame = evaluate(
                embedded, [benchmark], {"vanilla": None}, samples=None, store=store, progress=False
            )
        assert len(frame) == COUNT
        assert len(store.rows()) == COUNT
    (packed,) = {json.dumps(one["results"]) for one in frame["outcome"][:1]}
    assert packed.count('"pred"') == 1, "seven scores share one text"
    assert len(parts_of(frame)) == 7
    source = json.loads(frame["source"][0])
    assert source["path"] == "parquet" and source["harness"] == "lmms-eval 0.7.3"


def test_a_part_has_whole_pictures(benchmarks: Path) -> None:
    benchmark = named(benchmarks, "tiny_mme")
    for seed in range(4):
        indices = sorted(item.index for item in benchmark.items(5, seed))
        assert len(indices) == 4
        assert all(indices[place] // 2 == indices[place + 1] // 2 for place in (0, 2))
    assert {item.picture for item in benchmark.items(None, 0)} == {
        f"{category} {number}.png"
        for number, category in enumerate(["existence"] * 2 + ["text_translation"] * 2)
    }
    orders = {tuple(item.index for item in benchmark.items(4, seed)) for seed in range(8)}
    assert len(orders) > 1
    with pytest.raises(InvalidValueError, match="at least 2, the questions about one picture"):
        benchmark.items(1, 0)
    with pytest.raises(InvalidValueError, match="at most 8"):
        benchmark.items(9, 0)


def test_pictures_stay_undecoded_until_they_are_asked(
    benchmarks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Image as ImageColumn

    benchmark = named(benchmarks, "tiny_pope")
    decoded: list[int] = []
    original = ImageColumn.decode_example

    def decode(self: Any, *arguments: Any, **options: Any) -> Any:
        decoded.append(1)
        return original(self, *arguments, **options)

    monkeypatch.setattr(ImageColumn, "decode_example", decode)
    items = benchmark.items(None, 0)
    assert len(decoded) == 1, "one, to look at how the benchmark asks"
    assert items[3].pictures and len(decoded) == 2


def test_limits_and_settings(benchmarks: Path) -> None:
    pope, vizwiz = (named(benchmarks, name) for name in ("tiny_pope", "tiny_vizwiz"))
    assert (pope.max_new_tokens, pope.notes) == (128, ())
    assert vizwiz.max_new_tokens == 32, "none of its own"
    assert "at most 32 tokens" in "".join(vizwiz.notes)


def test_a_system_sentence_is_sent_and_makes_other_questions(benchmarks: Path) -> None:
    plain, told = (
        task(f"lmms:{benchmarks / 'tiny_pope'}.yaml{more}") for more in ("", ",system=be brief")
    )
    assert {item.system for item in plain.items(None, 0)} == {None}
    assert told.items(2, 0)[0].request().system == "be brief"
    assert plain.fingerprint != told.fingerprint


def test_the_fingerprint_follows_the_content_only(tmp_path: Path) -> None:
    def digest(rows: list[dict[str, Any]], **more: Any) -> str:
        return task(f"lmms:{write_benchmark(tmp_path, 'tiny_pope', rows, **more)}").fingerprint

    rows = rows_of("tiny_pope")
    first = digest(rows)
    assert digest(rows) == first, "written again, so with another time stamp"
    os.utime(tmp_path / "tiny_pope.parquet", (1, 1))
    assert task(f"lmms:{tmp_path / 'tiny_pope.yaml'}").fingerprint == first
    changed = [dict(rows[0], question="is there a green circle ?"), *rows[1:]]
    others = [
        digest(changed),
        digest([dict(rows[0], image=rows[3]["image"]), *rows[1:]]),
        digest([dict(rows[0], answer="yes" if rows[0]["answer"] == "no" else "no"), *rows[1:]]),
        digest(rows[:-1]),
        digest(rows, generation_kwargs={"max_new_tokens": 16}),
        digest(rows, lmms_eval_specific_kwargs={"default": {"post_prompt": " Be brief."}}),
    ]
    assert len({first, *others}) == 7


def test_the_scorer_follows_the_task_file(benchmarks: Path, tmp_path: Path) -> None:
    file = write_benchmark(tmp_path, "tiny_pope", rows_of("tiny_pope"))
    before = scoring_of(task(f"lmms:{file}")).scorer.key
    assert scoring_of(task(f"lmms:{file}")).scorer.key == before
    file.write_text(file.read_text() + "\nmetadata: {version: 1}\n")
    assert scoring_of(task(f"lmms:{file}")).scorer.key != before


def test_unknown_benchmarks_and_groups_are_told() -> None:
    with pytest.raises(UnknownNameError, match="did you mean pope"):
        task("lmms:popes")
    for empty in ("lmms", "lmms:", "lmms:pope,system=", "lmms:,system=x"):
        with pytest.raises(InvalidValueError, match="lmms:NAME"):
            task(empty)
    with pytest.raises(InputError, match="is not there"):
        task("lmms:missing.yaml")
    with pytest.raises(InvalidValueError, match=r"one of its tasks: .*docvqa_val"):
        task("lmms:docvqa")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("videott_no_leading_oe", "video|judge"),
        ("mmbench_en_dev", "judge"),
        ("seedbench_ppl", "scored by"),
    ],
)
def test_what_can_not_be_asked_here_is_refused_before_anything_is_downloaded(
    name: str, words: str
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        task(f"lmms:{name}")


def test_a_data_set_that_is_not_there_says_so() -> None:
    with pytest.raises(InputError, match=r"lmms-lab-encoder/POPE of pope can't be loaded"):
        task("lmms:pope")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"output_type": "multiple_choice"}, "scored by multiple_choice"),
        ({"dataset_kwargs": {"video": True}}, "videos"),
        ({"metadata": {"gpt_eval_model_name": "x"}}, "judge"),
    ],
)
def test_tasks_of_other_kinds(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    file = write_benchmark(tmp_path, "tiny_pope", rows_of("tiny_pope"), **more)
    with pytest.raises(UnsupportedError, match=words):
        task(f"lmms:{file}")


def test_captions_need_java_before_anything_is_asked(
    benchmarks: Path, embedded: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = named(benchmarks, "tiny_coco")
    monkeypatch.setenv("PATH", "")
    with Store(None) as store, pytest.raises(LightKVError, match="no java"):
        evaluate(
            embedded, [benchmark], {"vanilla": None}, samples=None, store=store, progress=False
        )


def test_the_import_leaves_warnings_and_logs_as_they_are() -> None:
    script = (
        "import warnings, logging, sys\n"
        "before = list(warnings.filters), logging.root.level, len(logging.root.handlers)\n"
        "from analysis.lmms import harness\n"
        "harness.manager()\n"
        "after = list(warnings.filters), logging.root.level, len(logging.root.handlers)\n"
        "assert before[1:] == after[1:], after\n"
        "assert not any(f[0] == 'ignore' and f[2] is Warning for f in after[0]), after[0]\n"
        "assert 'lmms_eval.evaluator' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert logging.getLogger().level == logging.WARNING
    assert warnings is not None


def test_help_and_the_manifest_import_no_harness_and_no_torch() -> None:
    script = (
        "import sys\n"
        "from analysis.lmms.manifest import manifest\n"
        "assert manifest().model_id == 'lightkv'\n"
        "assert not {'torch', 'datasets', 'lmms_eval.tasks'} & set(sys.modules)\n"
        "from figures.cli import main\n"
        "try: main(['evaluate', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'datasets', 'lmms_eval.tasks'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
