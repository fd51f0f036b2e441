"""How long a request takes and how much memory: prefill and decoding apart, methods interleaved.

Every method generates the same number of tokens from the same prompt, in rounds: each round runs
every method once, starting with another one each time, so that a machine that gets slower or
faster does so for all of them. Time to the first token holds vision tower, prefill and
compression; image processing and tokenising come before and are left out. On a GPU every step is
waited for, as ``generate`` does itself to see whether an answer has ended. The full cache runs as
plain ``generate``; what the intervention graph costs is part of a method's time.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from lightkv.contract.compressor import Compressor
from lightkv.errors import InvalidValueError

if TYPE_CHECKING:
    import pandas as pd

    from lightkv import VLM, Request

GPU_MEMORY = "peak of torch.cuda memory allocated"
CPU_MEMORY = "rise of the process's resident memory, sampled"
_SAMPLING_SECONDS = 0.002


@dataclass(frozen=True)
class LatencySettings:
    """How latency is measured.

    Attributes:
        new_tokens: Tokens that every run generates, at least 2.
        batch_size: The prompt is asked that many times at once.
        warmup: Rounds that are not counted.
        repeats: Rounds that are.
        seed: Of methods that draw at random.
    """

    new_tokens: int = 32
    batch_size: int = 1
    warmup: int = 2
    repeats: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InvalidValueError(name, getattr(self, name), f"at least {least}")


_LEAST = {"new_tokens": 2, "batch_size": 1, "warmup": 0, "repeats": 1}


@dataclass
class Stopwatch:
    """A stopping criterion that never stops and notes when each token was there.

    Attributes:
        device: Whose work is waited for.
        times: Seconds, one per generated token.
    """

    device: torch.device
    times: list[float] = field(default_factory=list)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.times.append(now(self.device))
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def now(device: torch.device) -> float:
    """Seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure_latency(
    vlm: VLM,
    methods: Mapping[str, Compressor | None],
    request: Request,
    settings: LatencySettings | None = None,
) -> pd.DataFrame:
    """Latency, throughput, KV bytes and peak memory of every method.

    Args:
        vlm: The model.
        methods: Compressors by label, None for the full cache.
        request: What is asked.
        settings: How it is measured.

    Returns:
        One row per method and counted round: model, device, machine, dtype, attention, method,
        parameters, repeat, batch_size, context (prompt tokens), new_tokens, ttft_ms, step_ms
        (mean of the decode steps), throughput (tokens/s over the whole run), kv_bytes (after
        prefill, whole batch), kv_share, peak_bytes and memory_kind (what ``peak_bytes`` is).

    Raises:
        LightKVError: A method does not fit the model or the prompt; nothing was measured.
    """
    import pandas as pd

    measuring = LatencySettings() if settings is None else settings
    if not methods:
        raise InvalidValueError("methods", methods, "at least one method")
    prompts = [request] * measuring.batch_size
    layout = vlm.layout(vlm.encode(prompts))
    for compressor in methods.values():
        if compressor is not None:
            compressor.check(vlm.facts)
            compressor.check_layout(layout)
    inputs = {label: vlm.encode(prompts, compressor) for label, compressor in methods.items()}
    labels = list(methods)
    rows: list[dict[str, Any]] = []
    for number in range(measuring.warmup + measuring.repeats):
        shift = number % len(labels)
        for label in labels[shift:] + labels[:shift]:
            measured = _run(vlm, inputs[label], methods[label], measuring)
            if number >= measuring.warmup:
                repeat = {"method": label, "repeat": number - measuring.warmup}
                rows.append(repeat | measured)
    peaks = {label: _peak(vlm, inputs[label], methods[label], measuring) for label in labels}
    rows.sort(key=lambda row: (labels.index(row["method"]), row["repeat"]))
    frame = pd.DataFrame(rows).assign(
        model=vlm.name,
        device=vlm.device.type,
        machine=machine_name(vlm.device),
        dtype=str(vlm.dtype).removeprefix("torch."),
        attention=vlm.attention,
        batch_size=measuring.batch_size,
        context=int(layout.prompt_lengths.max()),
        new_tokens=measuring.new_tokens,
        memory_kind=GPU_MEMORY if vlm.device.type == "cuda" else CPU_MEMORY,
    )
    frame["parameters"] = frame["method"].map({k: repr(v) for k, v in methods.items()})
    frame["peak_bytes"] = frame["method"].map(peaks)
    return frame


