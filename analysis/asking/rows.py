"""What is stored: what answers depend on, one row per answered question, and its outcomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

VANILLA = "vanilla"
ALL = "all"
LABELS = ("model", "method", "source")
"""Fields of a configuration that don't change its answers."""


@dataclass(frozen=True)
class Configuration:
    """What a set of answers depends on.

    Attributes:
        model: Name or path that the model was loaded from; not part of the key.
        fingerprint: Hash of its weights and config.
        method: Class of the compressor, or "vanilla"; not part of the key.
        parameters: The compressor, printed in full.
        task, task_fingerprint: The questions.
        protocol: What has been read when the cache is compressed.
        seed: Of the questions and of methods that draw at random.
        max_new_tokens: Longest answer.
        dtype, attention, device: Arithmetic of the model.
        revision: Digest of the code.
        versions: Of the package and its libraries, as JSON.
        source: Where the questions come from, as JSON; not part of the key.
    """

    model: str
    fingerprint: str
    method: str
    parameters: str
    task: str
    task_fingerprint: str
    protocol: str
    seed: int
    max_new_tokens: int
    dtype: str
    attention: str
    device: str
    revision: str
    versions: str
    source: str = "{}"

    @property
    def key(self) -> str:
        """Digest of everything but the labels ``model``, ``method`` and ``source``."""
        return digest_of({k: v for k, v in asdict(self).items() if k not in LABELS})


@dataclass(frozen=True)
class Row:
    """One answered question.

    Attributes:
        item, identity: Which question of the task.
        picture: What it is about; questions about one picture are not independent.
        question, answer: What was asked and said.
        kv_bytes, full_kv_bytes: Cache after prefill, and without compression.
        requested_retention: Share of the entries that the evictor was asked to keep, if any.
        achieved_retention: Share of the full cache's entries that are held.
        token_layers, full_token_layers: Tokens processed in prefill, summed over layers.
        generated_tokens: Length of the answer.
        seconds: Wall time of the batch divided by its questions.
        warnings: What a method said it did not do.
        facts: What the task says of the question (:attr:`analysis.tasks.TaskItem.facts`).
    """

    item: int
    identity: str
    picture: str
    question: str
    answer: str
    kv_bytes: int
    full_kv_bytes: int
    requested_retention: float | None
    achieved_retention: float
    token_layers: int
    full_token_layers: int
    generated_tokens: int
    seconds: float
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def values(self) -> tuple[Any, ...]:
        """Field values in order, lists and mappings as JSON."""
        values = (getattr(self, one.name) for one in fields(self))
        return tuple(
            json.dumps(v, ensure_ascii=False) if isinstance(v, tuple | Mapping) else v
            for v in values
        )


@dataclass(frozen=True)
class Scorer:
    """What outcomes depend on besides the answers.

    Attributes:
        metric: Name of the metric, or of the task whose harness scores.
        truth: Digest of the right answers.
        code: Digest of the code that scores.
        libraries: Versions of the libraries that do, as JSON.
    """

    metric: str
    truth: str
    code: str
    libraries: str

    @property
    def key(self) -> str:
        """Digest of all of it."""
        return digest_of(asdict(self))


@dataclass(frozen=True)
class Outcome:
    """What a scorer made of one answer.

    Attributes:
        item: Which question of the task.
        references: Right answers.
        score: None where it is defined on a corpus only.
        details: What scores of a whole corpus are made of, as JSON.
    """

    item: int
    references: tuple[str, ...]
    score: float | None
    details: str = "{}"

    def values(self) -> tuple[Any, ...]:
        """References as JSON, score and details."""
        return json.dumps(self.references, ensure_ascii=False), self.score, self.details


def digest_of(content: Mapping[str, Any]) -> str:
    """24 hexadecimal digits that change with any value of a JSON-like mapping."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
