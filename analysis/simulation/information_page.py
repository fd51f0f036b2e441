"""The simulation of estimators of mutual information as two short tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.simulation.information import DEFAULT, KINDS
from analysis.simulation.pages import markdown

if TYPE_CHECKING:
    import pandas as pd

STUDY: Final = (64, 4, 0.6)
"""Samples and components of the study of information by layer, and a correlation."""


def readable(frame: pd.DataFrame) -> str:
    """Bias and coverage of every estimator, then those of the default by n and d."""
    return "\n\n".join([markdown(_every(frame)), markdown(_default(frame))])


def _every(frame: pd.DataFrame) -> pd.DataFrame:
    """One row an estimator: mean size of its bias, and all that is known of three cells."""
    import pandas as pd

    n, dims, rho = STUDY
    rows = []
    for name, cells in frame.groupby("estimator", sort=False):
        row = {"estimator": f"**{DEFAULT}**" if name == DEFAULT else str(name)}
        for kind in KINDS:
            row[f"bias, {kind}"] = _size(cells.loc[cells["kind"] == kind, "bias"])
        row["bias from Gaussian information"] = _size(cells["linear_bias"])
        study = cells[(cells["n"] == n) & (cells["d"] == dims) & (cells["rho"] == rho)]
        for kind in KINDS:
            row[f"{kind}, n = {n}, d = {dims}, ρ = {rho:g}"] = _cell(study[study["kind"] == kind])
        rows.append(row)
    return pd.DataFrame(rows)


def _size(bias: pd.Series[float]) -> str:
    return f"{bias.abs().mean():.3f}" if bias.notna().any() else "–"


def _cell(cell: pd.DataFrame) -> str:
    """Bias, spread and coverage of the truth in percent."""
    if cell.empty:
        return "–"
    one = cell.iloc[0]
    return f"{one['bias']:+.2f} ± {one['sd']:.2f}, {100 * one['coverage']:.0f} %"


def _default(frame: pd.DataFrame) -> pd.DataFrame:
    """Largest bias against the Gaussian information, and least coverage of it, by n and d."""
    import pandas as pd

    default = frame[frame["estimator"] == DEFAULT]
    rows = []
    for n, of_n in default.groupby("n"):
        row = {"n": str(n)}
        for d, cells in of_n.groupby("d"):
            bias, held = cells["linear_bias"].abs().max(), cells["linear_coverage"].min()
            row[f"d = {d}"] = f"{bias:.3f}, {100 * held:.1f} %"
        rows.append(row)
    return pd.DataFrame(rows)
