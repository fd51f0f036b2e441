"""Frames on which each claim of the probing artefacts holds, fails, or can't be told."""

from __future__ import annotations

import numpy as np
import pandas as pd

from figures.verdicts import Outcome
from tests.figures import probing_frames as f

HOLDS, FAILS = Outcome.HOLDS, Outcome.FAILS
HALF, OPEN = Outcome.UNDECIDED, Outcome.UNTESTABLE
MIXED = (3, 0, 6, 1, 7, 2, 5, 4)
"""An order of eight that is neither clearly rising nor clearly falling."""

STEP = (0, 0, 0, 0, 1, 4, 9, 14)
"""What is learnt more and more; its gain rises with the layer."""

LATE = tuple(-value for value in reversed(STEP))
"""What is learnt less and less; its gain falls with the layer."""


def few(frame: pd.DataFrame, layers: int) -> pd.DataFrame:
    """The first layers of a frame."""
    return frame[frame["layer"].isna() | (frame["layer"] < layers)]


def uneven(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose questions differ from each other by much more than the layers do."""
    noise = np.random.default_rng(0).normal(scale=20, size=len(frame)) * (frame["item"] >= 0)
    columns = [name for name in ("value", "effect") if name in frame.columns]
    return frame.assign(**{name: frame[name] + noise for name in columns})


CASES: dict[tuple[str, int], list[tuple[Outcome, pd.DataFrame]]] = {
    ("T-F1", 0): [
        (HOLDS, f.modality_gap()),
        (FAILS, f.modality_gap(vision=0.3)),
        (HALF, f.modality_gap(vision=0.4)),
    ],
    ("T-F1", 1): [(HOLDS, f.modality_gap()), (FAILS, f.modality_gap(crossing=0.2))],
    ("T-F1", 2): [(HOLDS, f.modality_gap()), (FAILS, f.modality_gap(evicted=False))],
    ("T-F2", 0): [(HOLDS, f.attention_maps()), (FAILS, f.attention_maps(dominant=0.3))],
    ("T-F7", 0): [
        (HOLDS, f.attention_maps()),
        (FAILS, f.attention_maps(troughs=(0.1, 0.1, 0.1))),
        (OPEN, f.attention_maps(troughs=(0.1,))),
    ],
    ("X-2", 0): [
        (HOLDS, f.information_profile()),
        (FAILS, f.information_profile(attention=f.FALLING)),
        (OPEN, few(f.information_profile(), 4)),
    ],
    ("X-2", 1): [
        (HOLDS, f.information_profile()),
        (FAILS, f.information_profile(states=f.FALLING)),
        (HALF, uneven(f.information_profile(states=MIXED))),
    ],
    ("X-2", 2): [
        (HOLDS, f.information_profile(budget=f.FALLING)),
        (FAILS, f.information_profile()),
        (OPEN, few(f.information_profile(), 1)),
    ],
    ("X-3", 0): [
        (HOLDS, f.causal_profile()),
        (FAILS, f.causal_profile(attention=f.FALLING)),
        (HALF, uneven(f.causal_profile(attention=MIXED))),
    ],
    ("X-3", 1): [
        (HOLDS, f.causal_profile(learnt=STEP)),
        (FAILS, f.causal_profile(learnt=LATE)),
        (HALF, uneven(f.causal_profile(harm=MIXED, learnt=STEP))),
    ],
    ("X-3", 2): [(HOLDS, f.causal_profile()), (FAILS, f.causal_profile(vision=9.0))],
    ("X-3", 3): [
        (HOLDS, f.causal_profile()),
        (FAILS, f.causal_profile(followed=(1.0, 1.0))),
        (HALF, f.causal_profile(followed=(0.5, 0.0))),
    ],
    ("X-4", 0): [(HOLDS, f.grounding_profile()), (FAILS, f.grounding_profile(attention=0.3))],
    ("X-4", 1): [(HOLDS, f.grounding_profile()), (FAILS, f.grounding_profile(weighted=0.7))],
    ("X-4", 2): [
        (HOLDS, f.grounding_profile()),
        (FAILS, f.grounding_profile(kept=0.6, random=0.7)),
        (HALF, f.grounding_profile(kept=0.6, random=0.6)),
    ],
    ("X-4", 3): [(HOLDS, f.grounding_profile()), (FAILS, f.grounding_profile(words=0.5))],
    ("X-5", 0): [(HOLDS, f.redundancy_profile()), (FAILS, f.redundancy_profile(whole=0.3))],
    ("X-5", 1): [(HOLDS, f.redundancy_profile()), (FAILS, f.redundancy_profile(near=0.4))],
    ("X-5", 2): [(HOLDS, f.redundancy_profile()), (FAILS, f.redundancy_profile(windows=0.01))],
}
