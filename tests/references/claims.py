"""What layers claim of a budget."""

from __future__ import annotations

import math

from tests.references.calls import Calls
from tests.references.scores import Layer, Prompt, Scores, mean_head, moments


def block(prompt: Prompt, layer: Layer, queries: str, keys: str) -> float:
    weights = mean_head(layer)
    return sum(float(weights[i, j]) for i in prompt.places(queries) for j in prompt.places(keys))


def strength_and_skewness(prompt: Prompt, scores: list[Scores]) -> list[float]:
    """Claims of AirCache's layers."""
    vision = prompt.places("v")
    count = len(vision)
    strengths, skews = [], []
    for layer in scores:
        values = [layer[0][j] for j in vision]
        mean = sum(values) / count
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
        cubes = sum(((value - mean) / deviation) ** 3 for value in values)
        strengths.append(sum(values))
        skews.append(max(0.0, count / ((count - 1) * (count - 2)) * cubes))
    level = sum(strengths) / len(strengths), sum(skews) / len(skews)
    return [
        one / level[0] + (other / level[1] if level[1] > 0 else 1.0)
        for one, other in zip(strengths, skews, strict=True)
    ]


def entropy_times_variance(prompt: Prompt, layer: Layer, window: int) -> float:
    """CAKE's preference of a layer."""
    rows = range(max(0, prompt.length - window), prompt.length)
    entropy = variance = 0.0
    for head in layer.attention:
        for j in range(rows[0]):
            for i in rows:
                entropy -= float(head[i, j]) * math.log(float(head[i, j]) + 1e-10)
            variance += moments(head, rows, j)[1]
    return max(0.0, entropy) * variance


def density(prompt: Prompt, layer: Layer, calls: Calls) -> float:
    """Share of the causal entries of later text that reach 1 % of their row's largest."""
    rows = range(prompt.places("v")[-1] + 1, prompt.length)
    counted = 0
    for head in layer.attention:
        for i in rows:
            bound = 0.01 * float(head[i].max())
            counted += sum(calls.at_least(float(head[i, j]), bound) for j in range(i + 1))
    return counted / len(layer.attention) / sum(i + 1 for i in rows)
