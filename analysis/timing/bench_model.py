"""What methods make of whole requests to a decoder of full depth: time, memory, limits.

A piece is one preset at one length. In every round of a piece each method answers once, starting
elsewhere each time, so that a machine that gets slower or faster does so for all of them; ratios
compare numbers of one round. Memory is measured apart from time. The rows of a piece are written
when it is done, and a piece that the file already holds is not measured again.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from analysis.outputs import write_text
from analysis.provenance import versions
from analysis.timing.bench_decoder import BenchDecoder, build_tower
from analysis.timing.latency import Stopwatch, now
from analysis.timing.limits import Limits, measure_limits
from analysis.timing.memory import memory_kind, peak_rise
from analysis.timing.model_settings import ModelBenchSettings
from lightkv.contract.compressor import Compressor
from lightkv.contract.products import half_products
from lightkv.cost.presets import preset
from lightkv.errors import LightKVError

if TYPE_CHECKING:
    import pandas as pd


def measure_model(
    settings: ModelBenchSettings,
    out: Path | None = None,
    *,
    command: str = "",
    seconds: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Measure every piece that the file does not hold yet, shortest prompts first.

    Args:
        settings: What is measured.
        out: CSV to which the rows of each finished piece are added.
        command: What made them, for its column of that name.
        seconds: No piece is begun later than this many seconds after the call.
        tell: Gets a line per piece.

    Returns:
        The rows of all pieces that were asked for and are there: see docs/performance.md.
    """
    import pandas as pd

    begun = time.monotonic()
    rows = _stored(out)
    wanted = [(tokens, shape) for tokens in settings.tokens for shape in settings.shapes]
    limits: Limits | None = None
    for tokens, shape in wanted:
        name = settings.piece(shape, tokens)
        if not rows.empty and name in set(rows["piece"]):
            tell(f"{shape}, {tokens} tokens: measured before")
            continue
        if seconds is not None and time.monotonic() - begun > seconds:
            tell(f"{shape}, {tokens} tokens: left, the time is used up")
            continue
        if limits is None:
            limits = measure_limits(settings.where, settings.number_type)
        added = _piece(settings, shape, tokens, limits).assign(piece=name, command=command)
        rows = added if rows.empty else pd.concat([rows, added], ignore_index=True)
        if out is not None:
            write_text(out, rows.to_csv(index=False))
        tell(f"{shape}, {tokens} tokens: {time.monotonic() - begun:.0f} s since the start")
    if rows.empty:
        return rows
    names = {settings.piece(shape, tokens) for tokens, shape in wanted}
    return rows[rows["piece"].isin(names)]


def _stored(out: Path | None) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(out) if out is not None and out.is_file() else pd.DataFrame()


def _piece(settings: ModelBenchSettings, shape: str, tokens: int, limits: Limits) -> pd.DataFrame:
    import pandas as pd

    decoder = BenchDecoder(
        preset(shape),
        settings.depth(shape),
        settings.where,
        settings.number_type,
        longest=tokens + settings.text + settings.new_tokens,
        seed=settings.seed,
    )
    piece = Piece(decoder, settings, shape, tokens)
    rows = [*piece.rows(limits), *piece.refusals()]
    tower = tower_seconds(shape, settings.where, settings.number_type, settings.repeats)
    used = versions()
    return pd.DataFrame(rows).assign(
        **settings.setting(shape, tokens),
        tower_ms=float("nan") if tower is None else 1000 * tower,
        limit_flops=limits.flops,
        limit_bandwidth=limits.bandwidth,
        memory_kind=memory_kind(settings.where),
        torch_version=used["torch"],
        transformers_version=used["transformers"],
        date=time.strftime("%Y-%m-%d"),
    )


