"""What is stored: the configuration that answers depend on, and one row per answered question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

VANILLA = "vanilla"
ALL = "all"


@dataclass(frozen=True)
class Configuration:
    """What a set of answers depends on.

    Attributes:
        model: Name or path the model was loaded from; not part of the key.
        fingerprint: Hash of its weights and config.
        method: Class of the compressor, or "vanilla"; not part of the key.
        parameters: The compressor, printed in full.
        task, task_fingerprint: The questions.
        protocol: What has been read when the cache is compressed.
        metric: Name of the metric of the stored scores.
        seed: Of the questions and of methods that draw at random.
        max_new_tokens: Longest answer.
        dtype, attention, device: Arithmetic of the model.
        revision: Digest of the code.
        versions: Of the package and its libraries, as JSON.
    """

    model: str
    fingerprint: str
    method: str
    parameters: str
    task: str
    task_fingerprint: str
    protocol: str
    metric: str
    seed: int
    max_new_tokens: int
    dtype: str
    attention: str
    device: str
    revision: str
    versions: str

    @property
    def key(self) -> str:
        """Digest of everything but the labels ``model`` and ``method``."""
        named = {k: v for k, v in asdict(self).items() if k not in ("model", "method")}
        return digest_of(named)


@dataclass(frozen=True)
class Row:
    """One answered question.

    Attributes:
        item, identity: Which question of the task.
        question, answer: What was asked and said.
        references: Right answers.
        score: By the configuration's metric; None where it is defined on a corpus only.
        kv_bytes, full_kv_bytes: Cache after prefill, and without compression.
        requested_retention: Share of the entries that the evictor was asked to keep, if any.
        achieved_retention: Share of the full cache's entries that are held.
        token_layers, full_token_layers: Tokens processed in prefill, summed over layers.
        generated_tokens: Length of the answer.
        seconds: Wall time of the batch divided by its questions.
        warnings: What a method said it did not do.
    """

    item: int
    identity: str
    question: str
    answer: str
    references: tuple[str, ...]
    score: float | None
    kv_bytes: int
    full_kv_bytes: int
    requested_retention: float | None
    achieved_retention: float
    token_layers: int
    full_token_layers: int
    generated_tokens: int
    seconds: float
    warnings: tuple[str, ...] = ()

    def values(self) -> tuple[Any, ...]:
        """Field values in order, lists as JSON."""
        given = (getattr(self, field.name) for field in fields(self))
        return tuple(
            json.dumps(v, ensure_ascii=False) if isinstance(v, tuple) else v for v in given
        )


def digest_of(content: Mapping[str, Any]) -> str:
    """24 hexadecimal digits that change with any value of a JSON-like mapping."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
