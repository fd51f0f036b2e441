"""L-F2, L-F5 and T-F3: one real run taken apart, step by step and layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import provenance
from analysis.probing import modality_gap as gap
from analysis.probing.grounding import grid_numbers
from analysis.studies.base import Tasks, model_configuration, register, remembered
from analysis.studies.probing import Asked, ask
from analysis.tasks import TaskItem, task
from lightkv import TGVKV, LightKV
from lightkv.contract.groups import gather_groups
from lightkv.contract.layout import TokenKind
from lightkv.contract.similarity import cosine
from lightkv.engine.plan import Plan
from lightkv.merging.matching import split_alternate
from lightkv.merging.schedule import scaled

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store
    from lightkv import VLM
    from lightkv.contract.compressor import Compressor
    from lightkv.contract.view import LayerView, ModelFacts
    from lightkv.engine.record import RunRecord

DEFAULT_TASKS = ("embedded/read",)
RETENTION = 0.1


@register
def window_steps(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    seed: int = 0,
    store: Store | None = None,
) -> pd.DataFrame:
    """One window of LightKV's first stage: its two sets, every edge, and what became of each token.

    The window is the one of the first question's picture that holds most of what the answer depends
    on.

    Args:
        vlm: The model.
        tasks: The first question of the first task is asked.
        seed: Which first question.
        store: Where the table is kept.

    Returns:
        Columns model, task, seed, item, layer (after which the stage acts), grid_rows, grid_cols
        (of the picture), ratio and ``panel``. "token": one row a token of the window with row, col,
        ``set`` ("A", "B"), ``importance`` (Eq. 7), ``weight`` (in the token it ends in) and
        target_row, target_col (where that sits). "edge": one row a pair of A and B with row, col,
        other_row, other_col, ``divergence`` (Eq. 5), ``nearest`` (of that A token) and ``merged``
        (in the run).
    """
    light = LightKV.of(scaled(vlm.facts.layers))

    def compute(asked: Asked) -> pd.DataFrame:
        import pandas as pd

        seen = _Seen(light)
        item = asked.items[0]
        generation = vlm.generate(
            vlm.encode([item.request()]),
            light,
            seed=asked.seed,
            observers=(seen,),
            max_new_tokens=1,
            do_sample=False,
        )
        return pd.DataFrame(list(seen.rows(item, generation.records[0])))

    return _table("window_steps", vlm, tasks, seed, light, store, compute)


@register
def stage_plan(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    seed: int = 0,
    store: Store | None = None,
) -> pd.DataFrame:
    """What LightKV's plan does at each layer, and what a run really did there.

    Args:
        vlm: The model.
        tasks: The first question of the first task is asked.
        seed: Which first question.
        store: Where the table is kept.

    Returns:
        Columns model, task, seed, item, layer, ``stage`` (whether the plan shortens the sequence
        after it), windows (per side, of such a stage), ``attention`` (whether the plan reads its
        attention), tokens and vision (processed), and entries (held after prefill).
    """
    light = LightKV.of(scaled(vlm.facts.layers))

    def compute(asked: Asked) -> pd.DataFrame:
        import pandas as pd

        record = _record(vlm, asked.items[0], light, asked.seed)
        return pd.DataFrame(list(_layers(vlm.facts, light, record)))

    return _table("stage_plan", vlm, tasks, seed, light, store, compute)


@register
def ranked_entries(
    vlm: VLM,
    *,
    tasks: Tasks = DEFAULT_TASKS,
    seed: int = 0,
    retention: float = RETENTION,
    store: Store | None = None,
) -> pd.DataFrame:
    """TGV-KV's three parts in one run: budgets, weights and scores, and what stays.

    Args:
        vlm: The model.
        tasks: The first question of the first task is asked.
        seed: Which first question.
        retention: Share of the cache that stays.
        store: Where the table is kept.

    Returns:
        One row per layer and prompt position: model, task, seed, item, layer, position, kind
        ("system", "vision", "text"), row, col, token, ``weight`` (of text, Eq. 7), ``score`` (of
        vision, Eq. 8), kept, requested (the layer's budget) and text_vision (its share of the
        attention from text to vision).
    """
    evictor = TGVKV(retention=retention)

    def compute(asked: Asked) -> pd.DataFrame:
        import pandas as pd

        data = asked.probe(vlm, ["block_sum", "text_weight", "twr_score"])
        mass = gap.tidy(data["block_sum"].sel(block="TV")).set_index("layer")["value"]
        weight = gap.tidy(data["text_weight"]).set_index(["layer", "key"])["value"]
        score = gap.tidy(data["twr_score"]).set_index(["layer", "key"])["value"]
        record = _record(vlm, asked.items[0], evictor, asked.seed)
        layout, texts = record.layout, data.key_text.values[0]
        rows = []
        for layer in record.layers:
            kept = set(layer.kept.flatten().tolist())
            for place in range(layout.length):
                kind = TokenKind(int(layout.kind[0, place])).name.lower()
                at = layer.layer, place
                rows.append(
                    {
                        "layer": layer.layer,
                        "position": place,
                        "kind": kind,
                        "row": int(layout.row[0, place]),
                        "col": int(layout.col[0, place]),
                        "token": "" if kind == "vision" else str(texts[place]),
                        "weight": float(weight.get(at, float("nan"))) if kind == "text" else None,
                        "score": float(score.get(at, float("nan"))) if kind == "vision" else None,
                        "kept": place in kept,
                        "requested": layer.requested,
                        "text_vision": float(mass[layer.layer] / mass.sum()),
                    }
                )
        return pd.DataFrame(rows).astype({"weight": float, "score": float})

    return _table("ranked_entries", vlm, tasks, seed, evictor, store, compute)


def _table(
    name: str,
    vlm: VLM,
    tasks: Tasks,
    seed: int,
    method: Compressor,
    store: Store | None,
    compute: Callable[[Asked], pd.DataFrame],
) -> pd.DataFrame:
    """The table of the first question of the first task, from the store if it is there."""
    first = task(tasks[0]) if isinstance(tasks[0], str) else tasks[0]
    configuration = model_configuration(vlm) | {
        "task": [first.name, first.fingerprint],
        "method": provenance.described(method),
        "seed": seed,
    }

    def tabulate() -> pd.DataFrame:
        asked = ask([first], 1, seed)[0]
        frame = compute(asked)
        frame.insert(0, "item", asked.items[0].index)
        frame.insert(0, "seed", seed)
        frame.insert(0, "task", first.name)
        frame.insert(0, "model", vlm.name)
        return frame

    return remembered(name, store, configuration, tabulate, (first, method, vlm.family))


def _record(vlm: VLM, item: TaskItem, compressor: Compressor, seed: int) -> RunRecord:
    inputs = vlm.encode([item.request()])
    generation = vlm.generate(inputs, compressor, seed=seed, max_new_tokens=1, do_sample=False)
    return generation.records[0]


def _layers(facts: ModelFacts, light: LightKV, record: RunRecord) -> Iterator[dict[str, Any]]:
    """Layer by layer what the plan says and what the record holds."""
    plan, windows = Plan.of(light, facts), dict(zip(light.layers, light.windows, strict=True))
    text = int((record.layout.kind[0] != TokenKind.VISION).sum())
    for layer in record.layers:
        yield {
            "layer": layer.layer,
            "stage": layer.layer in plan.reducers,
            "windows": windows.get(layer.layer, float("nan")),
            "attention": layer.layer in plan.attention,
            "tokens": layer.length,
            "vision": layer.length - text,
            "entries": layer.entries,
        }


class _Seen:
    """Keeps the view that LightKV's first stage is shown."""

    def __init__(self, light: LightKV) -> None:
        self.light = light

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        """The first stage's layer."""
        return self.light.layers[:1]

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        """The same."""
        return self.layers(facts)

    def see(self, view: LayerView) -> None:
        """Keep the importance and the states: the view itself is only valid now."""
        self.importance = self.light.importance(view)[0].cpu()
        self.hidden = view.hidden[0].float().cpu()
        self.labels = self.light.windows_of(view).labels()[0]
        self.layout = view.layout

    def rows(self, item: TaskItem, record: RunRecord) -> Iterator[dict[str, Any]]:
        """Tokens and edges of the window that holds most of what is asked."""
        layout = self.layout.host
        grids = grid_numbers(layout.image[0].numpy(), layout.frame[0].numpy()).tolist()
        row, col = (part[0].tolist() for part in (layout.row, layout.col))
        places = zip(grids, row, col, strict=True)
        inside = np.array([place in item.cells for place in places])
        windows = self.labels.max() + 1
        asked = np.bincount(self.labels[(self.labels >= 0) & inside], minlength=windows)
        members = np.where(self.labels == asked.argmax(), 0, -1)[None]
        sources, targets = split_alternate(gather_groups(members).index)
        layer, grid = self.light.layers[0], record.layout.grids[0][0]
        common = {
            "layer": layer,
            "grid_rows": grid.rows,
            "grid_cols": grid.cols,
            "ratio": self.light.ratios[0],
        }
        provenance = record.layers[layer + 1].provenance
        assert provenance is not None  # noqa: S101
        into = provenance.index[0, provenance.target[0]]
        for name, part in (("A", sources), ("B", targets)):
            for place in part[0].tolist():
                end = int(into[place])
                yield {
                    **common,
                    "panel": "token",
                    "row": row[place],
                    "col": col[place],
                    "set": name,
                    "importance": float(self.importance[place]),
                    "weight": float(provenance.weight[0, place]),
                    "target_row": row[end],
                    "target_col": col[end],
                }
        ours, theirs = sources[0], targets[0]
        divergence = 1 - cosine(self.hidden[ours][None], self.hidden[theirs][None])[0]
        for a, line in zip(ours.tolist(), divergence.tolist(), strict=True):
            for b, value in zip(theirs.tolist(), line, strict=True):
                yield {
                    **common,
                    "panel": "edge",
                    "row": row[a],
                    "col": col[a],
                    "other_row": row[b],
                    "other_col": col[b],
                    "divergence": value,
                    "nearest": value == min(line),
                    "merged": int(into[a]) == b,
                }
