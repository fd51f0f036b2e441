"""Ask a batch of questions and turn what was said into rows; all that an answer depends on here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.asking.rows import Configuration, Row
from analysis.tasks.base import TaskItem
from lightkv.contract.compressor import Compressor
from lightkv.errors import InvalidValueError
from lightkv.protocols import protocol as protocol_named

if TYPE_CHECKING:
    from lightkv import VLM, Answer


class BatchTooLargeError(InvalidValueError):
    """Too many questions at once for the device."""


def ask(
    vlm: VLM,
    batch: Sequence[TaskItem],
    compressor: Compressor | None,
    settings: Configuration,
) -> list[Row]:
    """Rows of a batch of questions.

    Raises:
        BatchTooLargeError: They don't fit into the device's memory at once.
        LightKVError: The method refuses a prompt.
    """
    from torch import OutOfMemoryError

    start = time.perf_counter()
    try:
        answers = protocol_named(settings.protocol).ask(
            vlm,
            [item.request(settings.protocol) for item in batch],
            compressor,
            settings.max_new_tokens,
            settings.seed,
        )
    except OutOfMemoryError as error:
        allowed = "fewer, as the device's memory is full; finished questions are kept"
        raise BatchTooLargeError("batch_size", len(batch), allowed) from error
    seconds = (time.perf_counter() - start) / len(batch)
    return [_row(item, answer, seconds) for item, answer in zip(batch, answers, strict=True)]


def _row(item: TaskItem, answer: Answer, seconds: float) -> Row:
    record = answer.record
    return Row(
        item=item.index,
        identity=item.identity,
        picture=item.picture or item.identity,
        question=item.question,
        answer=answer.text,
        kv_bytes=record.kv_bytes,
        full_kv_bytes=record.full_kv_bytes,
        requested_retention=record.requested_retention,
        achieved_retention=record.achieved_retention,
        token_layers=sum(record.prefill_lengths),
        full_token_layers=record.layout.length * len(record.prefill_lengths),
        generated_tokens=len(answer.tokens),
        seconds=seconds,
        warnings=record.warnings,
        facts=dict(item.facts),
    )
