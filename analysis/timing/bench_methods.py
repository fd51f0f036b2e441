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
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from analysis.provenance import answering_versions
from analysis.timing.bench_layer import BenchLayer, BenchSettings
from analysis.timing.latency import machine_name, now
from analysis.timing.memory import memory_kind, peak_rise
from lightkv import catalogue
from lightkv.catalogue import composed, read
from lightkv.contract.compressor import Compressor, Evictor, Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.registry import RETENTION
from lightkv.engine.shortening import Shortening
from lightkv.errors import LightKVError

if TYPE_CHECKING:
    import pandas as pd

STAGE, SCORING, RETAINING = "stage", "scoring", "retention"
RETAINED_LAYERS = 4


_COLUMNS = (
    "method",
    "part",
    "repeat",
    "seconds",
    "layer_seconds",
    "ratio",
    "peak_bytes",
    "reason",
)


@dataclass(frozen=True)
class Cost:
    """Measurements of one part of a method.

    Attributes:
        method: The method as text.
        part: "stage", "scoring" or "retention".
        seconds: One number per round.
        peak_bytes: Memory beyond what is held before, results included; for "retention" with the
            decisions of all layers that it was measured on.
    """

    method: str
    part: str
    seconds: tuple[float, ...]
    peak_bytes: int


@dataclass(frozen=True)
class MethodsBench:
    """A finished measurement.

    Attributes:
        setting: Dimensions, device, dtype, threads, versions and the like.
        layer_seconds: The layer's forward pass, one number per round.
        layer_peak_bytes: Its memory, without weights and input.
        costs: What methods cost.
        refused: Methods that could not be measured, with the reason.
    """

    setting: Mapping[str, Any]
    layer_seconds: tuple[float, ...]
    layer_peak_bytes: int
    costs: tuple[Cost, ...]
    refused: Mapping[str, str]

    def frame(self) -> pd.DataFrame:
        """One row per method, part and round: seconds, layer_seconds, ratio, peak_bytes and the
        setting; a refused method has one row with its ``reason``."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for cost in self.costs:
            times = zip(cost.seconds, self.layer_seconds, strict=True)
            for number, (seconds, layer) in enumerate(times):
                row = {"method": cost.method, "part": cost.part, "repeat": number}
                row |= {"seconds": seconds, "layer_seconds": layer, "ratio": seconds / layer}
                rows.append(row | {"peak_bytes": cost.peak_bytes, "reason": ""})
        rows += [{"method": name, "reason": why} for name, why in self.refused.items()]
        return pd.DataFrame(rows, columns=_COLUMNS).assign(**self.setting)

    def summary(self) -> pd.DataFrame:
        """One row per method and part: median, first and third quartile of the ratio to the
        layer, median milliseconds, peak MiB and its ratio to an N x N map of all heads."""
        import pandas as pd

        map_bytes = self.setting["map_bytes"]
        rows = []
        for (method, part), group in self.frame().groupby(["method", "part"], sort=False):
            peak = group["peak_bytes"].iloc[0]
            rows.append(
                {
                    "method": method,
                    "part": part,
                    "of_layer": group["ratio"].median(),
                    "low": group["ratio"].quantile(0.25),
                    "high": group["ratio"].quantile(0.75),
                    "ms": 1000 * group["seconds"].median(),
                    "peak_mib": peak / 2**20,
                    "of_map": peak / map_bytes,
                }
            )
        return pd.DataFrame(rows)

    def content(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "setting": dict(self.setting),
            "layer": {
                "seconds": list(self.layer_seconds),
                "peak_bytes": self.layer_peak_bytes,
            },
            "costs": [asdict(cost) for cost in self.costs],
            "refused": dict(self.refused),
        }


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
    chosen = BenchSettings() if settings is None else settings
    refused: dict[str, str] = {}
    fitting = _fitting(methods, chosen, refused)
    with torch.inference_mode():
        return _measure(fitting, chosen, refused, progress)


def _fitting(
    methods: Sequence[str], settings: BenchSettings, refused: dict[str, str]
) -> dict[str, Compressor]:
    """Methods by label, checked against model and prompt."""
    layout = settings.layout()
    split = [one.strip() for text in methods for one in text.split("|")]
    found: dict[str, Compressor] = {}
    for label in dict.fromkeys(split or catalogue.methods()):
        try:
            found[label] = _checked(label, settings, layout)
        except LightKVError as error:
            if methods:
                raise
            refused[label] = str(error)
    return found


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
                found = list(_works(label, compressor, layer))
                rises = [peak_rise(work.call, layer.device) for work in found]
            except LightKVError as error:
                refused[label] = str(error)
            else:
                works += found
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
        given = {"position_embeddings": layer.rotary, "position_ids": layer.position_ids}
        return sequence.inputs((view.hidden,), given)

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
