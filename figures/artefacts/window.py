"""L-F2: one window of a merging stage, step by step, from a real run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from figures.artefacts.pictures import TILE, Pixels, borders, patch_means, pixels, show
from figures.artefacts.shared import pick, records
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLACK, BLUE, ORANGE, sheet
from figures.verdicts import Verdict, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SETS: Final = {"A": (BLUE, "s"), "B": (ORANGE, "o")}
EXACT: Final = 1e-3
"""Relative error of a weight within which it is the one of Eq. 8."""


def tokens(frame: pd.DataFrame) -> pd.DataFrame:
    """Tokens of the window with their numbers 1, 2, ... in sequence order."""
    members = pick(frame, panel="token").sort_values(["row", "col"]).reset_index(drop=True)
    return members.assign(number=range(1, len(members) + 1)).astype({"row": int, "col": int})


def edges(frame: pd.DataFrame) -> pd.DataFrame:
    """Pairs of the window with the numbers of both tokens."""
    number = {(row["row"], row["col"]): row["number"] for row in records(tokens(frame))}
    pairs = pick(frame, panel="edge")
    return pairs.assign(
        source=[number[at] for at in zip(pairs["row"], pairs["col"], strict=True)],
        target=[number[at] for at in zip(pairs["other_row"], pairs["other_col"], strict=True)],
        nearest=pairs["nearest"].astype(bool),
        merged=pairs["merged"].astype(bool),
    )


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Every edge of the window: both tokens, divergence, whether it is proposed and merged."""
    return edges(frame)[["source", "target", "divergence", "nearest", "merged"]]


def draw(frame: pd.DataFrame) -> Figure:
    """The picture with its window, the sets, all edges, those that merge, and what is left."""
    members, pairs = tokens(frame), edges(frame)
    rows, cols = int(members["grid_rows"].iloc[0]), int(members["grid_cols"].iloc[0])
    picture = pixels(members, rows, cols)
    figure = sheet(3.0)
    places = figure.subplots(1, 5, width_ratios=(1.15, 1, 0.85, 0.85, 1))
    show(places[0], picture, "the picture\nand one window")
    top, left = int(members["row"].min()), int(members["col"].min())
    high, wide = int(members["row"].max()) + 1 - top, int(members["col"].max()) + 1 - left
    frame_x = np.array([left, left + wide, left + wide, left, left])
    frame_y = np.array([top, top, top + high, top + high, top])
    places[0].plot(frame_x, frame_y, color=ORANGE, lw=2)
    part = picture[top * TILE : (top + high) * TILE, left * TILE : (left + wide) * TILE]
    show(places[1], part, "1  two sets,\nA and B")
    _marks(places[1], members, top, left)
    _bipartite(places[2], members, pairs, merges=False)
    _bipartite(places[3], members, pairs, merges=True)
    show(
        places[4],
        _merged(part, members, top, left),
        f"4  merged: {len(members)} tokens\nbecome {_left(members)}",
    )
    borders(places[4], _labels(members, top, left, (high, wide)), BLACK, 1.2)
    _marks(places[4], members[_survives(members)], top, left)
    return figure


def _survives(members: pd.DataFrame) -> pd.Series[bool]:
    return (members["row"] == members["target_row"]) & (members["col"] == members["target_col"])


def _left(members: pd.DataFrame) -> int:
    return int(_survives(members).sum())


def _marks(axes: Axes, members: pd.DataFrame, top: int, left: int) -> None:
    """Every token's number on its patch, in the colour of its set."""
    for token in records(members):
        color, marker = SETS[str(token["set"])]
        x, y = int(token["col"]) - left + 0.5, int(token["row"]) - top + 0.5
        axes.plot(x, y, marker, ms=11, color=color, mec="white")
        axes.text(x, y, str(token["number"]), color="white", ha="center", va="center", size=8)


def _bipartite(axes: Axes, members: pd.DataFrame, pairs: pd.DataFrame, *, merges: bool) -> None:
    """A on the left, B on the right; nearer pairs darker, or the pairs that merge alone."""
    height: dict[int, int] = {}
    for name in SETS:
        part = members[members["set"] == name]
        height |= {number: -place for place, number in enumerate(part["number"])}
    ranked = pairs.assign(near=1 - pairs["divergence"].rank(pct=True))
    for edge in records(ranked.sort_values("near")):
        if merges and not edge["merged"]:
            continue
        near = float(edge["near"])
        shade = BLACK if merges else str(0.95 - 0.9 * near)
        ends = [height[edge["source"]], height[edge["target"]]]
        axes.plot([0, 1], ends, color=shade, lw=1.6 if merges else 0.4 + near)
    most = members["importance"].max() or 1
    for token in records(members):
        color, marker = SETS[str(token["set"])]
        x, y = (0 if token["set"] == "A" else 1), height[token["number"]]
        size = 5 + 7 * float(token["importance"]) / most if merges else 7
        axes.plot(x, y, marker, ms=size, color=color, mec="white")
        side = -0.22 if x == 0 else 0.22
        axes.text(x + side, y, str(token["number"]), ha="center", va="center", size=8)
    axes.set_xlim(-0.4, 1.4)
    axes.axis("off")
    axes.set_title("3  nearest merge,\nweights ξ" if merges else "2  all edges,\nA – B")


