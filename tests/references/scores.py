"""Scores of entries, key by key and row by row of the attention.

Attention is an array (heads, N, N) a layer; keys and values (KV heads, N, d); kinds one letter a
token: s for text before the first image, v for vision, t for text after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.references.calls import Calls

Array = np.ndarray
Scores = list[dict[int, float]]  # one per set of entries: one for all heads, or one per KV head
Kept = list[list[set[int]]]  # per layer and set


@dataclass
class Layer:
    """One layer of one prompt."""

    attention: Array
    keys: Array
    values: Array


@dataclass
class Prompt:
    """One prompt without padding."""

    kinds: str
    layers: list[Layer]

    def places(self, letters: str) -> list[int]:
        return [n for n, kind in enumerate(self.kinds) if kind in letters]

    @property
    def length(self) -> int:
        return len(self.kinds)


def attention_of(queries: Array, keys: Array, scaling: float) -> Array:
    """(H, N, N) causal softmax attention; query heads of a KV head follow each other."""
    heads, length, _ = queries.shape
    group = heads // len(keys)
    weights = np.zeros((heads, length, length))
    for head in range(heads):
        for query in range(length):
            logits = keys[head // group, : query + 1] @ queries[head, query] * scaling
            raised = np.exp(logits - logits.max())
            weights[head, query, : query + 1] = raised / raised.sum()
    return weights


def mean_head(layer: Layer) -> Array:
    return layer.attention.mean(0)


def kv_heads(layer: Layer) -> list[Array]:
    """Query heads' attention (group, N, N) of each KV head."""
    group = len(layer.attention) // len(layer.keys)
    return [layer.attention[k * group : (k + 1) * group] for k in range(len(layer.keys))]


def collected(weights: Array, queries: Sequence[int]) -> dict[int, float]:
    """What each key collects from some queries of (N, N)."""
    return {j: sum(float(weights[i, j]) for i in queries) for j in range(len(weights))}


# ------------------------------------------------------------------ scores


def self_attention(prompt: Prompt, layer: Layer) -> Scores:
    return [collected(mean_head(layer), range(prompt.length))]


def self_attention_per_head(prompt: Prompt, layer: Layer) -> Scores:
    return [collected(heads.mean(0), range(prompt.length)) for heads in kv_heads(layer)]


def pooled(scores: dict[int, float], kernel: int, kind: str) -> dict[int, float]:
    reach = kernel // 2
    pooled_scores = {}
    for j in scores:
        near = [scores.get(j + step, 0.0) for step in range(-reach, reach + 1)]
        pooled_scores[j] = max(near) if kind == "max" else sum(near) / kernel
    return pooled_scores


def window_of(weights: Array, window: int, kernel: int, kind: str) -> dict[int, float]:
    length = len(weights)
    start = max(0, length - window)
    before = {j: sum(float(weights[i, j]) for i in range(start, length)) for j in range(start)}
    scores = pooled(before, kernel, kind) if kind != "none" else before
    return {j: scores.get(j, 0.0) for j in range(length)}


def observation_window(window: int, kernel: int, kind: str) -> Callable[[Prompt, Layer], Scores]:
    return lambda _, layer: [window_of(mean_head(layer), window, kernel, kind)]


def window_per_head(window: int, kernel: int, kind: str) -> Callable[[Prompt, Layer], Scores]:
    return lambda _, layer: [
        window_of(heads.mean(0), window, kernel, kind) for heads in kv_heads(layer)
    ]


def cross_and_text(prompt: Prompt, layer: Layer) -> Scores:
    return [collected(mean_head(layer), prompt.places("t"))]


def vision_and_text(prompt: Prompt, layer: Layer) -> Scores:
    vision = collected(mean_head(layer), prompt.places("v"))
    text = collected(mean_head(layer), prompt.places("t"))
    return [{j: vision[j] if prompt.kinds[j] == "v" else text[j] for j in vision}]


def text_weighted(prompt: Prompt, layer: Layer) -> Scores:
    weights, text = mean_head(layer), prompt.places("t")
    received = {}
    for number, j in enumerate(text):
        received[j] = sum(float(weights[i, j]) for i in text if i >= j) / (len(text) - number)
    total = sum(received.values())
    scores = collected(weights, text)
    for j in prompt.places("v"):
        scores[j] = sum(received[i] / total * float(weights[i, j]) for i in text)
    return [scores]


