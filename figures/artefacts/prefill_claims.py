"""Claims of LightKV's tables of methods, judged on a frame of methods at shares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from figures.artefacts.methods import LOOKS, VANILLA
from figures.artefacts.shared import pick, printed
from figures.compound import all_of, worst_of
from figures.verdicts import Verdict, better, collapses, keeps, untestable, verdict

if TYPE_CHECKING:
    import pandas as pd

PRESERVED: Final = 0.98
NEARLY: Final = 0.95
"""What is kept without a vision encoder: Table 3 prints 99.2 and 96.6 %."""
COLLAPSED: Final = 0.5
NEAR: Final = 0.055
"""Relative error within which a printed number counts as the computed one: the docstring of
:mod:`lightkv.cost.workload` names 5.3 % for LightKV's FLOPs."""
MERGERS: Final = ("tome", "pitome", "tofu")
AFTERWARDS: Final = ("random", "random-vision", "elasticcache", "tome-cache")


def cost(model: str, method: str, share: float) -> tuple[float, float]:
    """TFLOPs and GiB of a request under a method; NaN where the model's parts are not counted."""
    from analysis.studies.shares import method_cost

    costs = method_cost(model, method, share)
    return (float("nan"),) * 2 if costs is None else costs


def _lightkv(frame: pd.DataFrame, share: float) -> pd.DataFrame:
    return pick(frame, compared="lightkv", share=share)


def _shares(frame: pd.DataFrame) -> list[float]:
    return sorted(set(frame["share"]) - {1.0}, reverse=True)


def judge_preserved(frame: pd.DataFrame) -> Verdict:
    """Does LightKV keep 98 % of the full cache's score at every share?"""
    return _kept(frame, PRESERVED)


def _kept(frame: pd.DataFrame, least: float) -> Verdict:
    whole = pick(frame, compared=VANILLA)
    return all_of(
        keeps(_lightkv(frame, share), whole, least, f"LightKV at {100 * share:g} %, all tasks")
        for share in _shares(frame)
    )


def _beats(frame: pd.DataFrame, others: tuple[str, ...]) -> Verdict:
    known = [name for name in others if name in set(frame["compared"])]
    if not known:
        return untestable(f"{', '.join(others)} was not run")
    return worst_of(
        better(
            _lightkv(frame, share),
            pick(frame, compared=name, share=share),
            f"LightKV over {LOOKS[name].label} at {100 * share:g} %",
            whole=pick(frame, compared=VANILLA),
        )
        for share in _shares(frame)
        for name in known
    )


def judge_mergers(frame: pd.DataFrame) -> Verdict:
    """Does LightKV beat ToMe, PiToMe and ToFu?"""
    return _beats(frame, MERGERS)


def judge_pruners(frame: pd.DataFrame) -> Verdict:
    """Does LightKV beat HiRED and FastV?"""
    return _beats(frame, ("hired", "fastv"))


def judge_all(frame: pd.DataFrame) -> Verdict:
    """Does LightKV beat every method in prefill?"""
    return _beats(frame, (*MERGERS, "fastv"))


def judge_afterwards(frame: pd.DataFrame) -> Verdict:
    """Do baselines after prefill lose half of the score on captions?"""
    captions = frame[frame["task"].str.contains("caption|coco|nocaps")]
    whole = pick(captions, compared=VANILLA)
    if captions.empty:
        return untestable("no captions were asked for")
    return worst_of(
        collapses(
            pick(captions, compared=name),
            whole,
            COLLAPSED,
            f"{LOOKS[name].label} on captions, share of the full cache's",
        )
        for name in AFTERWARDS
        if name in set(captions["compared"])
    )


def judge_cost(frame: pd.DataFrame) -> Verdict:
    """Are the printed FLOPs and memory of LightKV and the full cache those that are counted?"""
    from figures import paper

    numbers, judged = paper.numbers("L-T1"), []
    for model in dict.fromkeys(numbers["model"]):
        for method, share in ((VANILLA, 1.0), ("lightkv", 0.55)):
            cells = pick(numbers, model=model, method=method)
            for metric, value in zip(
                ("flops", "kv_cache_memory"), cost(model, method, share), strict=True
            ):
                print_ = printed(cells, metric=metric)
                if math.isfinite(print_):
                    error = value / print_ - 1
                    text = f"{model} {method} {metric}: {100 * error:+.1f} % from the print"
                    judged.append((abs(error), verdict(abs(error) <= NEAR, text)))
    # The largest error comes first: it is the one that a reader wants to see.
    return worst_of(one for _, one in sorted(judged, key=lambda pair: -pair[0]))


def judge_encoder_free(frame: pd.DataFrame) -> Verdict:
    """Does LightKV keep 95 % of the full cache's score on a model without a vision encoder?"""
    return _with_encoder(frame) or _kept(frame, NEARLY)


def judge_encoder_free_pruner(frame: pd.DataFrame) -> Verdict:
    """Does LightKV beat FastV on a model without a vision encoder?"""
    return _with_encoder(frame) or _beats(frame, ("fastv",))


def _with_encoder(frame: pd.DataFrame) -> Verdict | None:
    """Why a claim about encoder-free models can't be tested, if it can't."""
    models = sorted(set(frame["model"][frame["encoder"]]))
    if not models:
        return None
    return untestable(f"takes a model without a vision encoder; {', '.join(models)} has one")
