"""L-F5: where LightKV's stages sit, drawn from the plan and the record of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from figures.artefacts.shared import records
from figures.compound import all_of
from figures.contract import Artefact, Claim
from figures.style import BLUE, GREY, ORANGE, canvas
from figures.verdicts import Verdict, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TALLEST: Final = 9.0
"""Inches of the layers of a deep model."""


def layers(frame: pd.DataFrame) -> pd.DataFrame:
    """What happens at each layer, in order."""
    return frame.sort_values("layer")


def draw_stages(frame: pd.DataFrame) -> Figure:
    """A bar per layer, as long as its sequence; between them the stages."""
    per_layer = layers(frame)
    figure, axes = canvas(1, 1, height=0.9 + min(0.36 * len(per_layer), TALLEST - 0.9))
    place = axes[0, 0]
    text = per_layer["tokens"] - per_layer["vision"]
    heights = per_layer["layer"].to_numpy()
    place.barh(heights, text, 0.62, color=GREY, label="text")
    place.barh(heights, per_layer["vision"], 0.62, left=text, color=BLUE, label="vision")
    for row in records(per_layer):
        place.text(
            row["tokens"],
            row["layer"],
            f" {row['tokens']} tokens, {row['entries']:g} cached",
            va="center",
            size=8,
        )
    longest = float(per_layer["tokens"].max())
    for row in records(per_layer[per_layer["stage"]]):
        after = per_layer[per_layer["layer"] == row["layer"] + 1]["vision"].iloc[0]
        y = row["layer"] + 0.5
        place.plot([0, longest], [y, y], color=ORANGE, lw=2.4, solid_capstyle="butt")
        place.annotate(
            f"merge within {_windows(row['windows'])}: {row['vision']} → {after}\n"
            f"vision tokens, weighed by layer {row['layer']}'s attention",
            (longest, y),
            xytext=(1.46 * longest, y),
            va="center",
            size=8,
            arrowprops={"arrowstyle": "-", "color": ORANGE},
        )
    place.set_yticks(heights, [f"layer {layer}" for layer in heights])
    place.set_ylim(heights[0] - 0.6, heights[-1] + 0.7)
    place.set_xlim(0, 2.35 * longest)
    place.set_xticks([])
    place.grid(False)
    place.spines["bottom"].set_visible(False)
    place.set_title("prefill runs upwards")
    place.legend(loc="lower right")
    return figure


def _windows(side: float) -> str:
    """How many windows a picture is cut into."""
    return f"{side:g} × {side:g} windows" if side > 1 else "one window"


def table_stages(frame: pd.DataFrame) -> pd.DataFrame:
    """What happens at each layer of the run."""
    import pandas as pd

    rows = [
        {
            "layer": str(row["layer"]),
            "tokens": f"{row['tokens']}",
            "vision tokens": f"{row['vision']}",
            "entries cached": f"{row['entries']:g}",
            "attention read": "yes" if row["attention"] else "–",
            "after it": f"merge within {_windows(row['windows'])}" if row["stage"] else "–",
        }
        for row in records(layers(frame))
    ]
    return pd.DataFrame(rows)


def judge_between(frame: pd.DataFrame) -> Verdict:
    """Does the sequence get shorter after each stage's layer, and nowhere else?"""
    per_layer = layers(frame)
    falls = per_layer["tokens"].diff().shift(-1).fillna(0) < 0
    where = per_layer.loc[falls, "layer"].tolist()
    stages = per_layer.loc[per_layer["stage"], "layer"].tolist()
    cached = bool((per_layer["entries"] == per_layer["tokens"]).all())
    return all_of(
        [
            verdict(where == stages, f"stages after layers {stages}, shorter after layers {where}"),
            verdict(cached, "every layer caches all that it has processed"),
        ]
    )


def judge_attention(frame: pd.DataFrame) -> Verdict:
    """Is attention read in the stages' layers only?"""
    per_layer = layers(frame)
    read = per_layer.loc[per_layer["attention"], "layer"].tolist()
    stages = per_layer.loc[per_layer["stage"], "layer"].tolist()
    return verdict(
        read == stages, f"attention is read in {len(read)} of {len(per_layer)} layers: {read}"
    )


BETWEEN_LAYERS: Final = Artefact(
    id="L-F5",
    title="Where compression sits",
    source="LightKV, Figure 5",
    shows="Compression between two decoder layers, three times in the depth of the model.",
    study="stage_plan",
    seconds=4,
    plotted=layers,
    draw=draw_stages,
    table=table_stages,
    claims=(
        Claim(
            "Compression acts between two layers: the layer before caches every token.",
            "LightKV, Section 3 and Figure 5",
            judge_between,
            "in the run that is drawn: the sequence is shorter after each stage's layer and not "
            "elsewhere, and every layer caches what it processed",
        ),
        Claim(
            "Only the stages' layers need explicit attention.",
            "LightKV, Section 3",
            judge_attention,
            "the plan reads attention in the stages' layers alone",
        ),
    ),
    caption="A run of one question: each bar is as long as the sequence that the layer processes "
    "and caches; orange lines are the stages between two layers.",
    explanation="The diagram is made from the plan and the record of a run, not by hand: with "
    "another model or schedule it shows that one.",
    alt="A stack of bars, one a layer, that get shorter after each of three orange lines.",
)
