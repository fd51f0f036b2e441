"""L-F3 and L-F7: windows that grow as tokens get fewer, and which patches end in one token."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.scoring.intervals import QUESTION, mean
from figures.artefacts.pictures import TILE, Pixels, borders, patch_means, pixels, show
from figures.artefacts.shared import pick
from figures.contract import Artefact, Claim
from figures.style import BLACK, ORANGE, canvas
from figures.verdicts import Verdict, above, untestable, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PRINTED_LEFT: Final = 77 / 576
"""Share of the vision tokens that the paper's Figure 7 is left with."""

CLOSE: Final = 0.005

Labels = np.ndarray[Any, np.dtype[np.int64]]


def _first(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first question."""
    named = frame.iloc[0]
    return pick(frame, **{name: named[name] for name in QUESTION})


def _stages(frame: pd.DataFrame) -> list[int]:
    return sorted(int(stage) for stage in frame["stage"].unique())


def _size(frame: pd.DataFrame) -> tuple[int, int]:
    """Rows and columns of the patch grid."""
    return int(frame["row"].max()) + 1, int(frame["col"].max()) + 1


def _labels(frame: pd.DataFrame, stage: int) -> Labels:
    """(rows, cols): the token that each patch is part of after a stage, by its own patch."""
    rows, cols = _size(frame)
    patches = pick(frame, stage=stage)
    label = np.zeros((rows, cols), np.int64)
    ends = patches["target_row"].to_numpy(int) * cols + patches["target_col"].to_numpy(int)
    label[patches["row"].to_numpy(int), patches["col"].to_numpy(int)] = ends
    return label


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Per question and stage: layer, windows per side, tokens before and after."""
    import pandas as pd

    rows = []
    for key, patches in frame.groupby([*QUESTION], sort=False):
        before = len(pick(patches, stage=patches["stage"].min()))
        for stage in _stages(patches):
            part = pick(patches, stage=stage)
            after = len(part[["target_row", "target_col"]].drop_duplicates())
            named = dict(zip(QUESTION, key, strict=True))
            settings = {name: part[name].iloc[0] for name in ("layer", "windows")}
            rows.append({**named, "stage": stage, **settings, "before": before, "after": after})
            before = after
    return pd.DataFrame(rows)


def draw_windows(frame: pd.DataFrame) -> Figure:
    """One panel a stage: the tokens that enter it as dots, its windows as lines."""
    patches = _first(frame)
    picture, steps = pixels(patches, *_size(patches)), counts(patches).to_dict("records")
    figure, axes = canvas(1, len(steps), height=3.05)
    rows, cols = _size(patches)
    label: Labels = np.arange(rows * cols).reshape(rows, cols)
    for place, step in zip(axes[0], steps, strict=True):
        pale = 0.55 + 0.45 * picture
        windows = int(step["windows"])
        show(
            place,
            pale,
            f"stage {step['stage']}, after layer {step['layer']}\n"
            f"{windows} × {windows} windows\n{step['before']} → {step['after']} tokens",
        )
        alive = np.unique(label)
        place.scatter(alive % cols + 0.5, alive // cols + 0.5, s=5, color=BLACK, linewidths=0)
        for edge in np.linspace(0, 1, windows + 1):
            place.plot([0, cols], [edge * rows] * 2, color=ORANGE, linewidth=1.6)
            place.plot([edge * cols] * 2, [0, rows], color=ORANGE, linewidth=1.6)
        label = _labels(patches, step["stage"])
    return figure


def draw_merged(frame: pd.DataFrame) -> Figure:
    """The picture, then after each stage every patch in the mean colour of its token's patches."""
    patches = _first(frame)
    picture = pixels(patches, *_size(patches))
    steps = counts(patches).to_dict("records")
    figure, axes = canvas(1, len(steps) + 1, height=2.15)
    show(axes[0, 0], picture, f"picture\n{steps[0]['before']} tokens")
    for place, step in zip(axes[0, 1:], steps, strict=True):
        label = _labels(patches, step["stage"])
        mean = _group_means(patch_means(picture), label)
        show(
            place,
            np.kron(mean, np.ones((TILE, TILE, 1))).astype(np.float64),
            f"after stage {step['stage']}\n{step['after']} tokens",
        )
        borders(place, label, BLACK, 0.5)
    return figure


def _group_means(means: Pixels, label: Labels) -> Pixels:
    """Every patch in the mean colour of its group."""
    _, place = np.unique(label, return_inverse=True)
    flat = means.reshape(-1, 3)
    sums = np.stack([np.bincount(place.ravel(), flat[:, c]) for c in range(3)], 1)
    mean = sums / np.bincount(place.ravel())[:, None]
    painted: Pixels = mean[place.ravel()].reshape(means.shape)
    return painted


def similarity(frame: pd.DataFrame) -> pd.DataFrame:
    """Per question: how much more alike patches of one token are than patches dealt at random.

    ``score`` is 1 minus the colour variance within tokens over that within random groups of the
    same sizes: 0 is chance, 1 is perfect.
    """
    import pandas as pd

    generator, rows = np.random.default_rng(0), []
    for key, patches in frame.groupby([*QUESTION], sort=False):
        means = patch_means(pixels(patches, *_size(patches)))
        label = _labels(patches, _stages(patches)[-1])
        dealt = generator.permutation(label.ravel()).reshape(label.shape)
        within = float(((means - _group_means(means, label)) ** 2).mean())
        chance = float(((means - _group_means(means, dealt)) ** 2).mean())
        rows.append({**dict(zip(QUESTION, key, strict=True)), "score": 1 - within / chance})
    return pd.DataFrame(rows)


def table_windows(frame: pd.DataFrame) -> pd.DataFrame:
    """Stages of the first question beside the paper's 576 tokens."""
    import pandas as pd

    theirs = {1: "576 → 288", 2: "288 → 145", 3: "145 → 77"}
    rows = [
        {
            ("stage", ""): str(step["stage"]),
            ("here", "after layer"): str(step["layer"]),
            ("here", "windows"): f"{step['windows']} × {step['windows']}",
            ("here", "tokens"): f"{step['before']} → {step['after']}",
            ("here", "tokens a window"): step["before"] / step["windows"] ** 2,
            ("paper (LLaVA-1.5-13B, Figure 7)", "tokens"): theirs.get(step["stage"], "–"),
        }
        for step in counts(_first(frame)).to_dict("records")
    ]
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def judge_windows_grow(frame: pd.DataFrame) -> Verdict:
    """Do windows get fewer, and so larger, at every stage while tokens get fewer?"""
    steps = counts(_first(frame))
    if len(steps) < 2:
        return untestable("fewer than two stages")
    windows, tokens = steps["windows"].tolist(), steps["after"].tolist()
    falling = all(a > b for a, b in itertools.pairwise(windows))
    fewer = all(a > b for a, b in itertools.pairwise(tokens))
    return verdict(falling and fewer, f"windows per side {windows}, tokens after a stage {tokens}")


def judge_share_left(frame: pd.DataFrame) -> Verdict:
    """Are 13.4 % of the vision tokens left after the last stage, as 77 of 576?"""
    steps = counts(frame)
    last = pick(steps, stage=steps["stage"].max())
    first = pick(steps, stage=steps["stage"].min())
    share = float(last["after"].sum() / first["before"].sum())
    text = f"{100 * share:.1f} % of the vision tokens are left, printed {100 * PRINTED_LEFT:.1f} %"
    return verdict(abs(share - PRINTED_LEFT) <= CLOSE, text)


def judge_alike(frame: pd.DataFrame) -> Verdict:
    """Are patches that end in one token more alike than chance?"""
    scores = similarity(frame)
    return above(mean(scores), 0.0, "colour variance within tokens below chance, share")


WINDOWS_BY_STAGE: Final = Artefact(
    id="L-F3",
    title="Windows grow as tokens get fewer",
    source="LightKV, Figure 3",
    shows="How the number of windows shrinks after each stage, so that more distant tokens can "
    "merge.",
    study="merge_maps",
    seconds=8,
    plotted=counts,
    draw=draw_windows,
    table=table_windows,
    claims=(
        Claim(
            "Windows get larger from stage to stage while tokens get fewer.",
            "LightKV, Figure 3",
            judge_windows_grow,
            "windows per side and tokens both fall at every stage",
        ),
    ),
    caption="The picture's patch grid at each stage: dots are the tokens that enter the stage, at "
    "their place on the grid, orange lines its windows. Tokens merge within a window only.",
    explanation="A merged token stays at its target's place, and the next stage's windows are cut "
    "on the same grid by those places. With fewer windows a merge reaches further.",
    alt="Three copies of a picture with ever fewer dots and ever fewer, larger windows.",
)

MERGED_PATCHES: Final = Artefact(
    id="L-F7",
    title="Which patches end in one token",
    source="LightKV, Figure 7",
    shows="Pictures on LLaVA-1.5-13B whose patches are coloured by the token they ended in, after "
    "each of three halving stages (576, 288, 145, 77 tokens).",
    study="merge_maps",
    seconds=8,
    plotted=lambda frame: _first(frame),
    draw=draw_merged,
    table=table_windows,
    claims=(
        Claim(
            "Three halving stages leave 77 of 576 tokens.",
            "LightKV, Figure 7",
            judge_share_left,
            "the share of vision tokens left is within half a point of 77 / 576",
        ),
        Claim(
            "Tokens that look alike merge.",
            "LightKV, Section 3 and Figure 7",
            judge_alike,
            "colour variance of the patches within a token is below that within random groups of "
            "the same sizes; interval over pictures",
            main=True,
        ),
    ),
    caption="Every patch in the mean colour of all patches that ended in the same token; black "
    "lines part different tokens.",
    explanation="Large flat areas are background that merged; objects that stay in small pieces "
    "kept their tokens. The counting rule of the released code takes 576 tokens to 288, 145 and "
    "73; the paper prints 77. Patches of one token need not touch.",
    alt="A picture and three versions of it in ever coarser pieces.",
)
