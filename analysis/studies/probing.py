"""T-F1, T-F2, T-F7: the modality gap and attention maps; what probing studies share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import provenance
from analysis.probing import dominance
from analysis.probing import modality_gap as gap
from analysis.probing.probe import probe
from analysis.probing.quantities import Quantity
from analysis.studies.base import Tasks, model_configuration, register, remembered
from analysis.tasks import TaskItem, task

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from analysis.asking.store import Store
    from lightkv import VLM
    from lightkv.contract.compressor import Compressor

DEFAULT_TASKS = ("embedded/read",)
DEFAULT_SAMPLES = 12
MAPPED = 48
"""Questions whose maps are looked at; only the first one's is kept."""

KEPT_SHARE = 0.05
"""Of all tokens: the line of TGV-KV's Figure 1 (c)."""


@dataclass(frozen=True)
class Asked:
    """Questions of one task, and the names that their rows carry."""

    task: str
    seed: int
    items: Sequence[TaskItem]

    def probe(
        self,
        vlm: VLM,
        quantities: str | Quantity | Iterable[str | Quantity],
        layers: Sequence[int] | None = None,
        compressor: Compressor | None = None,
    ) -> xr.Dataset:
        """Probe the model on these questions."""
        images = [list(item.pictures) for item in self.items]
        questions = [item.question for item in self.items]
        return probe(
            vlm,
            images,
            questions,
            quantities,
            layers,
            videos=[item.videos for item in self.items],
            compressor=compressor,
            seed=self.seed,
        )

    def named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows with model, task, seed and item in front, ``item`` in place of ``sample``."""
        number = [self.items[int(sample)].index for sample in frame["sample"]]
        frame = frame.drop(columns="sample")
        frame.insert(0, "item", number)
        frame.insert(0, "seed", self.seed)
        frame.insert(0, "task", self.task)
        return frame


def ask(tasks: Tasks, samples: int, seed: int) -> list[Asked]:
    """The questions of some tasks.

    Raises:
        UnknownNameError, InvalidValueError, InputError: As the tasks say.
    """
    wanted = [task(one) if isinstance(one, str) else one for one in tasks]
    return [Asked(one.name, seed, one.items(samples, seed)) for one in wanted]


def tabled(
    name: str,
    vlm: VLM,
    tasks: Tasks,
    samples: int,
    seed: int,
    parameters: Mapping[str, Any],
    store: Store | None,
    measure: Callable[[Asked], pd.DataFrame],
) -> pd.DataFrame:
    """A table over tasks, from the store if it is there.

    Args:
        name: Of the study.
        vlm: The model.
        tasks: What is asked.
        samples: Questions per task.
        seed: Which questions.
        parameters: What the table depends on besides.
        store: Where it is kept.
        measure: From the questions of one task to rows.
    """
    wanted = [task(one) if isinstance(one, str) else one for one in tasks]
    configuration = model_configuration(vlm) | {
        "tasks": [[one.name, one.fingerprint] for one in wanted],
        "samples": samples,
        "seed": seed,
        **{key: provenance.described(value) for key, value in parameters.items()},
    }

    def compute() -> pd.DataFrame:
        import pandas as pd

        parts = [measure(asked) for asked in ask(tasks, samples, seed)]
        frame = pd.concat(parts, ignore_index=True)
        frame.insert(0, "model", vlm.name)
        return frame

    parts = (vlm.family, *wanted, *parameters.values())
    return remembered(name, store, configuration, compute, parts=parts)


@register
def modality_gap(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    share: float = KEPT_SHARE,
    map_layer: int = 2,
    store: Store | None = None,
) -> pd.DataFrame:
    """Text against vision: similarity, attention, what eviction by accumulated attention takes.

    Args:
        vlm: The model.
        tasks: What is asked.
        samples: Questions per task.
        seed: Which questions.
        share: Of the tokens that ranking by accumulated attention keeps.
        map_layer: Layer of which the first question's map is kept.
        store: Where the table is kept.

    Returns:
        Question rows with ``panel``, ``layer`` and ``value``, by panel: "similarity" (``kind``,
        ``k``: mean cosine), "block" (``kind`` is the block: mean attention), "evicted" (``kind``:
        share of its tokens evicted), "accumulated" (``kind``, ``position``, ``kept``; no layer),
        "centroid distance" and "separability", and "map" (``position`` is the query, ``key``).
    """
    layer = min(map_layer, vlm.facts.layers - 1)

    def measure(asked: Asked) -> pd.DataFrame:
        import pandas as pd

        wanted = ["local_similarity", "block_mean", "accumulated_attention", "hidden"]
        data = asked.probe(vlm, wanted)
        apart = gap.separation(data)
        parts = [
            gap.similarity(data).assign(panel="similarity"),
            gap.blocks(data).rename(columns={"block": "kind"}).assign(panel="block"),
            gap.evicted(data, share).assign(panel="evicted"),
            gap.accumulated(data, share).assign(panel="accumulated"),
            apart.rename(columns={"measure": "panel"}),
            _maps(_first(asked), vlm, [layer]).assign(panel="map"),
        ]
        return asked.named(pd.concat(parts, ignore_index=True))

    parameters = {"share": share, "map_layer": layer}
    return tabled("modality_gap", vlm, tasks, samples, seed, parameters, store, measure)


@register
def attention_maps(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    samples: int = MAPPED,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    store: Store | None = None,
) -> pd.DataFrame:
    """The map of the first question at several depths, and what maps of many have in common.

    Args:
        vlm: The model.
        tasks: What is asked.
        samples: Questions per task; maps are kept of the first.
        layers: Which layers; None for layer 1, one in the middle and the last.
        seed: Which questions.
        store: Where the table is kept.

    Returns:
        Question rows with ``panel``, ``layer``, ``key``, ``token`` (text of the key; "" for
        patches) and ``value``: "map" (also ``position``, the query; ``kind`` and ``key_kind``) is
        the head-mean attention, "weight" the normalised weight of Eq. 7 of each text token. Of all
        questions: "heaviest" (also ``shuffled``; see :func:`analysis.probing.dominance.heaviest`)
        and "trough" (see :func:`analysis.probing.dominance.troughs`).
    """
    last = vlm.facts.layers - 1
    depths = sorted({min(1, last), (1 + last) // 2, last})
    mapped = depths if layers is None else list(layers)

    def measure(asked: Asked) -> pd.DataFrame:
        import pandas as pd

        first = _first(asked)
        data = first.probe(vlm, "text_weight", mapped)
        weights = gap.tidy(data["text_weight"]).dropna()
        texts = data.key_text.values[0]
        weights["token"] = [texts[key] for key in weights["key"]]
        maps = _maps(first, vlm, mapped)
        every = asked.probe(vlm, ["attention_map", "block_mean"], mapped)
        parts = [
            maps.assign(panel="map"),
            weights.assign(panel="weight"),
            dominance.heaviest(every, seed).assign(panel="heaviest"),
            dominance.troughs(every).assign(panel="trough"),
        ]
        return asked.named(pd.concat(parts, ignore_index=True))

    parameters = {"layers": mapped}
    return tabled("attention_maps", vlm, tasks, samples, seed, parameters, store, measure)


def _first(asked: Asked) -> Asked:
    return Asked(asked.task, asked.seed, asked.items[:1])


def _maps(asked: Asked, vlm: VLM, layers: Sequence[int]) -> pd.DataFrame:
    """Causal pairs of the maps of one question, to 1e-7, with the kinds of both tokens."""
    data = asked.probe(vlm, "attention_map", layers)
    frame = gap.tidy(data["attention_map"]).rename(columns={"query": "position"})
    frame = frame[frame["key"] <= frame["position"]]
    kinds, texts = data.key_kind.values[0], data.key_text.values[0]
    patch = kinds == "vision"
    return frame.assign(
        value=frame["value"].astype(float).round(7),
        kind=kinds[frame["position"]],
        key_kind=kinds[frame["key"]],
        token=np.where(patch, "", texts)[frame["key"]],
    )
