"""Constructed frames of scores: one setting, a sweep, an ablation."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

QUESTIONS = 120
TASKS = ("embedded/read", "embedded/caption")


def scored(
    method: str, score: float, *, task: str = TASKS[0], questions: int = QUESTIONS, **more: object
) -> pd.DataFrame:
    """Rows of one method on one task: the first ``score`` share of the questions is right."""
    right = np.arange(questions) < round(score * questions)
    return pd.DataFrame(
        {
            "model": "embedded",
            "method": method,
            "task": task,
            "seed": 0,
            "item": range(questions),
            "metric": "exact",
            "score": right.astype(float),
            "kv_bytes": 1000,
            "kv_share": 1.0,
            "token_share": 1.0,
            "requested_retention": float("nan"),
            "seconds": 0.1,
            **more,
        }
    )


def ablation(
    scores: dict[tuple[bool, bool, bool], float] | None = None, questions: int = QUESTIONS
) -> pd.DataFrame:
    """``scores`` by (TVB, TWR, TPR) at both retentions; 0.6 where not given."""
    parts = []
    for task in TASKS:
        full = {"tvb": None, "twr": None, "tpr": None, "retention": 1.0}
        parts.append(scored("vanilla", 0.9, task=task, questions=questions, **full))
        for on in itertools.product((False, True), repeat=3):
            for retention in (0.2, 0.05):
                label = "tvb{:d}-twr{:d}-tpr{:d}".format(*on)
                named = {"tvb": on[0], "twr": on[1], "tpr": on[2], "retention": retention}
                score = (scores or {}).get(on, 0.6)
                parts.append(scored(label, score, task=task, questions=questions, **named))
    return pd.concat(parts, ignore_index=True)


PILOT = {
    "a": ("uniform", "VV", "TT", "TV"),
    "b": ("observation-window", "self-attention", "VV+TT", "TV+TT"),
    "c": ("vision", "text"),
}


def pilot(scores: dict[tuple[str, str], float] | None = None) -> pd.DataFrame:
    """``scores`` by (block, variant); 0.6 where not given."""
    parts = []
    for task in TASKS:
        parts.append(scored("vanilla", 0.9, task=task, block="", variant="vanilla", retention=1.0))
        for block, variants in PILOT.items():
            for variant, retention in itertools.product(variants, (0.5, 0.2, 0.05)):
                score = (scores or {}).get((block, variant), 0.6)
                named = {"block": block, "variant": variant, "retention": retention}
                parts.append(scored(variant, score, task=task, **named))
    return pd.concat(parts, ignore_index=True)


def layer_sweep(
    scores: tuple[float, ...] = (0.3, 0.5, 0.7, 0.8), task: str = TASKS[0]
) -> pd.DataFrame:
    """Scores by layer 0, 2, 4, ... and the full cache's at 0.9."""
    parts = [scored("vanilla", 0.9, task=task, layer=float("nan"))]
    parts += [scored(f"layer {2 * n}", s, task=task, layer=2.0 * n) for n, s in enumerate(scores)]
    return pd.concat(parts, ignore_index=True)


def window_sweep(
    shallow: tuple[float, ...] = (0.3, 0.6, 0.5), deep: tuple[float, ...] = (0.8, 0.8, 0.8)
) -> pd.DataFrame:
    """Scores of 1, 2 and 4 windows after layers 1 and 6."""
    parts = [scored("vanilla", 0.9, layer=float("nan"), windows=float("nan"))]
    for layer, scores in ((1.0, shallow), (6.0, deep)):
        parts += [
            scored(f"{layer} {w}", s, layer=layer, windows=float(w), kv_share=0.6)
            for w, s in zip((1, 2, 4), scores, strict=True)
        ]
    return pd.concat(parts, ignore_index=True)


def two_models(first: dict[str, float], second: dict[str, float]) -> pd.DataFrame:
    """Two models on the same questions."""
    other = retention_sweep(**second).assign(model="embedded-qwen")
    # Merging layers have other numbers at another depth.
    other["setting"] = other["setting"].replace({"55 %": "55 % deeper"})
    return pd.concat([retention_sweep(**first), other], ignore_index=True)


def retention_sweep(light: float = 0.9, tgv: float = 0.7, random: float = 0.2) -> pd.DataFrame:
    """Two tasks under four methods."""
    parts = []
    for task in TASKS:
        parts.append(scored("vanilla", 0.9, task=task, family="vanilla", setting="full"))
        named = {"family": "lightkv", "setting": "55 %", "kv_share": 0.6, "token_share": 0.55}
        parts.append(scored("lightkv", light, task=task, **named))
        for family, score in (("tgvkv", tgv), ("random", random)):
            for share in (0.5, 0.05):
                named = {"family": family, "setting": f"{100 * share:g} %"}
                numbers = {"kv_share": share, "requested_retention": share}
                parts.append(scored(f"{family} {share}", score, task=task, **named, **numbers))
    return pd.concat(parts, ignore_index=True)
