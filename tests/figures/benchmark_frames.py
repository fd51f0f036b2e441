"""Constructed frames of published benchmarks, in the format of their harness.

No question has a score by itself here: what a table shows or judges must come from the outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.scoring.captions import Caption
from tests.figures.score_frames import scored

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


def compared(
    tasks: Sequence[str],
    column: str,
    settings: Sequence[float],
    scores: Mapping[str, float],
    *,
    whole: float = 1.0,
    vanilla: float = 0.9,
) -> pd.DataFrame:
    """The full cache, and methods by name with their share of right answers at every setting."""
    parts = []
    for task in tasks:
        parts.append(answered("vanilla", task, vanilla, compared="vanilla", **{column: whole}))
        for name, score in scores.items():
            for at in settings:
                where: dict[str, object] = {"compared": name, column: at}
                held = {"kv_share": 0.5, "token_share": 0.6}
                parts.append(answered(f"{name} {at}", task, score, **where, **held))
    return pd.concat(parts, ignore_index=True)
