"""Constructed frames of published benchmarks, in the format of their harness.

No question has a score by itself here: what a table shows or judges must come from the outcomes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from analysis.scoring.benchmarks import benchmark_scores
from analysis.scoring.captions import Caption
from figures.artefacts import artefact
from figures.artefacts.shared import pick
from tests.figures.score_frames import PILOT, scored

OTHERS = ("fastv", "tome", "hired", "random")
EVICTORS = ("snapkv", "h2o")
PRUNERS = ("divprune", "visionzip")
PARTS = ("tvb", "twr", "tpr")

COUNT = 80
"""Questions of a benchmark: 40 pictures of POPE, 20 pairs of each of two categories of MME."""

Outcome = Callable[[int, bool], dict[str, Any]]


def pope(number: int, right: bool) -> dict[str, Any]:
    """Three of four truths are yes, so that accuracy and F1 differ."""
    truth, other = ("no", "yes") if number % 4 == 3 else ("yes", "no")
    said = truth if right else other
    outcome = {"ground_truth": truth, "prediction": said, "score": float(right)}
    return {"pope_accuracy": outcome, "pope_f1_score": outcome}


def mme(number: int, right: bool) -> dict[str, Any]:
    kind, category = (
        ("perception", "existence") if number % 4 < 2 else ("cognition", "code_reasoning")
    )
    pair = {"question_id": str(number // 2), "category": category, "score": float(right)}
    return {f"mme_{kind}_score": pair}


def seed(number: int, right: bool) -> dict[str, Any]:
    """Every fourth is a video, which the tables don't show."""
    outcome = {"pred": "A" if right else "B", "answer": "A"}
    return {"seed_video" if number % 4 == 3 else "seed_image": outcome, "seed_all": outcome}


def exact(name: str) -> Outcome:
    def outcome(number: int, right: bool) -> dict[str, Any]:
        return {name: float(right)}

    return outcome


def captions(prefix: str) -> Outcome:
    """Captions of other words each; wrong ones share a word with their reference."""

    def outcome(number: int, right: bool) -> dict[str, Any]:
        text = f"a thing{number} on the place{number} beside some thing{number + 1}"
        said = text if right else "nothing beside me"
        names = [*(f"Bleu_{order}" for order in (1, 2, 3, 4)), "METEOR", "ROUGE_L", "CIDEr"]
        return {f"{prefix}_{name}": Caption(said, (text,)) for name in names}

    return outcome


OUTCOMES: Mapping[str, Outcome] = {
    "lmms/pope": pope,
    "lmms/mme": mme,
    "lmms/seedbench_lite": seed,
    "lmms/gqa_lite": exact("exact_match"),
    "lmms/vizwiz_vqa_val_lite": exact("exact_match"),
    "lmms/textvqa_val_lite": exact("exact_match"),
    "lmms/scienceqa_img": exact("exact_match"),
    "lmms/chartqa_lite": exact("relaxed_overall"),
    "lmms/docvqa_val_lite": exact("anls"),
    "lmms/coco2017_cap_val_lite": captions("coco"),
    "lmms/nocaps_val_lite": captions("nocaps"),
    "lmms/textcaps_val_lite": captions("textcaps"),
}
"""Outcomes of a right and of a wrong answer, by task."""


