"""Evictors as compositions of scores, claims and rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tests.references.budgets import by_mass, entries, pyramid, shared_out
from tests.references.calls import Calls
from tests.references.claims import (
    block,
    density,
    entropy_times_variance,
    strength_and_skewness,
)
from tests.references.rules import (
    across_heads,
    by_score,
    ends,
    nearest_anchor,
    pivot,
    sorted_index_as_rank,
    text_first,
    vision_only,
    window_first,
    with_recent,
)
from tests.references.scores import (
    Array,
    Kept,
    Layer,
    Prompt,
    Scores,
    collected,
    cross_and_text,
    elite_text,
    key_difference,
    key_norm,
    mean_head,
    mixed,
    observation_window,
    post_vision,
    recency,
    self_attention,
    self_attention_per_head,
    text_weighted,
    vision_and_text,
    window_indicator,
    window_per_head,
)


def uniform_counts(prompt: Prompt, share: float, floors: int, of: int, calls: Calls) -> list[int]:
    layers = len(prompt.layers)
    return entries([share * of] * layers, [floors] * layers, [of] * layers, calls)


def evict(
    score: Callable[[Prompt, Layer], Scores],
    rule: Callable[..., list[set[int]]] = by_score,
    *,
    claim: Callable[[Prompt, Layer], float] | None = None,
    wishes: Callable[[Prompt, float, list[Scores], Calls], list[float]] | None = None,
    first: int = 4,
    last: int = 1,
    fixed: str = "",
    of: str = "svt",
    even: bool = False,
) -> Callable[[Prompt, float, Calls], Kept]:
    """A method: scores, claims of layers (uniform without), and a rule.

    Args:
        score: Of a layer.
        rule: Who stays.
        claim: Of a layer, for budgets in proportion to it.
        wishes: Budgets of all layers from total and scores, for all others.
        first, last: Entries at the ends that stay.
        fixed: Kinds that stay.
        of: Kinds that the budget is a share of.
        even: Hand on what can't be used to all layers alike.
    """

    def kept(prompt: Prompt, share: float, calls: Calls) -> Kept:
        always = ends(prompt, first, last) | set(prompt.places(fixed))
        counted = len(prompt.places(of))
        floors = len([j for j in always if prompt.kinds[j] in of])
        scores = [score(prompt, layer) for layer in prompt.layers]
        total = share * counted * len(prompt.layers)
        if claim is not None:
            wanted = shared_out([claim(prompt, layer) for layer in prompt.layers], total)
        elif wishes is not None:
            wanted = wishes(prompt, share, scores, calls)
        else:
            wanted = [share * counted] * len(prompt.layers)
        layers = len(prompt.layers)
        budgets = entries(wanted, [floors] * layers, [counted] * layers, calls, even)
        return [
            rule(prompt, layer_scores, budget, always, calls)
            for layer_scores, budget in zip(scores, budgets, strict=True)
        ]

    return kept


def adaptive(
    claims: Callable[[Prompt, Layer], Scores],
    picks: Callable[[Prompt, Layer], Scores],
    window: int,
) -> Callable[[Prompt, float, Calls], Kept]:
    def kept(prompt: Prompt, share: float, calls: Calls) -> Kept:
        always = ends(prompt, 4, 1)
        budgets = uniform_counts(prompt, share, len(always), prompt.length, calls)
        return [
            across_heads(
                prompt, claims(prompt, layer), picks(prompt, layer), budget, always, window, calls
            )
            for layer, budget in zip(prompt.layers, budgets, strict=True)
        ]

    return kept


def pyramid_wishes(window: int) -> Callable[..., list[float]]:
    return lambda prompt, share, scores, calls: pyramid(
        share * prompt.length, len(prompt.layers), 20, prompt.length, window
    )


def prefix_wishes(prompt: Prompt, share: float, scores: list[Scores], calls: Calls) -> list[float]:
    masses = [[layer_scores[0][j] for j in range(prompt.length)] for layer_scores in scores]
    return by_mass(masses, share * prompt.length * len(scores), calls)


def cake_wishes(window: int) -> Callable[..., list[float]]:
    def wishes(prompt: Prompt, share: float, scores: list[Scores], calls: Calls) -> list[float]:
        claims = [entropy_times_variance(prompt, layer, window) for layer in prompt.layers]
        base = share * prompt.length
        kept = min(base, window)
        if not sum(claims):
            return [base] * len(claims)
        return [kept + one for one in shared_out(claims, (base - kept) * len(claims))]

    return wishes


def aircache(prompt: Prompt, share: float, calls: Calls) -> Kept:
    """AirCache: the share is one of the vision entries."""
    scores = [elite_text(prompt, layer, calls) for layer in prompt.layers]
    vision = prompt.places("v")
    always = ends(prompt, 4, 1)
    floors = [len([j for j in vision if j in always])] * len(scores)
    total = share * len(vision) * len(scores)
    wanted = shared_out(strength_and_skewness(prompt, scores), total)
    budgets = entries(wanted, floors, [len(vision)] * len(scores), calls)
    return [
        vision_only(prompt, layer_scores, budget, always, calls)
        for layer_scores, budget in zip(scores, budgets, strict=True)
    ]


def vl_cache(prompt: Prompt, share: float, calls: Calls) -> Kept:
    """VL-Cache: a tenth of a uniform budget for the most recent, the total as asked."""
    base, layers = share * prompt.length, len(prompt.layers)
    claims = [density(prompt, layer, calls) for layer in prompt.layers]
    wanted = [0.9 * one + 0.1 * base for one in shared_out(claims, base * layers)]
    always = ends(prompt, 4, 1)
    budgets = entries(wanted, [len(always)] * layers, [prompt.length] * layers, calls)
    recent = max(1, math.floor(calls.whole(0.1 * base)))
    kept = []
    for layer, budget in zip(prompt.layers, budgets, strict=True):
        stays = always | ends(prompt, 0, min(recent, budget))
        kept.append(
            by_score(prompt, post_vision(prompt, layer), max(budget, len(stays)), stays, calls)
        )
    return kept


def tgvkv_released(prompt: Prompt, share: float, calls: Calls) -> Kept:
    """TGV-KV's code: one block of vision, drop counts rounded and clipped, nothing handed on."""
    start, count = prompt.places("v")[0], len(prompt.places("v"))
    kinds = "s" * start + "v" * count + "t" * (prompt.length - start - count)
    read = Prompt(kinds, prompt.layers)
    text, everyone = read.places("t"), range(read.length)
    whole = [set(everyone)]
    if math.trunc(calls.whole(read.length * (1 - share))) <= 0 or not text:
        return [whole for _ in prompt.layers]
    claims = [block(read, layer, "t", "v") for layer in prompt.layers]
    always = ends(read, 4, 1)
    kept = []
    for layer, claim in zip(prompt.layers, claims, strict=True):
        forget = 1 - len(claims) * share * claim / sum(claims)
        budget = max(read.length - max(0, calls.rounded(forget * read.length)), len(always))
        weighted = text_weighted(read, layer)[0]
        scores = collected(mean_head(layer), everyone)
        scores |= {j: weighted[j] for j in read.places("v")}
        kept.append(text_first(read, [scores], budget, always, calls))
    return kept


