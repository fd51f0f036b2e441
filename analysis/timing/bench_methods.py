"""What each method adds to a decoder layer of real dimensions: time and memory, in one run.

Everything is measured in rounds: each round runs the layer's prefill once and every part of every
method once, starting elsewhere each time, so that a machine that gets slower or faster does so
for all of them. A ratio compares a part with the layer's forward pass of the same round.

* *stage*: one stage of a method that shortens the sequence, at its first stage layer: deciding,
  and cutting hidden states, positions and rotary embeddings for the next layer.
* *scoring*: what an evictor reads of one layer.
* *retention*: what it decides after prefill, and cutting keys and values; per layer of a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from analysis.provenance import answering_versions
from analysis.timing.bench_layer import BenchLayer, BenchSettings
from analysis.timing.latency import machine_name, now
from analysis.timing.memory import memory_kind, peak_rise
from analysis.timing.method_costs import Cost, MethodsBench
from lightkv import catalogue
from lightkv.catalogue import composed, read
from lightkv.contract.compressor import Compressor, Evictor, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import RETENTION
from lightkv.engine.shortening import Shortening
from lightkv.errors import LightKVError

STAGE, SCORING, RETAINING = "stage", "scoring", "retention"
RETAINED_LAYERS = 4


@dataclass(frozen=True)
class _Work:
    """A call to measure; its time is divided by ``times``."""

    method: str
    part: str
    call: Callable[[], object]
    times: int = 1


def measure_methods(
    methods: Sequence[str] = (), settings: BenchSettings | None = None, *, progress: bool = False
) -> MethodsBench:
    """Measure methods against the layer's forward pass.

    Args:
        methods: Methods as text, see :mod:`lightkv.catalogue`; compositions are measured part by
            part. Default: every registered one, where those that don't fit the setting are
            listed with the reason.
        settings: What is measured, and how often.
        progress: Show a bar.

    Raises:
        UnknownNameError, InvalidValueError: A method is not known or, if it was named, does not
            fit the setting; nothing has run yet.
    """
    measuring = BenchSettings() if settings is None else settings
    refused: dict[str, str] = {}
    fitting = _fitting(methods, measuring, refused)
    with torch.inference_mode():
        return _measure(fitting, measuring, refused, progress)


def _fitting(
    methods: Sequence[str], settings: BenchSettings, refused: dict[str, str]
) -> dict[str, Compressor]:
    """Methods by label, checked against model and prompt."""
    layout = settings.layout()
    split = [one.strip() for text in methods for one in text.split("|")]
    fitting: dict[str, Compressor] = {}
    for label in dict.fromkeys(split or catalogue.methods()):
        try:
            fitting[label] = _checked(label, settings, layout)
        except LightKVError as error:
            if methods:
                raise
            refused[label] = str(error)
    return fitting


def _checked(label: str, settings: BenchSettings, layout: TokenLayout) -> Compressor:
    compressor = composed(read(label, settings.facts), {RETENTION: settings.retention})
    compressor.check(settings.facts)
    compressor.check_layout(layout)
    return compressor


def _measure(
    methods: Mapping[str, Compressor],
    settings: BenchSettings,
    refused: dict[str, str],
    progress: bool,
) -> MethodsBench:
    from tqdm.auto import tqdm

    layer = BenchLayer(settings)
    plain = _Work("", "layer", layer.forward)
    layer_peak = peak_rise(plain.call, layer.device)
    works: list[_Work] = []
    peaks: list[int] = []
    with tqdm(total=len(methods), unit="method", disable=not progress, desc="memory") as bar:
        for label, compressor in methods.items():
            try:
                pieces = list(_works(label, compressor, layer))
                rises = [peak_rise(work.call, layer.device) for work in pieces]
            except LightKVError as error:
                refused[label] = str(error)
            else:
                works += pieces
                peaks += rises
            bar.update()
    every = [plain, *works]
    times: list[list[float]] = [[] for _ in every]
    total = settings.repeats * len(every)
    with tqdm(total=total, unit="run", disable=not progress, desc="time") as bar:
        for number in range(settings.repeats):
            shift = number * len(every) // settings.repeats
            for place in range(len(every)):
                which = (place + shift) % len(every)
                times[which].append(_seconds(every[which], layer.device))
                bar.update()
    costs = tuple(
        Cost(work.method, work.part, tuple(seconds), peak)
        for work, seconds, peak in zip(works, times[1:], peaks, strict=True)
    )
    return MethodsBench(_setting(layer), tuple(times[0]), layer_peak, costs, refused)


def _seconds(work: _Work, device: torch.device) -> float:
    start = now(device)
    result = work.call()
    end = now(device)
    # Freed only now: giving memory back is not part of the work.
    del result
    return (end - start) / work.times


def _works(label: str, compressor: Compressor, layer: BenchLayer) -> Iterator[_Work]:
    """What there is to measure of one method."""
    for part in compressor.parts:
        if isinstance(part, Reducer):
            yield _Work(label, STAGE, _stage(part, layer))
        else:
            yield _Work(label, SCORING, _scoring(part, layer))
            yield _Work(label, RETAINING, _retaining(part, layer), RETAINED_LAYERS)


def _stage(reducer: Reducer, layer: BenchLayer) -> Callable[[], object]:
    number = reducer.stage_layers(layer.facts)[0]

    def run() -> object:
        view = layer.view(number, ahead=reducer.looks_ahead())
        sequence = Shortening(layer.layout, None, None)
        reduction = reducer.reduce(view)
        states = reducer.states(view, reduction)
        sequence.reduce(reduction, reducer.position_rule(), states)
        arguments = {"position_embeddings": layer.rotary, "position_ids": layer.position_ids}
        return sequence.inputs((view.hidden,), arguments)

    return run


def _scoring(evictor: Evictor, layer: BenchLayer) -> Callable[[], object]:
    return lambda: evictor.observe(layer.view(layer.facts.layers // 2))


def _retaining(evictor: Evictor, layer: BenchLayer) -> Callable[[], object]:
    # Every layer saw the same, which does not change what there is to do.
    seen = [evictor.observe(layer.view(layer.facts.layers // 2))] * RETAINED_LAYERS

    def run() -> None:
        for retention in evictor.retain(seen):
            retention.apply(layer.keys)
            retention.apply(layer.values)

    return run


def _setting(layer: BenchLayer) -> dict[str, Any]:
    settings, shape = layer.settings, layer.settings.dimensions
    batch, length = layer.layout.kind.shape
    numbers = batch * shape.heads * length * torch.float32.itemsize
    return {
        **{name: getattr(settings, name) for name in _KEPT},
        "hidden": shape.hidden,
        "intermediate": shape.intermediate,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "layers": shape.layers,
        "device": layer.device.type,
        "dtype": str(layer.dtype).removeprefix("torch."),
        "machine": machine_name(layer.device),
        "threads": torch.get_num_threads(),
        "map_bytes": numbers * length,
        "text_rows_bytes": numbers * settings.text,
        "memory_kind": memory_kind(layer.device),
        "date": time.strftime("%Y-%m-%d"),
        **{f"{name}_version": version for name, version in answering_versions().items()},
    }


_KEPT = ("shape", "tokens", "text", "batch_size", "retention", "repeats", "seed")
