"""X-4: does a method look at, and keep, the cells that hold what was asked?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from analysis.probing.grounding import grounding, word_weight
from analysis.studies.base import Tasks, register
from analysis.studies.probing import Asked, tabled
from lightkv import TGVKV, LightKV
from lightkv.catalogue import method
from lightkv.contract.compressor import Compressor
from lightkv.embedded.vocabulary import COLORS, COLUMNS, PLURALS, ROWS, SHAPES
from lightkv.merging.schedule import scaled

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store
    from lightkv import VLM

DEFAULT_TASKS = ("embedded/color", "embedded/read")
DEFAULT_SAMPLES = 12
ASKED_WORDS = frozenset((*COLORS, *SHAPES, *PLURALS.values(), *ROWS, *COLUMNS, "number"))
"""Words of the embedded questions that say what is asked about."""


@register
def grounding_profile(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    retention: float = 0.1,
    words: frozenset[str] = ASKED_WORDS,
    methods: Mapping[str, Compressor] | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    """Attention, ranking scores and kept entries on the asked cells; text weight on asked words.

    Args:
        vlm: The model.
        tasks: What is asked; their items must know the cells.
        samples: Questions per task.
        seed: Which questions.
        retention: Of the evictors whose kept entries are scored.
        words: Words that count as asked.
        methods: Methods whose kept entries are scored; None for TGV-KV, SnapKV and random eviction
            at ``retention``, and LightKV at the paper's schedule.
        store: Where the table is kept.

    Returns:
        Question rows with ``panel``, ``score``, ``layer``, ``share``, ``chance``, ``lift``, and
        ``auc`` for "cells", ``top`` (whether the heaviest word is an asked one) for "words". The
        scores of "cells" are "TV attention", "TWR score", "accumulated attention" and "kept by
        ..." per method.
    """
    compared = methods if methods is not None else _methods(vlm, retention)

    def measure(asked: Asked) -> pd.DataFrame:
        import pandas as pd

        cells = [item.cells for item in asked.items]
        wanted = ["column_sum", "twr_score", "accumulated_attention", "text_weight"]
        data = asked.probe(vlm, wanted)
        scores = {
            "TV attention": data["column_sum"].sel(source="text"),
            "TWR score": data["twr_score"],
            "accumulated attention": data["accumulated_attention"],
        }
        parts = [
            grounding(values, data, cells).assign(panel="cells", score=name)
            for name, values in scores.items()
        ]
        for name, compressor in compared.items():
            kept = asked.probe(vlm, "kept", compressor=compressor)
            frame = grounding(kept["kept"], kept, cells)
            parts.append(frame.assign(panel="cells", score=f"kept by {name}"))
        parts.append(word_weight(data, words).assign(panel="words", score="text weight"))
        return asked.named(pd.concat(parts, ignore_index=True))

    parameters = {"methods": dict(compared), "words": sorted(words)}
    return tabled("grounding_profile", vlm, tasks, samples, seed, parameters, store, measure)


def _methods(vlm: VLM, retention: float) -> dict[str, Compressor]:
    return {
        "TGV-KV": TGVKV(retention=retention),
        "SnapKV": method("snapkv", retention, window=8),
        "random": method("random", retention),
        "LightKV": LightKV.of(scaled(vlm.facts.layers)),
    }
