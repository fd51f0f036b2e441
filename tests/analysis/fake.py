"""A model that answers by rule, so that everything around it can be tested in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lightkv import Answer, Request
from lightkv.contract.compressor import Compressor, Observation
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.retention import Retention
from lightkv.contract.view import ModelFacts
from lightkv.engine.record import LayerRecord, RunRecord
from lightkv.errors import InvalidValueError
from lightkv.eviction.evictor import Evicting
from lightkv.families.base import Family
from lightkv.families.llava import Llava

LAYERS = 8
PROMPT = 22
TOKENS = (1, 2)


def prompt_layout() -> TokenLayout:
    kinds = [TokenKind.SYSTEM] * 2 + [TokenKind.VISION] * 16 + [TokenKind.TEXT] * 4
    return single_layout([int(kind) for kind in kinds], (Grid(1, 4, 4),))


def record(share: float, requested: float | None) -> RunRecord:
    entries = round(PROMPT * share)
    layers = tuple(
        LayerRecord(
            layer=number,
            length=PROMPT,
            kept=torch.arange(entries),
            entries=entries,
            requested=PROMPT * share,
            padded=entries,
            provenance=None,
        )
        for number in range(LAYERS)
    )
    return RunRecord(
        method="none",
        layers=layers,
        layout=prompt_layout(),
        kv_bytes=100 * entries,
        padding_bytes=0,
        full_kv_bytes=100 * PROMPT,
        requested_retention=requested,
    )


@dataclass
class FakeVLM:
    """Says what ``say(request, compressor)`` says, and counts."""

    say: Callable[[Request, Compressor | None], str]
    fail_after: int | None = None
    error: type[BaseException] = KeyboardInterrupt
    fingerprint: str = "f00d"
    name: str = "fake"
    family: Family = field(default_factory=Llava)
    attention: str = "sdpa"
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    facts: ModelFacts = field(default_factory=lambda: ModelFacts(LAYERS, 2, 2, 8))
    batches: list[list[str]] = field(default_factory=list)
    layouts_checked: int = 0
    stop_tokens: tuple[int, ...] = (2,)
    lead: float = 3.0
    head: torch.nn.Module = field(default_factory=torch.nn.Identity)

    @property
    def model(self) -> FakeVLM:
        return self

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    @property
    def asked(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def encode(self, requests: Sequence[Request], compressor: Any = None) -> dict[str, Any]:
        return {}

    def layout(self, inputs: dict[str, Any]) -> TokenLayout:
        self.layouts_checked += 1
        return prompt_layout()

    def ask_many(
        self,
        requests: Sequence[Request],
        compressor: Compressor | None = None,
        *,
        max_new_tokens: int = 32,
        seed: int = 0,
    ) -> list[Answer]:
        if self.fail_after is not None and len(self.batches) >= self.fail_after:
            raise self.error("stopped")
        self.batches.append([request.question for request in requests])
        for token in TOKENS:
            self.head(
                self.lead
                * torch.nn.functional.one_hot(torch.tensor([[token]]), 4).repeat(
                    len(requests), 1, 1
                )
            )
        requested = compressor.retention if isinstance(compressor, Evicting) else None
        made = record(1.0 if requested is None else requested, requested)
        return [Answer(self.say(request, compressor), TOKENS, made) for request in requests]


@dataclass(frozen=True)
class Picky(Evicting):
    """Refuses every prompt."""

    def check_layout(self, layout: TokenLayout) -> None:
        raise InvalidValueError("prompt", "this one", "another one")

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        raise NotImplementedError
