"""Costs of methods beside a decoder layer's: rounds of every part, as rows and in short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    "method",
    "part",
    "repeat",
    "seconds",
    "layer_seconds",
    "ratio",
    "peak_bytes",
    "reason",
)


@dataclass(frozen=True)
class Cost:
    """Measurements of one part of a method.

    Attributes:
        method: The method as text.
        part: "stage", "scoring" or "retention".
        seconds: One number per round.
        peak_bytes: Memory beyond what is held before, results included; for "retention" with the
            decisions of all layers that it was measured on.
    """

    method: str
    part: str
    seconds: tuple[float, ...]
    peak_bytes: int


@dataclass(frozen=True)
class MethodsBench:
    """A finished measurement.

    Attributes:
        setting: Dimensions, device, dtype, threads, versions and the like.
        layer_seconds: The layer's forward pass, one number per round.
        layer_peak_bytes: Its memory, without weights and input.
        costs: What methods cost.
        refused: Methods that could not be measured, with the reason.
    """

    setting: Mapping[str, Any]
    layer_seconds: tuple[float, ...]
    layer_peak_bytes: int
    costs: tuple[Cost, ...]
    refused: Mapping[str, str]

    def frame(self) -> pd.DataFrame:
        """One row per method, part and round: seconds, layer_seconds, ratio, peak_bytes and the
        setting; a refused method has one row with its ``reason``."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for cost in self.costs:
            times = zip(cost.seconds, self.layer_seconds, strict=True)
            for number, (seconds, layer) in enumerate(times):
                row = {"method": cost.method, "part": cost.part, "repeat": number}
                row |= {"seconds": seconds, "layer_seconds": layer, "ratio": seconds / layer}
                rows.append(row | {"peak_bytes": cost.peak_bytes, "reason": ""})
        rows += [{"method": name, "reason": why} for name, why in self.refused.items()]
        return pd.DataFrame(rows, columns=_COLUMNS).assign(**self.setting)

    def summary(self) -> pd.DataFrame:
        """One row per method and part: median, first and third quartile of the ratio to the
        layer, median milliseconds, peak MiB and its ratio to an N x N map of all heads."""
        import pandas as pd

        map_bytes = self.setting["map_bytes"]
        rows = []
        for (method, part), group in self.frame().groupby(["method", "part"], sort=False):
            peak = group["peak_bytes"].iloc[0]
            rows.append(
                {
                    "method": method,
                    "part": part,
                    "of_layer": group["ratio"].median(),
                    "low": group["ratio"].quantile(0.25),
                    "high": group["ratio"].quantile(0.75),
                    "ms": 1000 * group["seconds"].median(),
                    "peak_mib": peak / 2**20,
                    "of_map": peak / map_bytes,
                }
            )
        return pd.DataFrame(rows)

    def content(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "setting": dict(self.setting),
            "layer": {
                "seconds": list(self.layer_seconds),
                "peak_bytes": self.layer_peak_bytes,
            },
            "costs": [asdict(cost) for cost in self.costs],
            "refused": dict(self.refused),
        }