class Piece:
    """One preset at one length.

    Args:
        decoder: That runs the methods.
        settings: What is measured.
        shape: The preset.
        tokens: Vision tokens of the prompt.
    """

    def __init__(
        self, decoder: BenchDecoder, settings: ModelBenchSettings, shape: str, tokens: int
    ) -> None:
        self._decoder = decoder
        self._shape = shape
        self._settings = settings
        self._ids, self._layout = decoder.prompt(tokens, settings.text, settings.batch_size)
        self._refused: dict[str, str] = {}
        self._methods = dict(self._fitting())

    def _fitting(self) -> Iterator[tuple[str, Compressor | None]]:
        for label in self._settings.methods:
            compressor = self._settings.method(self._shape, label)
            try:
                self._decoder.check(compressor, self._layout)
            except LightKVError as error:
                self._refused[label] = str(error)
            else:
                yield label, compressor

    def refusals(self) -> list[dict[str, Any]]:
        """A row with the reason for each method that does not fit."""
        return [{"method": label, "reason": reason} for label, reason in self._refused.items()]

    def rows(self, limits: Limits) -> list[dict[str, Any]]:
        """One row per method and counted round."""
        settings = self._settings
        fixed = {label: self._memory(label) for label in list(self._methods)}
        labels = list(self._methods)
        rows: list[dict[str, Any]] = []
        for number in range(settings.warmup + settings.repeats):
            shift = number % max(1, len(labels))
            for label in labels[shift:] + labels[:shift]:
                timed = self._time(self._methods[label])
                if number >= settings.warmup:
                    repeat = {"method": label, "repeat": number - settings.warmup}
                    rows.append(repeat | timed | fixed[label])
        for row in rows:
            row |= self._shares(row, limits)
        rows.sort(key=lambda row: (labels.index(row["method"]), row["repeat"]))
        return rows

    def _time(self, compressor: Compressor | None) -> dict[str, float]:
        from transformers import StoppingCriteriaList

        device, count = self._decoder.device, self._settings.new_tokens
        watch = Stopwatch(device)
        start = now(device)
        self._generate(compressor, count, stopping_criteria=StoppingCriteriaList([watch]))
        steps = [1000 * (b - a) for a, b in zip(watch.times, watch.times[1:], strict=False)]
        taken = watch.times[-1] - start
        return {
            "ttft_ms": 1000 * (watch.times[0] - start),
            "step_ms": statistics.median(steps),
            "throughput": self._settings.batch_size * count / taken,
        }

    def _memory(self, label: str) -> dict[str, Any]:
        """Bytes, and the tokens that the layers processed."""
        compressor = self._methods[label]
        output, run = self._generate(compressor, 1)
        layers = output.past_key_values.layers
        held = sum(part.nbytes for layer in layers for part in (layer.keys, layer.values))
        lengths = [self._layout.length] * self._decoder.layers
        if run is not None:
            lengths = list(run.records()[0].prefill_lengths)
        del output, layers, run
        peak = peak_rise(lambda: self._generate(compressor, 2), self._decoder.device)
        rows = self._settings.batch_size
        return {
            "kv_bytes": held,
            "peak_bytes": peak,
            "prefill_flops": rows * self._decoder.prefill_flops(lengths),
            "step_bytes": self._decoder.step_weights + held,
        }

    def _generate(self, compressor: Compressor | None, count: int, **more: Any) -> tuple[Any, Any]:
        with half_products() if self._settings.half_products else nullcontext():
            return self._decoder.generate(
                self._ids, self._layout, compressor, count, driver=self._settings.driver, **more
            )

    def _shares(self, row: Mapping[str, Any], limits: Limits) -> dict[str, float]:
        return {
            "arithmetic_share": row["prefill_flops"] / (row["ttft_ms"] / 1000) / limits.flops,
            "bandwidth_share": row["step_bytes"] / (row["step_ms"] / 1000) / limits.bandwidth,
        }


@functools.cache
def tower_seconds(
    shape: str, device: torch.device, dtype: torch.dtype, repeats: int
) -> float | None:
    """Median time of a preset's CLIP tower over one image's tiles; None where it has another."""
    model = preset(shape)
    if model.shape.vision is None or model.family not in ("llava", "llava_next"):
        return None
    vision = model.shape.vision
    tower = build_tower(vision, device, dtype)
    pixels = (model.tiles, vision.channels, vision.image_size, vision.image_size)
    picture = torch.zeros(pixels, dtype=dtype, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = now(device)
            tower(picture)
            times.append(now(device) - start)
    return statistics.median(times[1:])
