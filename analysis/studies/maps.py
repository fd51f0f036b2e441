"""T-F5, L-F3, L-F7: which entries stay in each layer, and which patches end in one token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from analysis import provenance
from analysis.probing.grounding import grid_numbers
from analysis.studies.base import model_configuration, register, remembered
from analysis.tasks import Task, TaskItem, task
from lightkv import TGVKV, LightKV
from lightkv.contract.compressor import Compressor
from lightkv.contract.layout import TokenKind, TokenLayout
from lightkv.engine.record import RunRecord
from lightkv.merging.schedule import scaled

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store
    from lightkv import VLM

DEFAULT_TASK = "embedded/read"
DEFAULT_SAMPLES = 12
RETENTIONS = (0.03, 0.1)
_BATCH = 12


@register
def kept_maps(
    vlm: VLM,
    *,
    tasks: Sequence[str | Task] = (DEFAULT_TASK,),
    retentions: Sequence[float] = RETENTIONS,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    store: Store | None = None,
) -> pd.DataFrame:
    """Per layer and prompt position whether the entry is kept.

    Args:
        vlm: The model.
        tasks: Where the questions come from.
        retentions: Shares of the cache that TGV-KV keeps. At the paper's 3 % a short prompt such
            as the embedded model's leaves the text and hardly a patch.
        samples: Questions per task.
        seed: Which questions.
        store: Where the table is kept.

    Returns:
        Columns model, task, seed, item, layer, position, kind ("system", "vision", "text",
        "separator"), row, col (-1 where it is not a patch), token, about (whether the answer
        depends on the patch, where the task knows), kept (by any head) and retention.
    """
    import pandas as pd

    def rows(item: TaskItem, tokens: list[str], record: RunRecord) -> Iterator[dict[str, Any]]:
        entries = _entries(record.layout, tokens, item)
        for layer in record.layers:
            kept = set(layer.kept.flatten().tolist())
            for entry in entries:
                yield {**entry, "layer": layer.layer, "kept": entry["position"] in kept}

    parts = []
    for retention in retentions:
        evictor = TGVKV(retention=retention)
        part = _map_table("kept_maps", vlm, tasks, evictor, samples, seed, store, rows)
        parts.append(part.assign(retention=retention))
    return pd.concat(parts, ignore_index=True)


@register
def merge_maps(
    vlm: VLM,
    *,
    tasks: Sequence[str | Task] = (DEFAULT_TASK,),
    compressor: LightKV | None = None,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    store: Store | None = None,
) -> pd.DataFrame:
    """Per stage and patch the token that the patch has ended in.

    Args:
        vlm: The model.
        tasks: Where the questions come from.
        compressor: The method; None for the paper's schedule at this model's depth.
        samples: Questions per task.
        seed: Which questions.
        store: Where the table is kept.

    Returns:
        Columns model, task, seed, item, stage (from 1), layer (after which it acts), windows (per
        side), row, col, target_row, target_col (the cell that the patch's token sits at) and
        weight (of the patch in that token).
    """
    method = LightKV.of(scaled(vlm.facts.layers)) if compressor is None else compressor

    def rows(item: TaskItem, tokens: list[str], record: RunRecord) -> Iterator[dict[str, Any]]:
        for stage, (layer, count) in enumerate(
            zip(method.layers, method.windows, strict=True), start=1
        ):
            for patch in _merged(record, layer + 1):
                yield {"stage": stage, "layer": layer, "windows": count, **patch}

    return _map_table("merge_maps", vlm, tasks, method, samples, seed, store, rows)


def _map_table(
    name: str,
    vlm: VLM,
    tasks: Sequence[str | Task],
    compressor: Compressor,
    samples: int,
    seed: int,
    store: Store | None,
    rows: Any,
) -> pd.DataFrame:
    """Run the prefill of every question and make a table of what its record says."""
    import pandas as pd

    wanted = [task(one) if isinstance(one, str) else one for one in tasks]
    configuration = model_configuration(vlm) | {
        "tasks": [[one.name, one.fingerprint] for one in wanted],
        "parameters": provenance.described(compressor),
        "samples": samples,
        "seed": seed,
    }

    def compute() -> pd.DataFrame:
        listed = []
        for one in wanted:
            common = {"model": vlm.name, "task": one.name, "seed": seed}
            for item, tokens, record in _records(vlm, one, compressor, samples, seed):
                named = {**common, "item": item.index}
                listed += [{**named, **row} for row in rows(item, tokens, record)]
        return pd.DataFrame(listed)

    return remembered(name, store, configuration, compute, parts=(compressor, vlm.family, *wanted))


def _records(
    vlm: VLM, one: Task, compressor: Compressor, samples: int, seed: int
) -> Iterator[tuple[TaskItem, list[str], RunRecord]]:
    """Questions with the tokens of their prompts and the record of their prefill."""
    items = one.items(samples, seed)
    compressor.check(vlm.facts)
    for start in range(0, len(items), _BATCH):
        batch = items[start : start + _BATCH]
        inputs = vlm.encode([item.request() for item in batch], compressor)
        generation = vlm.generate(inputs, compressor, seed=seed, max_new_tokens=1, do_sample=False)
        for item, row, record in zip(batch, inputs["input_ids"], generation.records, strict=True):
            ids = row[-record.layout.length :].tolist()
            yield item, vlm.processor.tokenizer.convert_ids_to_tokens(ids), record


def _entries(layout: TokenLayout, tokens: Sequence[str], item: TaskItem) -> list[dict[str, Any]]:
    """What stands at each position of a prompt of one row."""
    layout = layout.host
    grids = grid_numbers(layout.image[0].numpy(), layout.frame[0].numpy()).tolist()
    kinds, rows, cols = (part[0].tolist() for part in (layout.kind, layout.row, layout.col))
    places = zip(tokens, kinds, grids, rows, cols, strict=True)
    return [
        {
            "position": position,
            "kind": TokenKind(kind).name.lower(),
            "row": row,
            "col": col,
            "token": "" if kind == TokenKind.VISION else token,
            "about": (grid, row, col) in item.cells,
        }
        for position, (token, kind, grid, row, col) in enumerate(places)
    ]


def _merged(record: RunRecord, layer: int) -> Iterator[dict[str, Any]]:
    """Patches of the prompt with the token they are part of when ``layer`` begins."""
    layout, provenance = record.layout, record.layers[layer].provenance
    rows, cols = layout.row[0].tolist(), layout.col[0].tolist()
    for position in layout.vision[0].nonzero()[:, 0].tolist():
        target, weight = position, 1.0
        if provenance is not None:
            target = int(provenance.index[0, provenance.target[0, position]])
            weight = float(provenance.weight[0, position])
        yield {
            "row": rows[position],
            "col": cols[position],
            "target_row": rows[target],
            "target_col": cols[target],
            "weight": weight,
        }