def kvzip_scores(
    attention: Array, heads: int, context: Sequence[int], fed: Sequence[int]
) -> Scores:
    """The largest attention that entries get from what is fed after them, in each KV head."""
    group = len(attention) // heads
    return [
        {
            j: max(
                float(attention[h, i, j]) for h in range(k * group, (k + 1) * group) for i in fed
            )
            for j in context
        }
        for k in range(heads)
    ]


def kvzip(scores: list[Scores], share: float, calls: Calls) -> Kept:
    """The best of all layers and heads together, of the context alone."""
    flat = {
        (layer * 1000 + head) * 1000 + j: score
        for layer, layer_scores in enumerate(scores)
        for head, entries_ in enumerate(layer_scores)
        for j, score in entries_.items()
    }
    kept_keys = set(calls.best(flat, calls.rounded(share * len(flat))))
    return [
        [
            {j for j in layer_scores[head] if (layer * 1000 + head) * 1000 + j in kept_keys}
            for head in range(len(layer_scores))
        ]
        for layer, layer_scores in enumerate(scores)
    ]


WINDOW = 4
"""Queries of an observation window where the method takes any."""

_snap = observation_window(WINDOW, 5, "avg")
_first = window_first(WINDOW)


def _claims(queries: str, keys: str) -> Callable[[Prompt, Layer], float]:
    return lambda prompt, layer: block(prompt, layer, queries, keys)


