"""LightKV's equations 5 to 8 written out token by token in float64; shares no code with lightkv."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Token:
    """A token of the sequence: where it lies, if it is a vision token with a cell."""

    vision: bool
    cell: tuple[int, int, int, int, int] | None  # grid number, rows, columns, row, column


def part_of(coordinate: int, side: int, parts: int) -> int:
    lengths = [side // parts + (1 if p < side % parts else 0) for p in range(parts)]
    for number in range(parts):
        if coordinate < sum(lengths[: number + 1]):
            return number
    raise AssertionError


def merge_stage(
    hidden: np.ndarray, logits: np.ndarray, tokens: list[Token], windows: int, ratio: float
) -> tuple[np.ndarray, list[Token], np.ndarray]:
    """One stage; returns hidden states, tokens and the dense weight matrix (new x old)."""
    count = len(tokens)
    grouped: dict[tuple[int, int, int], list[int]] = {}
    for i, token in enumerate(tokens):
        if token.cell is not None:
            grid, rows, cols, r, c = token.cell
            key = (grid, part_of(r, rows, windows), part_of(c, cols, windows))
            grouped.setdefault(key, []).append(i)
    importance = np.zeros(count)
    for i in range(count):
        if tokens[i].vision:
            for head in logits:
                row = np.exp(head[i] - head[i].max())
                row = row / row.sum()
                importance[i] += sum(row[j] for j in range(count) if not tokens[j].vision)
    goes_to: dict[int, int] = {}
    for members in grouped.values():
        a_side, b_side = members[0::2], members[1::2]
        proposals = []
        for a in a_side:
            best = None
            for b in b_side:
                cos = (
                    hidden[a]
                    @ hidden[b]
                    / math.sqrt((hidden[a] @ hidden[a]) * (hidden[b] @ hidden[b]))
                )
                if best is None or 1 - cos < best[0]:
                    best = (1 - cos, a, b)
            if best is not None:
                proposals.append(best)
        proposals.sort()
        allowed = min(math.floor(ratio * len(members)), len(members) // 2)
        for _, a, b in proposals[:allowed]:
            goes_to[a] = b
    survivors = [i for i in range(count) if i not in goes_to]
    matrix = np.zeros((len(survivors), count))
    for new, i in enumerate(survivors):
        sources = [a for a, b in goes_to.items() if b == i]
        if not sources:
            matrix[new, i] = 1
            continue
        total = importance[i] + sum(importance[a] for a in sources)
        for j in [i, *sources]:
            matrix[new, j] = importance[j] / total
    return matrix @ hidden, [tokens[i] for i in survivors], matrix
