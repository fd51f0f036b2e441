"""T-T4: KV memory, decode latency and throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from figures.artefacts.shared import here, legend_below, pick, printed, setting
from figures.contract import Artefact, Claim
from figures.style import BLACK, BLUE, GREY, RED, canvas
from figures.verdicts import Verdict, all_of, untestable, verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONTEXTS: Final = {"8k": 8000, "16k": 16000}
RETENTIONS: Final = (1.0, 0.5, 0.1, 0.05)
PRESET: Final = "llava-1.5-7b"
ROUNDED: Final = 0.006
"""Half a unit of the last printed digit, and a little."""

LONG: Final = 16000
FASTER, MORE = -0.51, 0.526
NEAR: Final = 0.1


def memory() -> pd.DataFrame:
    """KV memory of LLaVA-1.5-7B in GiB at both contexts: computed, and as printed."""
    import pandas as pd

    from lightkv.cost.presets import preset
    from lightkv.cost.workload import Workload, workload_cost

    model, numbers = preset(PRESET), _paper()
    rows = []
    for context, tokens in CONTEXTS.items():
        request = Workload(
            model.vision_tokens,
            prompt_tokens=tokens - model.vision_tokens,
            generated_tokens=0,
        )
        for retention in RETENTIONS:
            kept = None if retention == 1 else retention
            cost = workload_cost(model.shape, request, retention=kept)
            value = printed(numbers, context=context, retention=retention, metric="kv_cache_memory")
            rows.append(
                {
                    "context": context,
                    "retention": retention,
                    "computed": cost.kv.gib,
                    "printed": value,
                }
            )
    return pd.DataFrame(rows)


def _paper() -> pd.DataFrame:
    """The printed numbers with context and retention apart; the full cache is eager attention's."""
    from figures import paper

    numbers = paper.numbers("T-T4")
    numbers = numbers[setting(numbers, "attn") != "flash-attention-2"].copy()
    numbers["context"] = setting(numbers, "context")
    share = setting(numbers, "retention").str.rstrip("%").replace("", "100").astype(float)
    numbers["retention"] = share / 100
    return numbers


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation over repetitions per retention, and change against the full cache."""
    speeds = frame.groupby("retention", sort=False)[["step_ms", "throughput"]].agg(["mean", "std"])
    speeds.columns = ["_".join(name) for name in speeds.columns]
    speeds = speeds.reset_index().sort_values("retention", ascending=False)
    full = speeds[speeds["retention"] == 1].iloc[0]
    for name in ("step_ms", "throughput"):
        speeds[f"{name}_change"] = speeds[f"{name}_mean"] / full[f"{name}_mean"] - 1
    return speeds


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Computed and printed memory, then measured speed, told apart by ``panel``."""
    import pandas as pd

    return pd.concat(
        [memory().assign(panel="KV memory, GiB"), measured(frame).assign(panel="speed here")],
        ignore_index=True,
    )


def draw(frame: pd.DataFrame) -> Figure:
    """Memory computed and printed; latency printed; latency and throughput measured here."""
    figure, axes = canvas(2, 2, height=2.5)
    _memory(axes[0, 0])
    _printed_latency(axes[0, 1])
    speed = measured(frame)
    device = ", ".join(sorted(set(frame["device"])))
    _bars(axes[1, 0], speed, "step_ms", f"Latency of {here(frame)[6:-1]}, {device}", "ms a step")
    _bars(axes[1, 1], speed, "throughput", "Throughput of the same", "tokens/s")
    legend_below(figure, axes[0, 0], 4)
    return figure


def _memory(axes: Axes) -> None:
    data = memory()
    for shift, (context, color) in zip((-0.2, 0.2), (("8k", BLUE), ("16k", RED)), strict=True):
        cells = pick(data, context=context)
        places = [place + shift for place in range(len(cells))]
        axes.bar(places, cells["computed"], 0.36, color=color, label=f"{context}, computed")
        label = "printed" if context == "8k" else None
        axes.scatter(places, cells["printed"], color=BLACK, marker="D", s=16, zorder=3, label=label)
    _retention_axis(axes, list(RETENTIONS))
    axes.set_ylabel("GiB")
    axes.set_title("KV memory, LLaVA-1.5-7B")


def _printed_latency(axes: Axes) -> None:
    numbers = _paper()
    for context, color, marker in (("8k", BLUE, "s"), ("16k", RED, "^")):
        cells = pick(numbers, context=context, metric="decode_latency_mean")
        cells = cells.sort_values("retention", ascending=False)
        axes.plot(range(len(cells)), cells["value"], color=color, marker=marker, label=context)
    _retention_axis(axes, list(RETENTIONS))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms a step")
    axes.set_title("Printed latency, LLaVA-1.5-7B, A800")
    axes.legend()


def _bars(axes: Axes, speed: pd.DataFrame, name: str, title: str, unit: str) -> None:
    places = range(len(speed))
    axes.bar(places, speed[f"{name}_mean"], 0.6, color=GREY, yerr=speed[f"{name}_std"], capsize=3)
    _retention_axis(axes, speed["retention"].tolist())
    axes.set_ylabel(unit)
    axes.set_title(title)