EVICTORS: dict[str, Callable[[Prompt, float, Calls], Kept]] = {
    "streamingllm": evict(recency),
    "streamingllm-reindexed": evict(recency),
    "h2o": evict(self_attention),
    "h2o-recent": evict(self_attention, with_recent(False), first=0),
    "snapkv": evict(_snap, _first),
    "snapkv-window-only": evict(_snap, _first, first=0, last=WINDOW),
    "pyramidkv": evict(_snap, _first, wishes=pyramid_wishes(WINDOW)),
    "prefixkv": evict(self_attention, wishes=prefix_wishes),
    "elasticcache": evict(self_attention, first=0, last=0),
    "elasticcache-released": evict(self_attention, sorted_index_as_rank, first=1),
    "aircache": aircache,
    "cake": evict(window_indicator(WINDOW, 200, 5), _first, wishes=cake_wishes(WINDOW), even=True),
    "look-m": evict(self_attention_per_head, with_recent(True)),
    "ada-kv": adaptive(
        window_per_head(WINDOW, 7, "max"), window_per_head(WINDOW, 7, "max"), WINDOW
    ),
    "vl-cache": vl_cache,
    "mixkv": evict(mixed(WINDOW), _first),
    "mixkv-pyramidkv": evict(mixed(WINDOW), _first, wishes=pyramid_wishes(WINDOW)),
    "mixkv-ada-kv": adaptive(window_per_head(WINDOW, 7, "max"), mixed(WINDOW), WINDOW),
    "keydiff": evict(key_difference),
    "tova": evict(observation_window(1, 1, "none"), window_first(1)),
    "key-norm": evict(key_norm),
    "tgvkv": evict(text_weighted, text_first, claim=_claims("t", "v"), fixed="s"),
    "tgvkv-vision-only": evict(text_weighted, vision_only, claim=_claims("t", "v"), of="v"),
    "tgvkv-released": tgvkv_released,
    "budget-uniform": evict(cross_and_text),
    "budget-vv": evict(cross_and_text, claim=_claims("v", "v")),
    "budget-tt": evict(cross_and_text, claim=_claims("t", "t")),
    "budget-tv": evict(cross_and_text, claim=_claims("t", "v")),
    "rank-window": evict(observation_window(64, 5, "avg"), window_first(64)),
    "rank-self": evict(self_attention),
    "rank-vv-tt": evict(vision_and_text),
    "rank-tv-tt": evict(cross_and_text),
}
for _tvb in (0, 1):
    for _twr in (0, 1):
        for _tpr in (0, 1):
            EVICTORS[f"tvb{_tvb}-twr{_twr}-tpr{_tpr}"] = evict(
                text_weighted if _twr else self_attention,
                text_first if _tpr else by_score,
                claim=_claims("t", "v") if _tvb else None,
                fixed="s" if _tpr else "",
            )

MERGES: dict[str, Callable[[Prompt, set[int], np.ndarray, Calls], np.ndarray]] = {
    "elasticcache": lambda prompt, entries_, keys, calls: nearest_anchor(prompt, entries_),
    "look-m": pivot,
}
"""Weights (K, N) by which evicted entries join kept ones."""
