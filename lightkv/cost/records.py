"""What :mod:`lightkv.cost.workload` returns: FLOPs and bytes, part by part."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1024**3


@dataclass(frozen=True)
class Flops:
    """FLOPs of a request, part by part. ``prefill`` and ``decode`` are the decoder layers alone."""

    vision: int
    projector: int
    prefill: int
    head_prefill: int
    decode: int
    head_decode: int
    matching: int

    @property
    def head(self) -> int:
        """LM head, prefill and decode."""
        return self.head_prefill + self.head_decode

    @property
    def until_first_token(self) -> int:
        """Everything before the first generated token."""
        return self.vision + self.projector + self.prefill + self.head_prefill + self.matching

    @property
    def while_decoding(self) -> int:
        """Everything after it: decoder layers and LM head of the decode steps."""
        return self.decode + self.head_decode

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.until_first_token + self.while_decoding

    @property
    def tera(self) -> float:
        """Total in 10^12 FLOPs."""
        return self.total / 1e12


@dataclass(frozen=True)
class KVBytes:
    """Bytes of the KV cache after the last step.

    Eviction is charged to vision entries first (TGV-KV, Eq. 10); the total does not depend on it.
    """

    text: int
    vision: int
    generated: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.text + self.vision + self.generated

    @property
    def gib(self) -> float:
        """Total in GiB (1024^3 bytes)."""
        return self.total / GIB


@dataclass(frozen=True)
class Cost:
    """FLOPs and KV bytes of a request; ``tokens`` is what each layer processes in prefill and
    ``entries`` what its cache holds when decoding starts."""

    flops: Flops
    kv: KVBytes
    tokens: tuple[int, ...]
    entries: tuple[int, ...]


@dataclass(frozen=True)
class PrefillMemory:
    """Bytes in use at the end of prefill (LightKV, Figure 1).

    ``rest`` estimates the activations that live at once in the widest decoder layer: residual
    stream, its normalised copy, and the larger of (query, key, value, output) and the MLP's inner
    products, plus the head's logits. Allocator slack, workspaces, an explicit attention map and
    the vision tower's activations, freed before, are not in it. Merging does not shrink it, since
    the layers before the first stage see every token.
    """

    weights: int
    text_kv: int
    vision_kv: int
    rest: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.text_kv + self.vision_kv + self.rest

    @property
    def gib(self) -> float:
        """Total in GiB (1024^3 bytes)."""
        return self.total / GIB
