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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from analysis.provenance import versions
from analysis.timing.bench_decoder import (
    BenchDecoder,
    build_tower,
    decoder_of,
    has_bfloat16,
)
from analysis.timing.latency import Stopwatch, machine_name, now
from analysis.timing.limits import Limits, measure_limits
from analysis.timing.memory import memory_kind, peak_rise
from lightkv.catalogue import composed, read
from lightkv.contract.compressor import Compressor
from lightkv.contract.products import half_products
from lightkv.contract.registry import RETENTION
from lightkv.contract.view import ModelFacts
from lightkv.cost.presets import preset
from lightkv.engine.drivers import Driver, check_driver
from lightkv.errors import InvalidValueError, LightKVError
from lightkv.loading import device_named, dtype_named

if TYPE_CHECKING:
    import pandas as pd

VANILLA: Final = "vanilla"
METHODS: Final = (VANILLA, "lightkv", "tgvkv", "lightkv | tgvkv", "random", "divprune")


@dataclass(frozen=True)
class ModelBenchSettings:
    """What is measured, and how often.

    Attributes:
        shapes: Presets.
        tokens: Vision tokens of a prompt; one piece for each.
        methods: As text; "vanilla" is the full cache without any graph, under SDPA.
        text: Text tokens after them.
        batch_size: Prompts at once.
        layers: Depth; None for the preset's own.
        new_tokens: Length of each answer, at least 2.
        warmup: Rounds that are not counted.
        repeats: Rounds that are.
        retention: Share of the cache for evictors that name none.
        driver: What carries methods through the model.
        half_products: Compute scores of products in half precision, on CUDA.
        device: Where.
        dtype: None for bfloat16 where the device has it, else float32.
        seed: Of weights, prompts and methods that draw at random.

    Raises:
        InvalidValueError: A value is out of range, or the device is not there.
        UnknownNameError: There is no such preset or method.
    """

    shapes: tuple[str, ...] = ("llava-1.5-7b",)
    tokens: tuple[int, ...] = (576,)
    methods: tuple[str, ...] = METHODS
    text: int = 64
    batch_size: int = 1
    layers: int | None = None
    new_tokens: int = 32
    warmup: int = 1
    repeats: int = 5
    retention: float = 0.2
    driver: Driver = "auto"
    half_products: bool = False
    device: str = "cpu"
    dtype: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"text": 1, "batch_size": 1, "new_tokens": 2, "warmup": 0, "repeats": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise InvalidValueError(name, getattr(self, name), f"at least {lowest}")
        for name in ("shapes", "tokens", "methods"):
            if not getattr(self, name):
                raise InvalidValueError(name, (), "at least one")
        for tokens in self.tokens:
            if tokens < 1:
                raise InvalidValueError("tokens", tokens, "at least 1")
        if not 0 < self.retention <= 1:
            raise InvalidValueError("retention", self.retention, "above 0, at most 1")
        check_driver(self.driver)
        if self.half_products and (self.where.type != "cuda" or self.number_type.itemsize != 2):
            allowed = "False, or a model in half precision on CUDA"
            raise InvalidValueError("half_products", self.half_products, allowed)
        for shape in self.shapes:
            decoder_of(preset(shape))
            depth = preset(shape).shape.text.layers
            if self.layers is not None and not 1 <= self.layers <= depth:
                raise InvalidValueError("layers", self.layers, f"1 to {depth} for {shape}")
            for label in self.methods:
                self.method(shape, label)
        _ = self.number_type

    @property
    def where(self) -> torch.device:
        """The device."""
        return device_named(self.device)

    @property
    def number_type(self) -> torch.dtype:
        """The dtype of weights and states."""
        if self.dtype is None and has_bfloat16(self.where):
            return torch.bfloat16
        return dtype_named(self.dtype, self.where)

    def facts(self, shape: str) -> ModelFacts:
        """What methods are told of a preset's decoder."""
        text = preset(shape).shape.text
        return ModelFacts(self.depth(shape), text.heads, text.kv_heads, text.hidden)

    def method(self, shape: str, label: str) -> Compressor | None:
        """A method for a preset's decoder, None for the full cache."""
        if label == VANILLA:
            return None
        return composed(read(label, self.facts(shape)), {RETENTION: self.retention})

    def depth(self, shape: str) -> int:
        """Layers that are built of a preset."""
        return preset(shape).shape.text.layers if self.layers is None else self.layers

    def setting(self, shape: str, tokens: int) -> dict[str, Any]:
        """The columns that say what a piece measures."""
        return {
            "shape": shape,
            "tokens": tokens,
            "text": self.text,
            "batch_size": self.batch_size,
            "layers": self.depth(shape),
            "new_tokens": self.new_tokens,
            "warmup": self.warmup,
            "repeats": self.repeats,
            "retention": self.retention,
            "driver": self.driver,
            "half_products": self.half_products,
            "seed": self.seed,
            "device": self.where.type,
            "machine": machine_name(self.where),
            "dtype": str(self.number_type).removeprefix("torch."),
        }

    def piece(self, shape: str, tokens: int) -> str:
        """The name of a piece: all of its setting, and the methods."""
        setting = "; ".join(f"{k}={v}" for k, v in self.setting(shape, tokens).items())
        return f"{setting}; methods={', '.join(self.methods)}"


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
        seconds: No piece is begun later than so many seconds after the call.
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
            _write(rows, out)
        tell(f"{shape}, {tokens} tokens: {time.monotonic() - begun:.0f} s since the start")
    if rows.empty:
        return rows
    names = {settings.piece(shape, tokens) for tokens, shape in wanted}
    return rows[rows["piece"].isin(names)]


