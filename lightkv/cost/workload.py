"""FLOPs and KV bytes of a request, from a model's dimensions and a compression schedule.

Nothing is run here. Matrix products are counted, 2 FLOPs per multiply-accumulate; norms, softmax,
rotary embedding and activation functions are not. Attention counts every query-key pair, also the
masked half. A request is an image, a prompt and generated tokens; each part of the model is
counted apart. Two conventions differ in what they count, :data:`PAPER` and :data:`EXECUTED`.

:data:`PAPER` gives the vanilla rows of LightKV, Table 1, at a prompt of 48 and 100 generated
tokens: FLOPs 19.40, 10.21, 65.08 and 34.92 T and KV 0.552, 0.354, 1.749 and 1.119 GiB on LLaVA-1.5
13B and 7B and LLaVA-NeXT 13B and 7B (printed: 19.4, 10.2, 65.0, 34.8; 0.55, 0.35, 1.75, 1.12).
:data:`PAPER_USED_LAYERS` also leaves out the vision layer that LLaVA does not read; it rounds to
all four printed FLOPs (19.39, 10.20, 65.00, 34.84). LightKV's FLOPs come out 1.7 to 5.3 % above
the ones printed for the 13B models (Table 6), its memory within 0.02 GiB: the paper does not say
how it counts a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from lightkv.cost.presets import MergeSchedule, ModelPreset
from lightkv.cost.presets.shape import ModelShape, VisionShape
from lightkv.cost.records import Cost, Flops, KVBytes, PrefillMemory
from lightkv.cost.token_counts import (
    Partition,
    entries_per_layer,
    merges,
    stage_windows,
    tokens_per_layer,
)
from lightkv.errors import InvalidValueError


@dataclass(frozen=True)
class Convention:
    """What counts as a FLOP of a request.

    Attributes:
        per_mac: FLOPs per multiply-accumulate, 2 or 1.
        head_rows: LM head over ``"all"`` rows of the prefill's last layer, or the ``"last"`` only.
        decode_steps: ``"generated"``: one step for each generated token; ``"forwards"``: one less,
            since the prefill already yields the first token. It also sets how many generated
            tokens the cache holds at the end.
        vision_layers: ``"all"`` layers of the tower, or those ``"used"`` by the projector.
        projector_rows: ``"patches"`` of all tiles, or the vision ``"tokens"`` that are left.
        matching: Whether the matching of a merge stage counts.
    """

    per_mac: int = 2
    head_rows: Literal["all", "last"] = "last"
    decode_steps: Literal["generated", "forwards"] = "forwards"
    vision_layers: Literal["all", "used"] = "all"
    projector_rows: Literal["patches", "tokens"] = "patches"
    matching: bool = True

    def __post_init__(self) -> None:
        if self.per_mac not in (1, 2):
            raise InvalidValueError("per_mac", self.per_mac, "1 or 2")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InvalidValueError(name, getattr(self, name), " or ".join(allowed))

    def steps(self, generated_tokens: int) -> int:
        """Decode steps after that many generated tokens."""
        return max(generated_tokens - (self.decode_steps == "forwards"), 0)


_CHOICES = {
    "head_rows": ("all", "last"),
    "decode_steps": ("generated", "forwards"),
    "vision_layers": ("all", "used"),
    "projector_rows": ("patches", "tokens"),
}

EXECUTED = Convention()
"""What transformers executes in ``generate``; equal to ``torch.utils.flop_counter`` with eager
attention (the counter does not see the CPU's fused attention kernel)."""

PAPER = Convention(
    head_rows="all", decode_steps="generated", projector_rows="tokens", matching=False
)
"""LightKV's efficiency columns. Its tables give ToMe, whose matching costs more, the same FLOPs as
LightKV, so matching is not in them."""

PAPER_USED_LAYERS = replace(PAPER, vision_layers="used")
"""As :data:`PAPER`, without the vision layer whose output LLaVA does not read."""


@dataclass(frozen=True)
class Workload:
    """One image with a prompt, and the answer's length.

    Attributes:
        vision_tokens: Of the image.
        tiles: Passes of the vision tower.
        prompt_tokens: Text of the prompt.
        generated_tokens: Of the answer.
        grids: Rows and columns of the grids that the vision tokens lie on; merging on the true
            grid needs them. Tokens left over have no cell (line breaks).
    """

    vision_tokens: int
    tiles: int = 1
    prompt_tokens: int = 48
    generated_tokens: int = 100
    grids: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "grids" and (not isinstance(value, int) or value < 0):
                raise InvalidValueError(field.name, value, "an integer of at least 0")
        if self.vision_tokens + self.prompt_tokens == 0:
            raise InvalidValueError("prompt_tokens", 0, "at least 1 without vision tokens")

    @classmethod
    def of(
        cls, preset: ModelPreset, prompt_tokens: int = 48, generated_tokens: int = 100
    ) -> Workload:
        """A request with the preset's usual image."""
        return cls(
            preset.vision_tokens, preset.tiles, prompt_tokens, generated_tokens, preset.grids
        )


def matching_macs(
    shape: ModelShape,
    request: Workload,
    schedule: MergeSchedule,
    partition: Partition = "true-grid",
) -> int:
    """Multiply-accumulates of the merge stages themselves.

    Per stage: one cosine for every pair of the two halves of a window (about m^2 / 4 of m tokens;
    LightKV, Eq. 5), and the unmasked attention logits of each vision query against every key
    (Eq. 7, whose normaliser needs them all).
    """
    text, vision = shape.text, request.vision_tokens
    if not vision:
        return 0
    total = 0
    stages = stage_windows(vision, schedule, request.grids, partition)
    for sizes, ratio in zip(stages, schedule.ratios, strict=True):
        total += sum((m // 2) * (m - m // 2) for m in sizes) * text.hidden
        total += vision * (vision + request.prompt_tokens) * text.heads * text.head_dim
        vision -= sum(merges(m, ratio) for m in sizes)
    return total


def workload_cost(
    shape: ModelShape,
    request: Workload,
    *,
    schedule: MergeSchedule | None = None,
    partition: Partition = "true-grid",
    retention: float | Sequence[float] | None = None,
    convention: Convention = PAPER,
    bytes_per_number: int = 2,
) -> Cost:
    """FLOPs and KV bytes of one request.

    Args:
        shape: The model's dimensions.
        request: Its tokens.
        schedule: Merging in prefill, if any.
        partition: What the windows of its stages are cut on: "true-grid", which needs the
            request's grids, or "square", the released code's re-reading, which gives the digits
            that the paper prints.
        retention: Share of each layer's entries kept when prefill is done, if any are evicted;
            generated entries are appended to it.
        convention: What counts.
        bytes_per_number: Of the cache: 2 for half precision.

    Raises:
        InvalidValueError: If the schedule or the retention doesn't fit the model or the request.
    """
    text, prompt = shape.text, request.prompt_tokens
    tokens = tokens_per_layer(
        text.layers, request.vision_tokens, prompt, schedule, request.grids, partition
    )
    entries = entries_per_layer(tokens, retention)
    steps = convention.steps(request.generated_tokens)
    pair = 2 * text.heads * text.head_dim
    decode = sum(
        steps * (text.layer_matrix + pair * n) + pair * steps * (steps + 1) // 2 for n in entries
    )
    head_rows = tokens[-1] if convention.head_rows == "all" else 1
    vision, projector = _vision_macs(shape, request, convention)
    matching = 0
    if schedule is not None and convention.matching:
        matching = matching_macs(shape, request, schedule, partition)
    flops = Flops(
        vision=convention.per_mac * vision,
        projector=convention.per_mac * projector,
        prefill=convention.per_mac * sum(n * text.layer_matrix + pair * n * n for n in tokens),
        head_prefill=convention.per_mac * head_rows * text.hidden * text.vocab,
        decode=convention.per_mac * decode,
        head_decode=convention.per_mac * steps * text.hidden * text.vocab,
        matching=convention.per_mac * matching,
    )
    number = bytes_per_number * text.kv_numbers
    text_entries = sum(min(n, prompt) for n in entries)
    kv = KVBytes(
        text=number * text_entries,
        vision=number * (sum(entries) - text_entries),
        generated=number * text.layers * steps,
    )
    return Cost(flops, kv, tokens, entries)


def prefill_memory(
    shape: ModelShape,
    request: Workload,
    *,
    schedule: MergeSchedule | None = None,
    partition: Partition = "true-grid",
    convention: Convention = PAPER,
    bytes_per_number: int = 2,
) -> PrefillMemory:
    """Bytes in use at the end of prefill, split as LightKV's Figure 1 splits them.

    Arguments and errors as for :func:`workload_cost`.
    """
    cost = workload_cost(
        shape,
        request,
        schedule=schedule,
        partition=partition,
        convention=convention,
        bytes_per_number=bytes_per_number,
    )
    text, widest = shape.text, max(cost.tokens)
    attention = 2 * text.head_dim * (text.heads + text.kv_heads)
    mlp = (3 if text.gated else 2) * text.intermediate
    head_rows = cost.tokens[-1] if convention.head_rows == "all" else 1
    live = widest * (2 * text.hidden + max(attention, mlp)) + head_rows * text.vocab
    return PrefillMemory(
        weights=bytes_per_number * shape.parameters,
        text_kv=cost.kv.text,
        vision_kv=cost.kv.vision,
        rest=bytes_per_number * live,
    )


def _vision_macs(shape: ModelShape, request: Workload, convention: Convention) -> tuple[int, int]:
    """Multiply-accumulates of the vision tower and of the projector."""
    vision, projector = shape.vision, shape.projector
    if vision is None or projector is None:
        return 0, 0
    layers = vision.layers if convention.vision_layers == "all" else vision.used_layers
    packed = convention.projector_rows == "tokens"
    rows = request.vision_tokens if packed else request.tiles * projector.rows
    return request.tiles * _tower_macs(vision, layers), rows * projector.matrix


def _tower_macs(vision: VisionShape, layers: int) -> int:
    """Multiply-accumulates of one tile in the vision tower's first ``layers`` layers."""
    layer = vision.tokens * vision.layer_matrix + 2 * vision.tokens**2 * vision.hidden
    return vision.patches * vision.patch_matrix + layers * layer
