"""X-2: where text and vision inform each other, beside the budgets that TVB hands out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.probing.information import (
    SAMPLES_PER_DIMENSION,
    gaussian_information,
    gaussian_terms,
    knn_information,
    knn_samples,
    principal_components,
)
from analysis.probing.linear_probe import decodability
from analysis.probing.modality_gap import budgets, tidy
from analysis.scoring.estimate import Estimate, exactly, unsure
from analysis.scoring.intervals import mean_of
from analysis.studies.base import Tasks, register
from analysis.studies.probing import Asked, tabled
from lightkv.errors import InvalidValueError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from analysis.asking.store import Store
    from lightkv import VLM

DEFAULT_TASKS = ("embedded/color",)
"""One asked attribute with few values, so that a linear probe can learn it from few samples."""

DEFAULT_SAMPLES = 64
ATTENTION, BUDGET = "attention information", "TVB budget"
GAUSSIAN = "Gaussian information"
FIRST_GAUSSIAN, FIRST_KNN = "Gaussian information, first", "k-NN information, first"
DECODED = ("vision", "text", "last")


@register
def information_profile(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    dims: int = 4,
    store: Store | None = None,
) -> pd.DataFrame:
    """Information per layer, of attention and of states, and TVB's budgets.

    Args:
        vlm: The model.
        tasks: What is asked; answers should repeat, or nothing can be decoded.
        samples: Questions per task.
        seed: Which questions.
        dims: Principal components that mean text and vision states are reduced to.
        store: Where the table is kept.

    Returns:
        Rows with ``layer``, ``measure``, ``value``, ``low`` and ``high``. Per question (``item``
        0, 1, ...): "attention information" (nats, head mean), "TVB budget" (share of the total),
        what it adds to "Gaussian information" (nats, see
        :func:`analysis.probing.information.gaussian_terms`), and whether its answer is "decoded
        from last" (the held-out prediction is right). Over all questions (``item`` -1):
        means of the first two, "Gaussian information" between mean text and mean vision states;
        "... , first" and "k-NN information, first" of their first components, the latter without
        an interval; "decoded from vision", "... text", "... last" (cross-validated accuracy);
        "chance" is the share of the commonest answer.

    Raises:
        InvalidValueError: ``samples`` are too few to estimate information from.
    """
    needed = max(2 * dims * SAMPLES_PER_DIMENSION, knn_samples(2))
    if samples < needed:
        raise InvalidValueError("samples", samples, f"at least {needed} for {dims} components")

    def measure(asked: Asked) -> pd.DataFrame:
        import pandas as pd

        data = asked.probe(vlm, ["attention_information", "block_sum", "hidden_pooled"])
        parts = [
            tidy(data["attention_information"]).assign(measure=ATTENTION),
            budgets(data).assign(measure=BUDGET),
        ]
        rows = _means(pd.concat(parts, ignore_index=True))
        for layer in data.layer.values:
            terms, over = _of_states(data, int(layer), dims)
            parts.append(terms)
            rows += over
            read, over = _decoded(data, int(layer), [item.answers[0] for item in asked.items], seed)
            parts.append(read)
            rows += over
        over_all = pd.DataFrame(rows).assign(task=asked.task, seed=asked.seed, item=-1)
        return pd.concat([asked.named(pd.concat(parts)), over_all], ignore_index=True)

    return tabled("information_profile", vlm, tasks, samples, seed, {"dims": dims}, store, measure)


def _row(layer: int, measure: str, estimate: Estimate) -> dict[str, Any]:
    return {
        "layer": layer,
        "measure": measure,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
    }


def _means(single: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        _row(int(str(layer)), str(measure), mean_of(group["value"].dropna()))
        for (measure, layer), group in single.groupby(["measure", "layer"], sort=False)
    ]


def _of_states(
    data: xr.Dataset, layer: int, dims: int
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """What each question adds to the information of a layer's states, and its estimates."""
    import pandas as pd

    states = data["hidden_pooled"].sel(layer=layer)
    text, vision = (
        principal_components(states.sel(pool=pool).values, dims) for pool in ("text", "vision")
    )
    terms = {"sample": range(len(text)), "layer": layer, "value": gaussian_terms(text, vision)}
    first = text[:, :1], vision[:, :1]
    knn = unsure(knn_information(*first, ties="break"), len(text))
    return pd.DataFrame(terms).assign(measure=GAUSSIAN), [
        _row(layer, GAUSSIAN, gaussian_information(text, vision)),
        _row(layer, FIRST_GAUSSIAN, gaussian_information(*first)),
        _row(layer, FIRST_KNN, knn),
    ]


def _decoded(
    data: xr.Dataset, layer: int, answers: list[str], seed: int
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Whether each question's answer is read from a layer's last token, and accuracies."""
    import pandas as pd

    states = data["hidden_pooled"].sel(layer=layer)
    rows, chance = [], np.nan
    for pool in DECODED:
        decoded = decodability(states.sel(pool=pool).values, answers, seed=seed)
        chance = decoded.chance
        spread = mean_of(decoded.correct.astype(float))
        rows.append(_row(layer, f"decoded from {pool}", spread))
    rows.append(_row(layer, "chance", exactly(chance, len(answers))))
    read = {"sample": decoded.samples, "layer": layer, "value": decoded.correct.astype(float)}
    return pd.DataFrame(read).assign(measure=f"decoded from {DECODED[-1]}"), rows