def recency(prompt: Prompt, layer: Layer) -> Scores:
    return [{j: float(j) for j in range(prompt.length)}]


def key_norm(prompt: Prompt, layer: Layer) -> Scores:
    norms = [[math.sqrt(sum(float(x) ** 2 for x in key)) for key in head] for head in layer.keys]
    return [{j: -sum(head[j] for head in norms) / len(norms) for j in range(prompt.length)}]


def unit(keys: Array) -> Array:
    return np.stack([key / math.sqrt(float(key @ key)) for key in keys])


def key_difference(prompt: Prompt, layer: Layer) -> Scores:
    scores = []
    for head in layer.keys:
        mean = unit(head).mean(0)
        length = math.sqrt(float(mean @ mean))
        scores.append({j: -float(key @ mean) / length for j, key in enumerate(unit(head))})
    return scores


def elite_text(prompt: Prompt, layer: Layer, calls: Calls) -> Scores:
    """AirCache, with one elite for all heads."""
    text, vision = prompt.places("t"), prompt.places("v")
    last = dict.fromkeys(text, 0.0)
    for head in layer.attention:
        among = sum(float(head[text[-1], j]) for j in text)
        for j in text:
            last[j] += float(head[text[-1], j]) / among / len(layer.attention)
    bound = 0.9 * max(last.values())
    elite = [j for j in text if calls.at_least(last[j], bound)]
    scores = dict.fromkeys(range(prompt.length), 0.0)
    for head in layer.attention:
        for i in elite:
            among = sum(float(head[i, j]) for j in [*vision, *elite])
            for j in vision:
                scores[j] += float(head[i, j]) / among / len(elite) / len(layer.attention)
    return [scores]


def moments(weights: Array, rows: Sequence[int], j: int) -> tuple[float, float]:
    """Mean and unbiased variance of a key's attention over some rows of one head."""
    values = [float(weights[i, j]) for i in rows]
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)


def window_indicator(window: int, gamma: float, kernel: int) -> Callable[[Prompt, Layer], Scores]:
    def scores(prompt: Prompt, layer: Layer) -> Scores:
        rows = range(max(0, prompt.length - window), prompt.length)
        indicators = []
        for heads in kv_heads(layer):
            claims = {}
            for j in range(rows[0]):
                pairs = [moments(head, rows, j) for head in heads]
                claims[j] = sum(mean + gamma * spread for mean, spread in pairs) / len(pairs)
            smooth = pooled(claims, kernel, "avg")
            indicators.append({j: smooth.get(j, 0.0) for j in range(prompt.length)})
        return indicators

    return scores


def post_vision(prompt: Prompt, layer: Layer) -> Scores:
    return [collected(mean_head(layer), range(prompt.places("v")[-1] + 1, prompt.length))]


def mixed(window: int) -> Callable[[Prompt, Layer], Scores]:
    """MixKV by heads, with the ratio of the prompt's own keys."""

    def spread(values: list[float], small: float) -> list[float]:
        low, high = min(values), max(values)
        return [(value - low) / (high - low + small) if high > low else 0.0 for value in values]

    def scaled(values: list[float], mean: float) -> list[float]:
        return [value * mean / (sum(values) / len(values) + 1e-8) for value in values]

    def scores(prompt: Prompt, layer: Layer) -> Scores:
        start = max(0, prompt.length - window)
        weighted = []
        for heads, keys, values in zip(kv_heads(layer), layer.keys, layer.values, strict=True):
            rows = prompt.length - start
            means = {
                j: sum(float(heads[:, i, j].mean()) for i in range(start, prompt.length)) / rows
                for j in range(start)
            }
            attention = pooled(means, 5, "avg")
            if not start:
                weighted.append(dict.fromkeys(range(prompt.length), 0.0))
                continue
            level = sum(attention.values()) / start
            mean = unit(keys).mean(0)
            unlike = spread([-float(key @ mean) for key in unit(keys)[:start]], 1e-8)
            norms = spread([math.sqrt(float(v @ v)) for v in values[:start]], 0.0)
            unlike, norms = scaled(unlike, level), scaled(norms, level)
            ratio = (prompt.length * float(mean @ mean) - 1) / (prompt.length - 1)
            weighted.append(dict.fromkeys(range(prompt.length), 0.0))
            for j in range(start):
                weighted[-1][j] = ratio * unlike[j] + (1 - ratio) * (attention[j] + norms[j])
        return weighted

    return scores