def _retention_axis(axes: Axes, retentions: list[float]) -> None:
    names = ["full" if r == 1 else f"{100 * r:g} %" for r in retentions]
    axes.set_xticks(range(len(names)), names)
    axes.grid(False, axis="x")


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Memory computed beside printed, latency and throughput printed beside measured."""
    import pandas as pd

    data, numbers, speed = memory(), _paper(), measured(frame)
    rows = []
    for retention in RETENTIONS:
        row: dict[tuple[str, str], object] = {
            ("cache", ""): "full" if retention == 1 else f"TGV-KV {100 * retention:g} %"
        }
        for context in CONTEXTS:
            cell = pick(data, context=context, retention=retention).iloc[0]
            row["KV memory, GiB, LLaVA-1.5-7B", f"{context} computed"] = f"{cell['computed']:.2f}"
            row["KV memory, GiB, LLaVA-1.5-7B", f"{context} paper"] = f"{cell['printed']:.2f}"
        for context in CONTEXTS:
            wanted = {"context": context, "retention": retention}
            for name, title in (("decode_latency_mean", "ms"), ("throughput_mean", "tokens/s")):
                value = printed(numbers, metric=name, **wanted)
                row["paper (LLaVA-1.5-7B, A800, eager)", f"{context} {title}"] = value
        mine = pick(speed, retention=retention)
        for name, title in (("step_ms", "ms"), ("throughput", "tokens/s")):
            value = float(mine[f"{name}_mean"].iloc[0]) if len(mine) else float("nan")
            row[f"{here(frame)}, {frame['device'].iloc[0]}", title] = value
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def judge_memory(frame: pd.DataFrame) -> Verdict:
    """Is 95 % of the KV memory saved at 5 %, by the printed and by the computed numbers?"""
    held = frame[frame["retention"] == 0.05]["kv_share"]
    if held.empty:
        return untestable("5 % retention was not run")
    saved = 1 - float(held.mean())
    worst = float((memory()["computed"] - memory()["printed"]).abs().max())
    return all_of(
        [
            verdict(abs(saved - 0.95) < 0.01, f"{100 * saved:.1f} % of the cache is freed here"),
            verdict(worst < ROUNDED, f"printed GiB and computed differ by {worst:.3f} at most"),
        ]
    )


def _speed_claim(frame: pd.DataFrame, name: str, printed_change: float) -> Verdict:
    """The change at 5 %, if it was measured at a context and on a device like the paper's."""
    speed = pick(measured(frame), retention=0.05)
    if speed.empty:
        return untestable("5 % retention was not run")
    change = float(speed[f"{name}_change"].iloc[0])
    context, device = int(frame["context"].max()), str(frame["device"].iloc[0])
    text = f"{100 * change:+.0f} % here at {context} tokens on {device}"
    if context < LONG or not device.startswith("cuda"):
        return untestable(f"needs {LONG} tokens on a GPU: {text}, where the cache is not the limit")
    reached = (
        change <= printed_change + NEAR if printed_change < 0 else change >= printed_change - NEAR
    )
    return verdict(reached, f"{text}, printed {100 * printed_change:+.1f} %")


def judge_latency(frame: pd.DataFrame) -> Verdict:
    """Does decode latency fall by 51 % at 5 %?"""
    return _speed_claim(frame, "step_ms", FASTER)


def judge_throughput(frame: pd.DataFrame) -> Verdict:
    """Does throughput rise by 52.6 % at 5 %?"""
    return _speed_claim(frame, "throughput", MORE)


MEMORY_AND_LATENCY: Final = Artefact(
    id="T-T4",
    title="KV memory, decode latency and throughput",
    source="TGV-KV, Table 4",
    shows="LLaVA-1.5-7B at contexts of 8,000 and 16,000 tokens on one A800: full cache against "
    "TGV-KV at 50, 10 and 5 %.",
    study="decode_latency",
    seconds=30,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "At 5 % retention 95 % of the KV memory is saved.",
            "TGV-KV, Table 4",
            judge_memory,
            "the share freed here is within a point of 95 %, and every printed GiB is the computed "
            "one rounded",
        ),
        Claim(
            "At 16k tokens and 5 % decode latency falls by 51 %.",
            "TGV-KV, Table 4",
            judge_latency,
            "on a GPU at 16,000 tokens or more: the change is at least the printed one, less 10 "
            "points",
        ),
        Claim(
            "At 16k tokens and 5 % throughput rises by 52.6 %.",
            "TGV-KV, Table 4",
            judge_throughput,
            "on a GPU at 16,000 tokens or more: the change is at least the printed one, less 10 "
            "points",
        ),
    ),
    caption="Above: KV memory computed (bars) and printed (diamonds), and the printed latency. "
    "Below: measured with the model of this run, bars with the deviation over repetitions.",
    explanation="Memory is arithmetic: 2 bytes a number, so it is exact for any device. Latency is "
    "measured on the model and machine of this run and says nothing about a 7B model on an A800: "
    "with a few hundred tokens and a tiny decoder a step is all overhead.",
    alt="Bars of KV memory with printed values on top, lines of printed latency, and bars of "
    "latency and throughput measured here.",
    paper="T-T4",
)