def _stored(out: Path | None) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(out) if out is not None and out.is_file() else pd.DataFrame()


def _write(rows: pd.DataFrame, out: Path) -> None:
    """Whole or not at all."""
    beside = out.with_name(f".{out.name}.part")
    rows.to_csv(beside, index=False)
    beside.replace(out)


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
    chosen = preset(shape)
    if chosen.shape.vision is None or chosen.family not in ("llava", "llava_next"):
        return None
    vision = chosen.shape.vision
    tower = build_tower(vision, device, dtype)
    pixels = (chosen.tiles, vision.channels, vision.image_size, vision.image_size)
    picture = torch.zeros(pixels, dtype=dtype, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = now(device)
            tower(picture)
            times.append(now(device) - start)
    return statistics.median(times[1:])


_SHOWN = ("shape", "tokens", "batch_size", "driver", "half_products")


def summarise_model(frame: pd.DataFrame, baseline: str = VANILLA) -> pd.DataFrame:
    """One row per piece and method, ratios to the baseline of the same round.

    Returns:
        shape, tokens, batch_size, driver, half_products, method; medians of ttft_ms, step_ms, throughput; ``ttft_ratio`` and
        ``step_ratio`` with their first and third quartiles (``_low``, ``_high``); kv_share (of the
        baseline's bytes after the prefill); peak_ratio; ``break_even`` (see
        :func:`break_even`); arithmetic_share and bandwidth_share.
    """
    import pandas as pd

    measured = frame[frame["repeat"].notna()]
    rows: list[dict[str, Any]] = []
    for _, piece in measured.groupby("piece", sort=False):
        base = piece[piece["method"] == baseline].set_index("repeat")
        for method, group in piece.groupby("method", sort=False):
            rows.append(_summary(group.set_index("repeat"), base) | {"method": method})
    columns = [*_SHOWN, "method"]
    found = pd.DataFrame(rows)
    return found[columns + [name for name in found.columns if name not in columns]]


def _summary(group: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any]:
    names = ("ttft_ms", "step_ms", "throughput", "arithmetic_share", "bandwidth_share")
    row: dict[str, Any] = {name: group[name].median() for name in names}
    row |= {name: group[name].iloc[0] for name in _SHOWN}
    if base.empty:
        return row
    for name in ("ttft", "step"):
        ratio = group[f"{name}_ms"] / base[f"{name}_ms"]
        row[f"{name}_ratio"] = ratio.median()
        row[f"{name}_low"], row[f"{name}_high"] = ratio.quantile(0.25), ratio.quantile(0.75)
    row["kv_share"] = group["kv_bytes"].iloc[0] / base["kv_bytes"].iloc[0]
    row["peak_ratio"] = group["peak_bytes"].iloc[0] / base["peak_bytes"].iloc[0]
    row["break_even"] = break_even(
        row["ttft_ms"] - base["ttft_ms"].median(), base["step_ms"].median() - row["step_ms"]
    )
    return row


def break_even(later: float, saved: float) -> float:
    """Answer's length in tokens from which a method is the faster one.

    Args:
        later: Milliseconds by which its first token comes later.
        saved: Milliseconds that each step after it saves.

    Returns:
        1 where its first token is the earlier one, infinity where it never catches up.
    """
    if later <= 0:
        return 1.0
    if saved <= 0:
        return float("inf")
    return float(1 + -(-later // saved))
