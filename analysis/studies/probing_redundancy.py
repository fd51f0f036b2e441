"""X-5: how redundant vision tokens are, and what merging them would lose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.probing.quantities import Quantity
from analysis.probing.quantities.geometry import FeatureDivergence, MergeAgreement, MergeError
from analysis.probing.redundancy import profile
from analysis.studies.base import Tasks, register
from analysis.studies.probing import Asked, tabled

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store
    from lightkv import VLM

DEFAULT_TASKS = ("embedded/read",)
DEFAULT_SAMPLES = 12


@register
def redundancy_profile(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    windows: tuple[int, ...] = (1, 2, 4, 8),
    store: Store | None = None,
) -> pd.DataFrame:
    """Effective rank, feature divergence, and reconstruction error of merging per layer.

    Args:
        vlm: The model.
        tasks: What is asked.
        samples: Questions per task.
        seed: Which questions.
        windows: Windows per side of the image grid.
        store: Where the table is kept.

    Returns:
        Question rows with ``layer``, ``measure`` ("effective_rank" by ``kind``,
        "feature_divergence" by ``windows`` and ``quantile``, "merge_error" and "merge_agreement"
        by ``windows``) and ``value``.
    """

    def measure(asked: Asked) -> pd.DataFrame:
        wanted: list[str | Quantity] = [
            "effective_rank",
            FeatureDivergence(windows=windows),
            MergeError(windows=windows),
            MergeAgreement(windows=windows),
        ]
        return asked.named(profile(asked.probe(vlm, wanted)))

    parameters = {"windows": windows}
    return tabled("redundancy_profile", vlm, tasks, samples, seed, parameters, store, measure)
