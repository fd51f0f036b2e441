"""X-2: where text and vision inform each other, beside the budgets that TVB hands out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.probing.linear_probe import decodability
from analysis.probing.modality_gap import budgets, tidy
from analysis.probing.mutual_information import (
    Estimate,
    gaussian_information,
    interval,
    knn_information,
    principal_components,
)
from analysis.scoring import estimate as scoring
from analysis.scoring.intervals import mean_of
from analysis.studies.base import Tasks, register
from analysis.studies.probing import Asked, tabled

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from analysis.asking.store import Store
    from lightkv import VLM

DEFAULT_TASKS = ("embedded/color",)
"""One asked attribute with few values, so that a linear probe can learn it from few samples."""

DEFAULT_SAMPLES = 64
PER_SAMPLE = ("attention information", "TVB budget")
OVER_SAMPLES = ("Gaussian information", "k-NN information")
DECODED = ("vision", "text", "last")


@register
def information_profile(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    dims: int = 4,
    resamples: int = 30,
    store: Store | None = None,
) -> pd.DataFrame:
    """Information per layer, of attention and of states, and TVB's budgets.

    Args:
        vlm: The model.
        tasks: What is asked; answers should repeat, or nothing can be decoded.
        samples: Questions per task.
        seed: Which questions.
        dims: Principal components that mean text and vision states are reduced to.
        resamples: Half-samples behind each interval over samples.
        store: Where the table is kept.

    Returns:
        Rows with ``layer``, ``measure``, ``value``, ``low`` and ``high``. Per question (``item``
        0, 1, ...): "attention information" (nats, head mean), "TVB budget" (share of the total).
        Over all questions (``item`` -1): means of the former, "Gaussian
        information" and "k-NN information" between mean text and mean vision states (nats), and
        "decoded from vision", "... text", "... last" (cross-validated accuracy); "chance" is the
        share of the commonest answer.
    """

    def measure(asked: Asked) -> pd.DataFrame:
        import pandas as pd

        data = asked.probe(vlm, ["attention_information", "block_sum", "hidden_pooled"])
        information = tidy(data["attention_information"])
        parts = [
            information.assign(measure=PER_SAMPLE[0]),
            budgets(data).assign(measure=PER_SAMPLE[1]),
        ]
        single = pd.concat(parts, ignore_index=True)
        named = asked.named(single)
        rows = _means(single)
        for layer in data.layer.values:
            rows += _over_samples(data, int(layer), dims, resamples, seed)
            rows += _decoded(data, int(layer), [item.answers[0] for item in asked.items], seed)
        over = pd.DataFrame(rows).assign(task=asked.task, seed=asked.seed, item=-1)
        return pd.concat([named, over], ignore_index=True)

    parameters = {"dims": dims, "resamples": resamples}
    return tabled("information_profile", vlm, tasks, samples, seed, parameters, store, measure)


def _row(layer: int, measure: str, found: Estimate | scoring.Estimate) -> dict[str, Any]:
    return {
        "layer": layer,
        "measure": measure,
        "value": found.value,
        "low": found.low,
        "high": found.high,
    }


def _means(single: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for name in PER_SAMPLE:
        for layer, own in single[single["measure"] == name].groupby("layer"):
            rows.append(_row(int(str(layer)), name, mean_of(own["value"].dropna())))
    return rows


def _over_samples(
    data: xr.Dataset, layer: int, dims: int, resamples: int, seed: int
) -> list[dict[str, Any]]:
    states = data["hidden_pooled"].sel(layer=layer)
    text, vision = (
        principal_components(states.sel(pool=pool).values, dims) for pool in ("text", "vision")
    )
    rows = []
    estimators: tuple[Callable[..., float], ...] = (gaussian_information, knn_information)
    for name, estimator in zip(OVER_SAMPLES, estimators, strict=True):
        found = interval(estimator, text, vision, resamples=resamples, seed=seed)
        rows.append(_row(layer, name, found))
    return rows


def _decoded(data: xr.Dataset, layer: int, answers: list[str], seed: int) -> list[dict[str, Any]]:
    states = data["hidden_pooled"].sel(layer=layer)
    rows, chance = [], np.nan
    for pool in DECODED:
        found = decodability(states.sel(pool=pool).values, answers, seed=seed)
        chance = found.chance
        spread = mean_of(found.correct.astype(float))
        rows.append(_row(layer, f"decoded from {pool}", spread))
    rows.append(_row(layer, "chance", Estimate(chance, chance, chance, len(answers))))
    return rows
