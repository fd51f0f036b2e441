"""Evictors on questions about videos, by how these are asked."""

from __future__ import annotations

import pandas as pd

from analysis.studies import study
from analysis.studies.video import EVICTORS, SAMPLES, VIDEOS, evictors_on_video
from lightkv import VLM
from tests.tiny import tiny_qwen


def test_rows_say_how_each_question_is_asked() -> None:
    frame = evictors_on_video(
        tiny_qwen(),
        tasks=("embedded-qwen:order", "embedded-qwen:moves", "embedded-qwen:color"),
        methods=("tgvkv",),
        retentions=(0.5,),
        samples=8,
        progress=False,
    )
    assert len(frame) == 3 * 2 * 8
    assert set(zip(frame["compared"], frame["retention"], strict=True)) == {
        ("vanilla", 1.0),
        ("tgvkv", 0.5),
    }
    for asked, hint, paraphrased in zip(
        frame["asked"], frame["fact_hint"], frame["fact_paraphrased"], strict=True
    ):
        if asked in ("correctly-led", "wrongly-led"):
            assert hint == {"correctly-led": "right", "wrongly-led": "wrong"}[asked]
        else:
            assert hint == "none" or pd.isna(hint)
            assert asked == ("paraphrase" if paraphrased is True else "primary")
    assert set(frame[frame["task"] != "embedded-qwen/color"]["asked"]) == {
        *("primary", "paraphrase", "correctly-led", "wrongly-led")
    }
    # Of a task that says nothing every question is asked plainly.
    assert set(frame[frame["task"] == "embedded-qwen/color"]["asked"]) == {"primary"}


def test_a_model_without_videos_has_no_rows(embedded: VLM) -> None:
    assert evictors_on_video(embedded).empty


def test_by_default_it_asks_what_the_paper_compares() -> None:
    known = study("evictors_on_video").parameters
    assert known["tasks"] == VIDEOS and known["methods"] == EVICTORS
    assert known["retentions"] == (0.5, 0.2, 0.1) and known["samples"] == SAMPLES == 8
    assert EVICTORS == ("streamingllm", "snapkv", "h2o", "prefixkv", "tgvkv")
