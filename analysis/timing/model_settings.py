"""What is measured of whole requests to a decoder of full depth, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from analysis.timing.bench_decoder import decoder_of, has_bfloat16
from analysis.timing.latency import machine_name
from lightkv.catalogue import composed, read
from lightkv.contract.compressor import Compressor
from lightkv.contract.registry import RETENTION
from lightkv.contract.types import check_type
from lightkv.contract.view import ModelFacts
from lightkv.cost.presets import preset
from lightkv.engine.drivers import Driver
from lightkv.errors import InvalidValueError
from lightkv.loading import device_named, dtype_named

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
        check_type("driver", self.driver, Driver)
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
        """What methods know about a preset's decoder."""
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
