"""Which entries stay under a budget, and what the others leave behind."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tests.references.calls import Calls
from tests.references.scores import Array, Layer, Prompt, Scores, unit


def ends(prompt: Prompt, first: int, last: int) -> set[int]:
    return {j for j in range(prompt.length) if j < first or j >= prompt.length - last}


def ranked(
    prompt: Prompt,
    scores: Scores,
    budget: int,
    always: set[int],
    tiers: dict[int, int],
    calls: Calls,
) -> list[set[int]]:
    """Always those, then the higher tier, then the higher score."""
    kept = []
    for head_scores in scores:
        kept_places = set(always)
        for tier in sorted(set(tiers.values()), reverse=True):
            members = {j: head_scores[j] for j in tiers if tiers[j] == tier and j not in always}
            kept_places |= set(calls.best(members, min(len(members), budget - len(kept_places))))
        kept.append(kept_places)
    return kept


def by_score(
    prompt: Prompt, scores: Scores, budget: int, always: set[int], calls: Calls
) -> list[set[int]]:
    return ranked(prompt, scores, budget, always, dict.fromkeys(range(prompt.length), 0), calls)


def window_first(window: int) -> Callable[..., list[set[int]]]:
    def keep(
        prompt: Prompt, scores: Scores, budget: int, always: set[int], calls: Calls
    ) -> list[set[int]]:
        start = max(0, prompt.length - window)
        tiers = {j: j + 1 if j >= start else 0 for j in range(prompt.length)}
        return ranked(prompt, scores, budget, always, tiers, calls)

    return keep


def text_first(
    prompt: Prompt, scores: Scores, budget: int, always: set[int], calls: Calls
) -> list[set[int]]:
    tiers = {j: int(kind != "v") for j, kind in enumerate(prompt.kinds)}
    return ranked(prompt, scores, budget, always, tiers, calls)


def vision_only(
    prompt: Prompt, scores: Scores, budget: int, always: set[int], calls: Calls
) -> list[set[int]]:
    """The budget counts vision entries; all others stay."""
    vision = dict.fromkeys(prompt.places("v"), 0)
    paid = {j for j in always if j in vision}
    kept = ranked(prompt, scores, budget, paid, vision, calls)
    return [head_kept | set(prompt.places("st")) for head_kept in kept]


def with_recent(text_before: bool) -> Callable[..., list[set[int]]]:
    """Half of the budget, rounded down, for the last entries."""

    def keep(
        prompt: Prompt, scores: Scores, budget: int, always: set[int], calls: Calls
    ) -> list[set[int]]:
        recent = ends(prompt, 0, math.floor(0.5 * budget))
        tiers = {
            j: 2 * (j in recent) + (text_before and kind != "v")
            for j, kind in enumerate(prompt.kinds)
        }
        return ranked(prompt, scores, budget, always, tiers, calls)

    return keep


def across_heads(
    prompt: Prompt,
    claims: Scores,
    picks: Scores,
    budget: int,
    always: set[int],
    window: int,
    calls: Calls,
) -> list[set[int]]:
    """Heads compete for the entries before the window (Ada-KV, floor a fifth, normalised)."""
    always = set(always)
    for j in sorted(ends(prompt, 0, window), reverse=True):
        if len(always) < budget:
            always.add(j)
    rest = max(0, budget - len(always))
    pooled_claims: dict[int, float] = {}
    sure: set[int] = set()
    for number, pick in enumerate(claims):
        free = {j: pick[j] for j in pick if j not in always}
        equal = calls.best(free, rest)
        total = sum(free.values())
        share = sum(free[j] for j in equal) / total if total else 0.0
        for j in free:
            pooled_claims[number * prompt.length + j] = free[j] * share
        sure |= {number * prompt.length + j for j in calls.best(free, math.floor(rest * 0.2))}
    left = {place: claim for place, claim in pooled_claims.items() if place not in sure}
    claimed = sure | set(calls.best(left, rest * len(claims) - len(sure)))
    kept = []
    for number, pick in enumerate(picks):
        first = number * prompt.length
        count = sum(first <= place < first + prompt.length for place in claimed)
        free = {j: pick[j] for j in pick if j not in always}
        kept.append(always | set(calls.best(free, count)))
    return kept


def sorted_index_as_rank(
    prompt: Prompt, scores: Scores, budget: int, always: set[int], calls: Calls
) -> list[set[int]]:
    """ElasticCache's released code: numbers of a sort are read as ranks."""
    others = [j for j in range(prompt.length) if j not in always]
    rising = calls.ordered({number: -scores[0][j] for number, j in enumerate(others)})
    removed = prompt.length - budget
    return [set(always) | {j for j, number in zip(others, rising, strict=True) if number > removed}]


# ------------------------------------------------------------------ merges


def nearest_anchor(prompt: Prompt, kept: set[int]) -> Array:
    """(K, N) weights: each evicted entry joins the nearest kept one, the lower of two."""
    slots = sorted(kept)
    weights = np.zeros((len(slots), prompt.length))
    for j in range(prompt.length):
        nearest = min(slots, key=lambda anchor: (abs(anchor - j), anchor))
        weights[slots.index(nearest), j] = 1
    return weights / weights.sum(1, keepdims=True)


def pivot(prompt: Prompt, kept: set[int], keys: Array, calls: Calls) -> Array:
    """(K, N) weights of LOOK-M: the mean of a key and of its means with those that join it."""
    slots, units = sorted(kept), unit(keys)
    weights = np.zeros((len(slots), prompt.length))
    counts = dict.fromkeys(slots, 0)
    joins = {}
    for j in range(prompt.length):
        if j not in kept:
            joins[j] = calls.largest({a: float(units[a] @ units[j]) for a in slots})
            counts[joins[j]] += 1
    for slot, anchor in enumerate(slots):
        weights[slot, anchor] = (1 + counts[anchor] / 2) / (1 + counts[anchor])
        for j, target in joins.items():
            if target == anchor:
                weights[slot, j] = 0.5 / (1 + counts[anchor])
    return weights


def tome_cache(prompt: Prompt, layer: Layer, calls: Calls) -> tuple[set[int], Array]:
    """Half of the vision entries merge by their keys, mean over heads: kept ones and weights."""
    keys, vision = layer.keys.mean(0), prompt.places("v")
    goes_to: dict[int, int] = {}
    units = unit(keys)
    nearest, likeness = {}, {}
    for a in vision[0::2]:
        cosines = {b: float(units[a] @ units[b]) for b in vision[1::2]}
        nearest[a] = calls.largest(cosines)
        likeness[a] = cosines[nearest[a]]
    for a in calls.best(likeness, len(vision) // 2):
        goes_to[a] = nearest[a]
    kept = [j for j in range(prompt.length) if j not in goes_to]
    weights = np.zeros((len(kept), prompt.length))
    for slot, j in enumerate(kept):
        members = [j, *(a for a, b in goes_to.items() if b == j)]
        weights[slot, members] = 1 / len(members)
    return set(kept), weights