def summarise_latency(frame: pd.DataFrame, baseline: str = "vanilla") -> pd.DataFrame:
    """Mean and standard deviation per method over its rounds, and change against a baseline.

    Returns:
        One row per method: ``<name>_mean`` and ``<name>_std`` of ttft_ms, step_ms and throughput,
        ``<name>_change`` (ratio to the baseline's mean, less 1; NaN without a baseline), kv_share,
        kv_bytes and peak_bytes.
    """
    names = ["ttft_ms", "step_ms", "throughput"]
    grouped = frame.groupby("method", sort=False)
    spread = grouped[names].agg(["mean", "std"])
    spread.columns = ["_".join(column) for column in spread.columns]
    for name in names:
        full = spread[f"{name}_mean"].get(baseline, float("nan"))
        spread[f"{name}_change"] = spread[f"{name}_mean"] / full - 1
    held = grouped[["kv_share", "kv_bytes", "peak_bytes"]].mean()
    return spread.join(held).reset_index()


def lengthened(vlm: VLM, request: Request, tokens: int) -> Request:
    """The request with its question repeated until the prompt has at least that many tokens."""
    from dataclasses import replace

    def length(times: int) -> int:
        longer = replace(request, question=" ".join([request.question] * times))
        return int(vlm.encode([longer])["input_ids"].shape[1])

    once = length(1)
    if once >= tokens:
        return request
    each = max(1, length(2) - once)
    times = 1 + -(-(tokens - once) // each)
    while length(times) < tokens:
        times += 1
    return replace(request, question=" ".join([request.question] * times))


def machine_name(device: torch.device) -> str:
    """The GPU's name, or the processor architecture and the number of threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def _run(
    vlm: VLM, inputs: Any, compressor: Compressor | None, settings: LatencySettings
) -> dict[str, float]:
    watch = Stopwatch(vlm.device)
    start = now(vlm.device)
    generation = _generate(vlm, inputs, compressor, settings, watch)
    end = now(vlm.device)
    steps = settings.new_tokens - 1
    held = sum(record.kv_bytes for record in generation.records)
    return {
        "ttft_ms": 1000 * (watch.times[0] - start),
        "step_ms": 1000 * (watch.times[-1] - watch.times[0]) / steps,
        "throughput": settings.batch_size * settings.new_tokens / (end - start),
        "kv_bytes": held,
        "kv_share": held / sum(record.full_kv_bytes for record in generation.records),
    }


def _generate(
    vlm: VLM,
    inputs: Any,
    compressor: Compressor | None,
    settings: LatencySettings,
    watch: Stopwatch,
) -> Any:
    from transformers import StoppingCriteriaList

    return vlm.generate(
        inputs,
        compressor,
        seed=settings.seed,
        max_new_tokens=settings.new_tokens,
        min_new_tokens=settings.new_tokens,
        do_sample=False,
        stopping_criteria=StoppingCriteriaList([watch]),
    )


def _peak(vlm: VLM, inputs: Any, compressor: Compressor | None, settings: LatencySettings) -> int:
    """Peak memory of one more run, which is not timed."""
    watch = Stopwatch(vlm.device)
    if vlm.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(vlm.device)
        _generate(vlm, inputs, compressor, settings, watch)
        return int(torch.cuda.max_memory_allocated(vlm.device))
    with _ResidentMemory() as memory:
        _generate(vlm, inputs, compressor, settings, watch)
    return memory.rise


class _ResidentMemory:
    """Samples the process's resident memory from a thread; memory that is reused does not show."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._start = self._highest = int(self._process.memory_info().rss)

    def __enter__(self) -> _ResidentMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def rise(self) -> int:
        """Bytes above the start."""
        return self._highest - self._start

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLING_SECONDS):
            self._highest = max(self._highest, int(self._process.memory_info().rss))
