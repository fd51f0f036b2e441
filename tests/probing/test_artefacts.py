"""The artefacts of probing: drawn, tabled and judged from what their studies return."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis.studies import STUDIES
from figures.artefacts.probing_causes import CAUSES
from figures.artefacts.probing_gap import MODALITY_GAP
from figures.artefacts.probing_grounding import GROUNDING
from figures.artefacts.probing_information import INFORMATION
from figures.artefacts.probing_maps import DOMINANT_WORDS, MAPS_BY_DEPTH
from figures.artefacts.probing_redundancy import REDUNDANCY
from figures.artefacts.probing_shared import resampled_correlation
from figures.contract import Artefact
from figures.verdicts import Outcome
from lightkv import VLM

Frames = Callable[[str], pd.DataFrame]
SMALL = {
    "modality_gap": {"samples": 3},
    "attention_maps": {"layers": (1, 4), "samples": 10},
    "information_profile": {"samples": 32},
    "causal_profile": {"samples": 6},
    "grounding_profile": {"samples": 3, "tasks": ("embedded/read",)},
    "redundancy_profile": {"samples": 2},
}


@pytest.fixture(scope="module")
def frames(embedded: VLM) -> Frames:
    known: dict[str, pd.DataFrame] = {}

    def of(study: str) -> pd.DataFrame:
        if study not in known:
            known[study] = STUDIES[study].run(embedded, **SMALL[study])
        return known[study]

    return of


@pytest.mark.parametrize(
    "one",
    [
        MODALITY_GAP,
        DOMINANT_WORDS,
        MAPS_BY_DEPTH,
        INFORMATION,
        CAUSES,
        GROUNDING,
        REDUNDANCY,
    ],
    ids=lambda one: one.id,
)
def test_artefacts_are_drawn_tabled_and_judged(one: Artefact, frames: Frames) -> None:
    frame = frames(one.study)
    assert one.figure(frame).get_axes()
    assert len(one.table(frame)) and len(one.plotted(frame))
    judged = one.judge(frame)
    assert len(judged) == len(one.claims) and all(judgement.verdict.reason for judgement in judged)


def profiles(values: np.ndarray) -> pd.DataFrame:  # type: ignore[type-arg]
    rows = [
        {"task": "t", "seed": 0, "item": item, "layer": layer, "value": value}
        for item, row in enumerate(values)
        for layer, value in enumerate(row)
    ]
    return pd.DataFrame(rows)


def test_rank_correlations_of_known_profiles() -> None:
    noise = np.random.default_rng(0).normal(size=(20, 8)) / 10
    rising = np.arange(8.0) + noise
    up, down = profiles(rising), profiles(-rising)
    assert resampled_correlation(up, up, "x").outcome is Outcome.HOLDS
    assert resampled_correlation(up, down, "x").outcome is Outcome.FAILS
    few = resampled_correlation(profiles(rising[:, :3]), profiles(rising[:, :3]), "x")
    assert few.outcome is Outcome.UNTESTABLE
    same = resampled_correlation(up, profiles(np.ones((20, 8))), "x")
    assert same.outcome is Outcome.UNTESTABLE and "does not vary" in same.reason
    nine = resampled_correlation(profiles(rising[:9]), profiles(rising[:9]), "x")
    assert nine.outcome is Outcome.UNDECIDED and nine.p == 1
    # Only questions that both sides have count.
    shared = resampled_correlation(up, profiles(rising[:12]), "x")
    assert shared.outcome is Outcome.HOLDS and "12 questions" in shared.reason
    # A half-width of many layers: the questions don't tell.
    blurred = np.random.default_rng(1).normal(size=(20, 8)) * 50
    assert resampled_correlation(profiles(blurred), up, "x").outcome is Outcome.UNDECIDED
    turned = resampled_correlation(up, down, "x", of_right=lambda means: -means)
    assert turned.outcome is Outcome.HOLDS