def _labels(
    members: pd.DataFrame, top: int, left: int, size: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(rows, cols) of the window: the token that each patch ended in."""
    label = np.zeros(size, np.int64)
    ends = members["target_row"].astype(int) * 10_000 + members["target_col"].astype(int)
    label[members["row"].to_numpy() - top, members["col"].to_numpy() - left] = ends
    return label


def _merged(part: Pixels, members: pd.DataFrame, top: int, left: int) -> Pixels:
    """Every patch in the weighted mean colour of the token that it ended in."""
    means = patch_means(part)
    label = _labels(members, top, left, means.shape[:2])
    weight = np.zeros(means.shape[:2])
    weight[members["row"].to_numpy() - top, members["col"].to_numpy() - left] = members["weight"]
    blended = np.zeros_like(means)
    for end in np.unique(label):
        member = label == end
        blended[member] = (means[member] * weight[member][:, None]).sum(0)
    grown: Pixels = np.kron(blended.clip(0, 1), np.ones((TILE, TILE, 1))).astype(np.float64)
    return grown


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Every token of A: its nearest in B, how far, and what both weigh."""
    import pandas as pd

    members, pairs = tokens(frame).set_index("number"), edges(frame)
    rows = []
    for edge in records(pairs[pairs["nearest"]].sort_values("divergence")):
        rows.append(
            {
                "token of A": str(edge["source"]),
                "nearest in B": str(edge["target"]),
                "divergence (Eq. 5)": f"{edge['divergence']:.4f}",
                "merges": "yes" if edge["merged"] else "no",
                "ξ of A (Eq. 7)": f"{members['importance'][edge['source']]:.4f}",
                "ξ of B": f"{members['importance'][edge['target']]:.4f}",
                "weight of A in the merged token": f"{members['weight'][edge['source']]:.3f}",
            }
        )
    return pd.DataFrame(rows)


def judge_nearest(frame: pd.DataFrame) -> Verdict:
    """Do as many pairs merge as Eq. 6 says, each into its nearest, and the nearest first?"""
    members, pairs = tokens(frame), edges(frame)
    count = len(members)
    wanted = min(int(float(members["ratio"].iloc[0]) * count), count // 2)
    merged, waiting = pairs[pairs["merged"]], pairs[pairs["nearest"] & ~pairs["merged"]]
    nearest = bool(merged["nearest"].all())
    first = waiting.empty or merged["divergence"].max() <= waiting["divergence"].min()
    return all_of(
        [
            verdict(
                len(merged) == wanted, f"{len(merged)} of {count} tokens merge, Eq. 6: {wanted}"
            ),
            verdict(nearest and bool(first), "each into its nearest of B, the nearest pairs first"),
        ]
    )


def judge_weighted(frame: pd.DataFrame) -> Verdict:
    """Is every merged token the mean of its group, weighted by attention to the prompt?"""
    members = tokens(frame)
    total = members.groupby(["target_row", "target_col"])["importance"].transform("sum")
    error = float((members["weight"] - members["importance"] / total).abs().max())
    return verdict(
        error < EXACT, f"weights differ from ξ over the group's sum by {error:.1e} at most"
    )


ONE_WINDOW: Final = Artefact(
    id="L-F2",
    title="One window, step by step",
    source="LightKV, Figure 2",
    shows="Merging inside one window: two sets, candidate edges, chosen edges, message passing and "
    "the merged tokens.",
    study="window_steps",
    seconds=4,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "In a window the r nearest proposals merge, each into its nearest token of B.",
            "LightKV, Equations 5 and 6",
            judge_nearest,
            "in the run that is drawn: r = min(⌊ρm⌋, ⌊m/2⌋) tokens merge, into the nearest of B, "
            "and none that waits is nearer",
        ),
        Claim(
            "A merged token is the mean of its group, weighted by attention to the prompt.",
            "LightKV, Equations 7 and 8",
            judge_weighted,
            "in the run that is drawn: weights are ξ over the group's sum within 0.001",
        ),
    ),
    caption="The picture with one window of the first stage, and its tokens numbered. Squares: "
    "set A, circles: set B. 2: darker edges are nearer. 3: the edges that merge; a symbol's size "
    "is ξ, the attention between token and prompt. 4: patches of one token in their mean colour.",
    explanation="Every number is read from the run of one question. At a ratio of a half and an "
    "even number of tokens every token of A merges, so which edges are chosen decides into what "
    "it merges. Several tokens of A may end in one of B; a token of B that is chosen by none stays "
    "as it is.",
    alt="A picture with a window; its tokens in two sets, joined by edges, then fewer edges, then "
    "merged patches.",
)
