"""T-T4: what eviction does to memory and to the time of a decode step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from analysis.asking.rows import VANILLA
from analysis.studies.base import Tasks, model_configuration, register, remembered
from analysis.tasks import task
from analysis.timing.latency import LatencySettings, lengthened, machine_name, measure_latency
from lightkv import TGVKV
from lightkv.cost.presets import preset
from lightkv.cost.workload import Workload, workload_cost

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.store import Store
    from lightkv import VLM

PAPER_MODEL = "llava-1.5-7b"
PAPER_CONTEXTS: Mapping[str, int] = {"gib_8k": 8000, "gib_16k": 16000}


@register
def decode_latency(
    vlm: VLM,
    *,
    retentions: tuple[float, ...] = (0.5, 0.1, 0.05),
    context: int | None = None,
    measuring: LatencySettings | None = None,
    tasks: Tasks = ("embedded/read",),
    seed: int = 0,
    store: Store | None = None,
) -> pd.DataFrame:
    """Time per decode step and throughput of the full cache and of TGV-KV, on this machine.

    A table that the store holds for this machine is not measured again.

    Args:
        vlm: The model.
        retentions: Shares of the cache that TGV-KV keeps.
        context: The question is repeated until the prompt has that many tokens; None: as it is.
        measuring: How often and how long.
        tasks: The first question of the first task is asked.
        seed: Which first question.
        store: Where the table is kept.

    Returns:
        Rows of :func:`~analysis.timing.latency.measure_latency` with ``retention`` (1 for the full
        cache), and ``gib_8k`` and ``gib_16k``: KV memory computed for LLaVA-1.5-7B at contexts of
        8,000 and 16,000 tokens, whatever the measured model is.
    """
    chosen = LatencySettings() if measuring is None else measuring
    source = task(tasks[0]) if isinstance(tasks[0], str) else tasks[0]
    configuration = model_configuration(vlm) | {
        "machine": machine_name(vlm.device),
        "retentions": retentions,
        "context": context,
        "measuring": repr(chosen),
        "task": [source.name, source.fingerprint],
        "seed": seed,
    }

    def compute() -> pd.DataFrame:
        request = source.items(1, seed)[0].request()
        asked = request if context is None else lengthened(vlm, request, context)
        labels = {VANILLA: 1.0} | {f"tgvkv {100 * r:g} %": r for r in retentions}
        methods = {k: None if r == 1 else TGVKV(retention=r) for k, r in labels.items()}
        frame = measure_latency(vlm, methods, asked, chosen)
        frame["retention"] = frame["method"].map(labels)
        for name, tokens in PAPER_CONTEXTS.items():
            memory = {r: _paper_memory(tokens, r) for r in labels.values()}
            frame[name] = frame["retention"].map(memory)
        return frame

    return remembered("decode_latency", store, configuration, compute, parts=(vlm.family, source))


def _paper_memory(context: int, retention: float) -> float:
    """KV memory in GiB of the paper's model, prefill only, at 2 bytes per number."""
    model = preset(PAPER_MODEL)
    prompt: dict[str, Any] = {
        "vision_tokens": model.vision_tokens,
        "prompt_tokens": context - model.vision_tokens,
        "generated_tokens": 0,
    }
    kept = None if retention == 1 else retention
    return workload_cost(model.shape, Workload(**prompt), retention=kept).kv.gib
