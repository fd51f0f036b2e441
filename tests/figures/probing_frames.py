"""Small constructed frames with the columns that the probing studies return."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

QUESTIONS = 20
LAYERS = 8
TASK = "embedded/color"
RISING = tuple(range(LAYERS))
FALLING = RISING[::-1]
WORDS = ("what", "is", "red", "?")
SYSTEM, PATCHES = 2, 16


def named(rows: Sequence[Mapping[str, object]], item: int | None = None) -> pd.DataFrame:
    """Rows of one question (``item``), or of all of them with a little noise in every number."""
    frame = pd.DataFrame(rows)
    if item is not None:
        frame = frame.assign(item=item)
    else:
        noise = np.random.default_rng(0).normal(scale=1e-3, size=QUESTIONS)
        numbers = [name for name in ("value", "auc", "lift", "effect") if name in frame.columns]
        parts = [
            frame.assign(item=one, **{name: frame[name] + noise[one] for name in numbers})
            for one in range(QUESTIONS)
        ]
        frame = pd.concat(parts, ignore_index=True)
    return frame.assign(model="embedded", task=TASK, seed=0)


def _positions() -> list[tuple[int, str, str]]:
    """Position, kind and token of a prompt."""
    tokens = [("system", "<s>"), ("system", "user"), *[("vision", "")] * PATCHES]
    tokens += [("text", word) for word in WORDS]
    return [(place, kind, token) for place, (kind, token) in enumerate(tokens)]


def _map(layer: int, trough: float) -> list[dict[str, object]]:
    """A causal map whose text rows see patches at ``trough`` of what they see of words."""
    rows: list[dict[str, object]] = []
    for (query, kind, _), (key, key_kind, token) in itertools.product(_positions(), repeat=2):
        if key <= query:
            crossing = kind == "text" and key_kind == "vision"
            value = 0.05 * (trough if crossing else 1.0)
            where = {"panel": "map", "layer": layer, "position": query, "key": key, "token": token}
            rows.append({**where, "kind": kind, "key_kind": key_kind, "value": value})
    return rows


def modality_gap(
    vision: float = 0.9, text: float = 0.4, crossing: float = 0.01, evicted: bool = True
) -> pd.DataFrame:
    """Cosines of ``vision`` and ``text``, TV at ``crossing`` against 0.05, text kept or not."""
    rows: list[dict[str, object]] = []
    for layer in range(LAYERS):
        for k, (kind, value) in itertools.product(
            (1, 5), (("vision", vision), ("text", text), ("system", 0.5))
        ):
            rows.append(
                {"panel": "similarity", "layer": layer, "k": k, "kind": kind, "value": value}
            )
        for block, value in (("TV", crossing), ("TT", 0.05), ("VV", 0.05)):
            rows.append({"panel": "block", "layer": layer, "kind": block, "value": value})
        for kind in ("text", "vision"):
            rows.append({"panel": "evicted", "layer": layer, "kind": kind, "value": 0.9})
    for place, kind, _ in _positions():
        kept = place < 2 or (kind == "text" and not evicted)
        value = 10.0 if kept else 1.0
        where = {"panel": "accumulated", "position": place, "kind": kind}
        rows.append({**where, "kept": kept, "value": value})
    return pd.concat([named(rows), named(_map(2, 0.1), item=0)], ignore_index=True)


def attention_maps(
    dominant: float = 0.7, troughs: tuple[float, ...] = (0.1, 0.5, 0.1)
) -> pd.DataFrame:
    """In three layers one word weighs ``dominant`` and the trough is as deep."""
    rows: list[dict[str, object]] = []
    for layer, trough in zip((1, 4, 7), troughs, strict=False):
        rows += _map(layer, trough)
        for place, word in enumerate(WORDS):
            weight = dominant if word == "red" else (1 - dominant) / 3
            where = {"panel": "weight", "layer": layer, "key": 2 + PATCHES + place, "token": word}
            rows.append({**where, "value": weight})
    every: list[dict[str, object]] = []
    for layer, trough in zip((1, 4, 7), troughs, strict=False):
        heavy = {"value": dominant * len(WORDS), "shuffled": 1.5}
        every.append({"panel": "heaviest", "layer": layer, **heavy})
        every.append({"panel": "trough", "layer": layer, "value": np.log(trough)})
    return pd.concat([named(rows, item=0), named(every)], ignore_index=True)


def information_profile(
    attention: Sequence[float] = RISING,
    states: Sequence[float] = RISING,
    budget: Sequence[float] = RISING,
) -> pd.DataFrame:
    """Profiles over layers."""
    single, over = [], []
    asked = ("attention information", "TVB budget", "Gaussian information", "decoded from last")
    decoded = {f"decoded from {pool}": RISING for pool in ("vision", "text", "last")}
    measures = {
        "attention information": attention,
        "TVB budget": budget,
        "Gaussian information": states,
        "Gaussian information, first": states,
        "k-NN information, first": states,
        **decoded,
        "chance": (0,) * LAYERS,
    }
    for measure, values in measures.items():
        for layer, value in enumerate(values):
            row = {"layer": layer, "measure": measure, "value": float(value)}
            over.append({**row, "low": value - 0.1, "high": value + 0.1})
            if measure in asked:
                single.append(row)
    return pd.concat([named(single), named(over, item=-1)], ignore_index=True)


def causal_profile(
    harm: Sequence[float] = RISING,
    attention: Sequence[float] = RISING,
    learnt: Sequence[float] | None = None,
    vision: float = 0.0,
    followed: tuple[float, float] = (1.0, 0.0),
) -> pd.DataFrame:
    """Loss per layer from text to vision, and how many follow swapped entries, first and last."""
    rows: list[dict[str, object]] = []
    for layer in range(len(harm)):
        for pair, lost in (
            ("text to vision", harm[layer]),
            ("last to vision", harm[layer]),
            ("vision to vision", vision),
        ):
            where = {"panel": "knockout", "pair": pair, "layer": layer}
            rows.append({**where, "effect": -float(lost), "given": lost < 1})
    frame = named(rows)
    swapped = []
    for layer, share in zip((0, LAYERS - 1), followed, strict=True):
        for item in range(QUESTIONS):
            donor = item < round(share * QUESTIONS)
            where = {"panel": "patch", "layer": layer, "item": item, "preference": 2.0 * donor - 1}
            swapped.append({**where, "donor": float(donor), "own": float(not donor)})
    patch = pd.DataFrame(swapped).assign(model="embedded", task=TASK, seed=0)
    known = information_profile(attention=attention)
    known = known.assign(panel="information")
    if learnt is not None:
        decoded = known["measure"] == "decoded from last"
        known.loc[decoded, "value"] = np.asarray(learnt, float)[known.loc[decoded, "layer"]]
    return pd.concat([frame, patch, known], ignore_index=True)


def grounding_profile(
    attention: float = 0.8,
    weighted: float = 0.9,
    kept: float = 0.8,
    random: float = 0.5,
    words: float = 2.0,
) -> pd.DataFrame:
    """AUC of scores and kept entries, and the lift of asked words."""
    scores = {
        "TV attention": attention,
        "TWR score": weighted,
        "accumulated attention": 0.5,
        "kept by TGV-KV": kept,
        "kept by random": random,
    }
    rows: list[dict[str, object]] = []
    for layer in range(LAYERS):
        for score, auc in scores.items():
            rows.append({"panel": "cells", "score": score, "layer": layer, "auc": auc, "lift": 1.0})
        where = {"panel": "words", "score": "text weight", "layer": layer}
        rows.append({**where, "lift": words})
    return named(rows)


def redundancy_profile(
    whole: float = 0.05, windows: float = 0.2, far: float = 0.3, near: float = 0.1
) -> pd.DataFrame:
    """Merging errors and divergence of the whole image and of windows."""
    rows: list[dict[str, object]] = []
    for layer in range(LAYERS):
        for kind, value in (("vision", 30.0), ("text", 5.0)):
            where = {"measure": "effective_rank", "kind": kind}
            rows.append({**where, "layer": layer, "value": value})
        for count, error, apart in ((1, whole, far), (4, windows, near)):
            where = {"layer": layer, "windows": count}
            rows.append({**where, "measure": "merge_error", "value": error})
            for quantile in (0.25, 0.5):
                divergence = {"measure": "feature_divergence", "quantile": quantile, "value": apart}
                rows.append({**where, **divergence})
    return named(rows)


FRAMES = {
    "modality_gap": modality_gap,
    "attention_maps": attention_maps,
    "information_profile": information_profile,
    "causal_profile": causal_profile,
    "grounding_profile": grounding_profile,
    "redundancy_profile": redundancy_profile,
}