def answered(method: str, task: str, right_share: float, **more: object) -> pd.DataFrame:
    """Rows of one setting on a benchmark, of which a share is answered right."""
    rows = scored(method, right_share, task=task, questions=COUNT, **more)
    packed = []
    for number in range(COUNT):
        # Spread out, so that every kind of question has right and wrong answers.
        right = (number * 7) % COUNT < round(right_share * COUNT)
        outcome = OUTCOMES[task](number, right)
        packed.append({"results": [[[name], value] for name, value in outcome.items()]})
    about = 1 if "cap" in task else 2
    pictures = [str(number // about) for number in range(COUNT)]
    return rows.assign(metric=task, score=float("nan"), outcome=packed, picture=pictures)


def several(
    tasks: Sequence[str], settings: Mapping[str, tuple[float, Mapping[str, object]]]
) -> pd.DataFrame:
    """Settings by label, each with its share of right answers and its columns."""
    parts = [
        answered(label, task, right_share, **columns)
        for task in tasks
        for label, (right_share, columns) in settings.items()
    ]
    return pd.concat(parts, ignore_index=True)


def tasks_of(artefact_id: str) -> list[str]:
    """The lite benchmarks of an artefact, as tasks."""
    return list(dict.fromkeys(f"lmms/{one.lite}" for one in artefact(artefact_id).benchmarks))


FULL_CACHE = 0.9
"""Its share of right answers."""


def compared(
    artefact_id: str,
    column: str,
    settings: Sequence[float],
    scores: Mapping[str, float],
    *,
    whole: float = 1.0,
) -> pd.DataFrame:
    """The full cache, and methods by name with their share of right answers at every setting."""
    held = {"kv_share": 0.5, "token_share": 0.6}
    methods = {
        f"{name} {at}": (score, {"compared": name, column: at, **held})
        for name, score in scores.items()
        for at in settings
    }
    full = FULL_CACHE, {"compared": "vanilla", column: whole}
    return several(tasks_of(artefact_id), {"vanilla": full, **methods})


def prefill(artefact_id: str, lightkv: float = 0.85, others: float = 0.5) -> pd.DataFrame:
    methods = dict.fromkeys(OTHERS, others) | {"lightkv": lightkv}
    return compared(artefact_id, "share", (0.55,), methods)


def evicted(artefact_id: str, tgvkv: float = 0.85, others: float = 0.5) -> pd.DataFrame:
    methods = {**dict.fromkeys(EVICTORS, others), "tgvkv": tgvkv}
    return compared(artefact_id, "retention", (0.5, 0.1), methods)


def pruned(tgvkv: float = 0.85, others: float = 0.5) -> pd.DataFrame:
    methods = {**dict.fromkeys(PRUNERS, others), "tgvkv": tgvkv}
    return compared("T-T6", "kept", (128.0,), methods, whole=576.0)


def pilot(others: float = 0.5, **scores: float) -> pd.DataFrame:
    """T-T1; ``scores`` by block and variant, such as ``a_TV``."""
    variants: dict[str, tuple[float, Mapping[str, object]]] = {
        f"{block} {variant} {retention}": (
            scores.get(f"{block}_{variant}".replace("-", "_").replace("+", "_"), others),
            {"block": block, "variant": variant, "retention": retention},
        )
        for block, names in PILOT.items()
        for variant in names
        for retention in (0.5, 0.2, 0.05)
    }
    full = FULL_CACHE, {"block": "", "variant": "vanilla", "retention": 1.0}
    return several(tasks_of("T-T1"), {"vanilla": full, **variants})


def ablation(others: float = 0.5, **scores: float) -> pd.DataFrame:
    """T-T5; ``scores`` by the parts in use, such as ``tvb_twr``, or ``none``."""
    combinations: dict[str, tuple[float, Mapping[str, object]]] = {}
    for on in itertools.product((False, True), repeat=len(PARTS)):
        used = "_".join(part for part, is_on in zip(PARTS, on, strict=True) if is_on) or "none"
        for retention in (0.2, 0.05):
            columns = {**dict(zip(PARTS, on, strict=True)), "retention": retention}
            combinations[f"{used} {retention}"] = scores.get(used, others), columns
    full = FULL_CACHE, {**dict.fromkeys(PARTS), "retention": 1.0}
    return several(tasks_of("T-T5"), {"vanilla": full, **combinations})


def window_counts(
    shallow: Sequence[float] = (0.5, 0.8, 0.6), deep: Sequence[float] = (0.9, 0.875, 0.875)
) -> pd.DataFrame:
    """L-T5: 1, 2 and 4 windows after layers 1 and 6."""
    counts: dict[str, tuple[float, Mapping[str, object]]] = {
        f"layer {layer}, {count}": (score, {"layer": float(layer), "windows": float(count)})
        for layer, scores in ((1, shallow), (6, deep))
        for count, score in zip((1, 2, 4), scores, strict=True)
    }
    full = FULL_CACHE, {"layer": float("nan"), "windows": float("nan")}
    return several(tasks_of("L-T5"), {"vanilla": full, **counts})


def schedules(narrow: float = 0.9, wide: float = 0.875) -> pd.DataFrame:
    """L-T9: two schedules of windows."""
    merged: dict[str, tuple[float, Mapping[str, object]]] = {
        f"W {windows}": (score, {"compared": "lightkv", "windows": windows})
        for windows, score in (("4,2,1", narrow), ("6,4,2", wide))
    }
    full = FULL_CACHE, {"compared": "vanilla", "windows": ""}
    return several(tasks_of("L-T9"), {"vanilla": full, **merged})


FRAMES: Mapping[str, Callable[..., pd.DataFrame]] = {
    "L-T1": partial(prefill, "L-T1"),
    "L-T2": partial(prefill, "L-T2"),
    "L-T5": window_counts,
    "L-T7": partial(prefill, "L-T7"),
    "L-T8": partial(prefill, "L-T8"),
    "L-T9": schedules,
    "T-T1": pilot,
    "T-T2": partial(evicted, "T-T2"),
    "T-T3": partial(evicted, "T-T3"),
    "T-T5": ablation,
    "T-T6": pruned,
    "T-T7": partial(evicted, "T-T7"),
}
"""Frames of the tables of scores, by artefact."""


def score(frame: pd.DataFrame, task: str, name: str, **setting: object) -> float:
    """A score of one setting, from its outcomes alone."""
    rows = pick(frame, task=task, **setting)
    return benchmark_scores(rows.drop_duplicates("item"))[name].value
