"""Constructed frames in which methods are compared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tests.figures.score_frames import QUESTIONS, TASKS, scored

COMPARED = ("streamingllm", "snapkv", "h2o", "elasticcache", "prefixkv")
SHORT = ("embedded/exist", "embedded/where", "embedded/count")
EVICTORS = {
    "tgvkv": 0.9,
    "snapkv": 0.8,
    "prefixkv": 0.7,
    "h2o": 0.6,
    "elasticcache": 0.5,
    "streamingllm": 0.4,
    "random": 0.1,
}


def every_method(*, reversed_later: bool = False, **scores: float) -> pd.DataFrame:
    """Seven evictors and a merging method under three protocols; TGV-KV needs a question."""
    first = {**EVICTORS, **scores}
    later = dict(zip(first, reversed(first.values()), strict=True)) if reversed_later else first
    parts = []
    for protocol in ("question-first", "question-agnostic", "second-turn"):
        of_protocol = first if protocol == "question-first" else later
        for task in TASKS:
            for name in ("vanilla", "lightkv"):
                named = {"protocol": protocol, "retention": float("nan")}
                parts.append(scored(name, 0.95, task=task, **named))
            for (name, score), retention in itertools.product(of_protocol.items(), (0.5, 0.1)):
                if name == "tgvkv" and protocol == "question-agnostic":
                    continue
                named = {"protocol": protocol, "retention": retention, "kv_share": retention}
                parts.append(scored(name, score, task=task, **named))
    return pd.concat(parts, ignore_index=True)


def compared(
    column: str,
    settings: Sequence[float],
    scores: Mapping[str, float],
    *,
    whole: float = 1.0,
    tasks: Sequence[str] = TASKS,
    vanilla: float = 0.95,
    questions: int = QUESTIONS,
) -> pd.DataFrame:
    """The full cache, and methods by name with their scores at every setting of a column."""
    parts = []
    for task in tasks:
        asked: dict[str, Any] = {"task": task, "questions": questions}
        where = {"compared": "vanilla", column: whole, **_words(vanilla, questions)}
        parts.append(scored("vanilla", vanilla, **asked, **where))
        for (name, score), at in itertools.product(scores.items(), settings):
            label = f"{name} {at}"
            where = {"compared": name, column: at, **_words(score, questions)}
            parts.append(scored(label, score, kv_share=0.5, token_share=0.6, **asked, **where))
    return pd.concat(parts, ignore_index=True)


def _words(score: float, questions: int = QUESTIONS) -> dict[str, object]:
    """Captions of which that share is word for word the reference."""
    captions = [f"top left red circle {n} , low blue ring" for n in range(questions)]
    right = round(score * questions)
    answers = [text if n < right else "nothing at all" for n, text in enumerate(captions)]
    words = [" ".join(["word"] * (4 + n % 6)) for n in range(questions)]
    return {"answer": answers, "reference": [[text] for text in captions], "question": words}


PREFILL = {
    **{"lightkv": 0.9, "tome": 0.6, "pitome": 0.6, "tofu": 0.6, "fastv": 0.7, "hired": 0.5},
    **{"elasticcache": 0.3, "random": 0.2, "random-vision": 0.3, "tome-cache": 0.4},
}


VISION = ("embedded/exist", "embedded/caption")


def prefill_methods(
    shares: Sequence[float] = (0.55,),
    methods: Sequence[str] = tuple(PREFILL),
    *,
    encoder: bool = False,
    **scores: float,
) -> pd.DataFrame:
    """Methods in prefill at some shares, of a model with or without a vision encoder."""
    changed = {name.replace("_", "-"): score for name, score in scores.items()}
    known = {name: {**PREFILL, **changed}[name] for name in methods}
    return compared("share", shares, known, tasks=VISION).assign(encoder=encoder)


def window_schedules(narrow: float = 0.9, wide: float = 0.9) -> pd.DataFrame:
    """Two window schedules on four tasks."""
    parts = []
    for task in VISION:
        parts.append(scored("vanilla", 0.9, task=task, compared="vanilla", windows=""))
        for windows, score in (("4,2,1", narrow), ("6,4,2", wide)):
            named = {"compared": "lightkv", "windows": windows}
            parts.append(scored(windows, score, task=task, **named))
    return pd.concat(parts, ignore_index=True)


def evictors_compared(
    methods: Sequence[str] = (*COMPARED, "tgvkv"),
    retentions: Sequence[float] = (0.5, 0.2, 0.1, 0.05),
    tasks: Sequence[str] = TASKS,
    questions: int = QUESTIONS,
    **scores: float,
) -> pd.DataFrame:
    """Evictors at some retentions."""
    changed = {name.replace("_", "-"): score for name, score in scores.items()}
    known = {
        name: {**EVICTORS, "tgvkv-vision-only": 0.9, "aircache": 0.5, **changed}[name]
        for name in methods
    }
    return compared("retention", retentions, known, tasks=tasks, vanilla=0.92, questions=questions)


WAYS = ("primary", "correctly-led", "wrongly-led", "paraphrase")
ON_VIDEO = ("streamingllm", "snapkv", "h2o", "prefixkv", "tgvkv")


def evictors_on_video(**scores: float) -> pd.DataFrame:
    """Evictors on two tasks, each question in one of four ways; right ones spread over the ways."""
    tasks = ("embedded-qwen/order", "embedded-qwen/moves")
    frame = evictors_compared(ON_VIDEO, (0.5, 0.2, 0.1), tasks, 4 * QUESTIONS, **scores)
    return frame.assign(asked=[WAYS[item % len(WAYS)] for item in frame["item"]])


def by_length(long: float | None = None, **scores: float) -> pd.DataFrame:
    """TGV-KV on questions of four lengths, of the longest with a score of their own."""
    count, tasks = 8 * QUESTIONS, ("embedded-qwen/legend",)
    frame = evictors_compared(("tgvkv",), (0.3, 0.1), tasks, count, **scores)
    frame["question"] = frame["item"].astype(str)
    frame["fact_tokens"] = 20 + 40 * (frame["item"] % 4)
    if long is not None:
        slow = (frame["fact_tokens"] == 140) & (frame["compared"] == "tgvkv")
        frame.loc[slow, "score"] = (frame["item"] < long * count).astype(float)
    return frame


def pruning_against_eviction(**scores: float) -> pd.DataFrame:
    """Four pruners and TGV-KV at three sizes."""
    known = {"divprune": 0.6, "visionzip": 0.5, "vispruner": 0.5, "cdpruner": 0.6, "tgvkv": 0.9}
    return compared("kept", (128, 64, 32), {**known, **scores}, whole=576, tasks=SHORT)


def released_choices(
    light: float = 0.8, tgv: float = 0.8, random: float = 0.5, paper: float = 0.8
) -> pd.DataFrame:
    """The paper's variants at ``paper``, the code's at ``light`` and ``tgv``."""
    scores = {
        ("vanilla", ""): 0.95,
        ("lightkv", "paper"): paper,
        ("lightkv", "guidance"): random,
        ("lightkv", "all"): light,
        ("tgvkv", "paper"): paper,
        ("tgvkv", "decoding"): 0.7,
        ("tgvkv", "all"): tgv,
    }
    parts = []
    for task, ((name, departure), score) in itertools.product(TASKS, scores.items()):
        where = {"compared": name, "departure": departure, "overlap": 0.5, **_words(score)}
        parts.append(scored(f"{name}, {departure}", score, task=task, kv_share=0.5, **where))
    return pd.concat(parts, ignore_index=True)


LIGHTKV = {"guidance": 0.3, "windows": 0.1, "hierarchy": 0.1, "pairing": 0.0, "positions": 0.0}
TGV = {"tvb": 0.1, "twr": 0.4, "tpr": 0.1}


def all_combinations(
    tasks: Sequence[str] = TASKS, joint: float = 0.0, **effects: float
) -> pd.DataFrame:
    """Both factorials around 0.5, with main effects and one of two parts jointly: the first two of
    each method score ``joint`` more where both or none are in use, and as much less elsewhere."""
    parts = [scored("vanilla", 1.0, task=task, compared="vanilla") for task in tasks]
    for method, defaults in (("lightkv", LIGHTKV), ("tgvkv", TGV)):
        sizes = {name: effects.get(name, size) for name, size in defaults.items()}
        for task, on in itertools.product(
            tasks, itertools.product((False, True), repeat=len(sizes))
        ):
            main = sum(
                size if used else -size for size, used in zip(sizes.values(), on, strict=True)
            )
            score = 0.5 + main / 2 + (joint if on[0] == on[1] else -joint) / 2
            used = dict(zip(sizes, on, strict=True))
            parts.append(scored(f"{method} {on}", score, task=task, compared=method, **used))
    return pd.concat(parts, ignore_index=True)
