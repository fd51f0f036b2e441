"""What a record of whole requests says: medians, ratios, and when a method pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = ("shape", "tokens", "batch_size", "driver", "half_products")


def summarise_model(frame: pd.DataFrame, baseline: str = "vanilla") -> pd.DataFrame:
    """One row per piece and method, ratios to the baseline of the same round.

    Returns:
        shape, tokens, batch_size, driver, half_products, method; medians of ttft_ms, step_ms and
        throughput; ``ttft_ratio`` and ``step_ratio`` with their first and third quartiles
        (``_low``, ``_high``); kv_share (of the baseline's bytes after the prefill); peak_ratio;
        ``break_even`` (see
        :func:`break_even`); arithmetic_share and bandwidth_share.
    """
    import pandas as pd

    measured = frame[frame["repeat"].notna()]
    rows: list[dict[str, Any]] = []
    for _, piece in measured.groupby("piece", sort=False):
        base = piece[piece["method"] == baseline].set_index("repeat")
        for method, group in piece.groupby("method", sort=False):
            rows.append(_summary(group.set_index("repeat"), base) | {"method": method})
    columns = [*_SHOWN, "method"]
    summary = pd.DataFrame(rows)
    return summary[columns + [name for name in summary.columns if name not in columns]]


def _summary(group: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any]:
    names = ("ttft_ms", "step_ms", "throughput", "arithmetic_share", "bandwidth_share")
    row: dict[str, Any] = {name: group[name].median() for name in names}
    row |= {name: group[name].iloc[0] for name in _SHOWN}
    if base.empty:
        return row
    for name in ("ttft", "step"):
        ratio = group[f"{name}_ms"] / base[f"{name}_ms"]
        row[f"{name}_ratio"] = ratio.median()
        row[f"{name}_low"], row[f"{name}_high"] = ratio.quantile(0.25), ratio.quantile(0.75)
    row["kv_share"] = group["kv_bytes"].iloc[0] / base["kv_bytes"].iloc[0]
    row["peak_ratio"] = group["peak_bytes"].iloc[0] / base["peak_bytes"].iloc[0]
    row["break_even"] = break_even(
        row["ttft_ms"] - base["ttft_ms"].median(), base["step_ms"].median() - row["step_ms"]
    )
    return row


def break_even(later: float, saved: float) -> float:
    """Answer's length in tokens from which a method is the faster one.

    Args:
        later: Milliseconds by which its first token comes later.
        saved: Milliseconds that each step after it saves.

    Returns:
        1 where its first token is the earlier one, infinity where it never catches up.
    """
    if later <= 0:
        return 1.0
    if saved <= 0:
        return float("inf")
    return float(1 + -(-later // saved))
