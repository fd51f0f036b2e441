"""The numbers behind T-T4: memory computed and printed, speed measured, recorded and printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from figures.artefacts.rounds import ratios
from figures.artefacts.score_tables import title
from figures.artefacts.shared import pick, printed, setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

CONTEXTS: Final = {"8k": 8000, "16k": 16000}
RETENTIONS: Final = (1.0, 0.5, 0.1, 0.05)
PRESET: Final = "llava-1.5-7b"
MEASURES: Final = {"step_ms": "ms a step", "throughput": "tokens/s"}
SAME_LENGTH: Final = 0.01
"""Relative difference within which a recorded length stands for a printed one."""
PRINTED: Final = {"step_ms": "decode_latency_mean", "throughput": "throughput_mean"}


def memory() -> pd.DataFrame:
    """KV memory of LLaVA-1.5-7B in GiB at both contexts: computed, and as printed."""
    import pandas as pd

    from lightkv.cost.presets import preset
    from lightkv.cost.workload import Workload, workload_cost

    model, numbers = preset(PRESET), paper_numbers()
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


def paper_numbers() -> pd.DataFrame:
    """The printed numbers with context and retention apart; the full cache is eager attention's."""
    from figures import paper

    numbers = paper.numbers("T-T4")
    numbers = numbers[setting(numbers, "attn") != "flash-attention-2"].copy()
    numbers["context"] = setting(numbers, "context")
    share = setting(numbers, "retention").str.rstrip("%").replace("", "100").astype(float)
    numbers["retention"] = share / 100
    return numbers


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation over repetitions here, per retention."""
    rows = frame[~frame["recorded"]]
    speeds = rows.groupby("retention", sort=False)[[*MEASURES]].agg(["mean", "std"])
    speeds.columns = ["_".join(name) for name in speeds.columns]
    return speeds.reset_index().sort_values("retention", ascending=False)


def shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Steps and throughput as shares of the full cache's, in print and recorded.

    Returns:
        Columns whose ("paper" or the machine), context (tokens; those of the paper where what is
        recorded is within 1 %), retention, measure, share; of what is recorded the median over
        rounds, with low and high, the range.
    """
    import pandas as pd

    numbers, no_range = paper_numbers(), (float("nan"), float("nan"))
    rows: list[tuple[Any, ...]] = []
    for measure, metric in PRINTED.items():
        for name, tokens in CONTEXTS.items():
            cells = pick(numbers, context=name, metric=metric)
            values = cells.set_index("retention")["value"]
            printed_shares = [(r, measure, values[r] / values[1], *no_range) for r in RETENTIONS]
            rows += [("paper", tokens, *one) for one in printed_shares]
        for (machine, _), runs in frame[frame["recorded"]].groupby(["machine", "context"]):
            where = str(machine), _length(int(runs["context"].iloc[0]))
            rows.append((*where, 1.0, measure, 1.0, *no_range))
            for retention in sorted(set(runs["retention"]) - {1.0}, reverse=True):
                ratio = ratios(runs, measure, "retention", retention, 1.0)
                if len(ratio):
                    ends = ratio.median(), ratio.min(), ratio.max()
                    rows.append((*where, retention, measure, *ends))
    columns = ["whose", "context", "retention", "measure", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _length(context: int) -> int:
    """The printed length that a recorded one stands for, else itself."""
    near = (c for c in CONTEXTS.values() if abs(context - c) <= SAME_LENGTH * c)
    return next(near, context)


def plotted(frame: pd.DataFrame) -> pd.DataFrame:
    """Memory, speed as a share of the full cache's, and speed here, told apart by ``panel``."""
    import pandas as pd

    parts = {
        "KV memory, GiB": memory(),
        "share of the full cache's": shares(frame),
        "speed here": measured(frame),
    }
    return pd.concat([part.assign(panel=p) for p, part in parts.items()], ignore_index=True)


def tightest(
    frame: pd.DataFrame, measure: str, retention: float | None = None
) -> Iterator[tuple[pd.Series[float], str]]:
    """Of each place and length the ratios to the full cache, at the smallest retention or one."""
    known = frame.groupby(["recorded", "model", "machine", "context"], sort=False)
    for (recorded, model, machine, context), runs in known:
        share = runs["retention"].min() if retention is None else retention
        ratio = ratios(runs, measure, "retention", share, 1.0)
        if share < 1 and len(ratio):
            whose = "recorded" if recorded else "here"
            asked = f"{context:,} tokens at {100 * share:g} %"
            yield ratio, f"{whose} ({title(str(model))}, {machine}), {asked}"
