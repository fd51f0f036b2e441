"""What is to be asked: a task, a method and a protocol, and all that the answers depend on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from analysis import provenance
from analysis.asking.rows import VANILLA, Configuration
from analysis.asking.scoring import Scoring, scoring_of
from analysis.tasks import Task, TaskItem
from lightkv.contract.compressor import Compressor
from lightkv.errors import InvalidValueError
from lightkv.prompting import QUESTION_FIRST

if TYPE_CHECKING:
    from analysis.asking.opening import UnloadedVLM
    from lightkv import VLM

Methods = Mapping[str, Compressor | None]
Jobs = Sequence[tuple[str, "Job"]]

_ASKING: Final = frozenset(
    ("lightkv.loading", "lightkv.vlm", "lightkv.protocols", "analysis.asking.answering")
)
"""Modules that every answer depends on, with all that they import."""

_SCORING: Final = ("analysis.scoring",)
"""Modules that tasks import, and that no answer depends on."""


@dataclass(frozen=True)
class Shard:
    """One part of several into which the batches of a run are dealt.

    Attributes:
        number: Which part, from 1.
        count: How many parts there are.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 1 <= self.number <= self.count:
            allowed = "I/N with I from 1 to N, as 1/4, 2/4, 3/4 and 4/4"
            raise InvalidValueError("shard", f"{self.number}/{self.count}", allowed)

    @classmethod
    def read(cls, text: str) -> Shard:
        """A shard written as "I/N".

        Raises:
            InvalidValueError: It is not of that form, or there is no such part.
        """
        number, sign, count = text.partition("/")
        if not (sign and number.strip().isdecimal() and count.strip().isdecimal()):
            raise InvalidValueError("shard", text, "I/N with I from 1 to N, as 2/4")
        return cls(int(number), int(count))

    def takes(self, batch: int, key: str) -> bool:
        """Whether a batch of a configuration is of this part; they start at different parts."""
        return (batch + int(key, 16)) % self.count == self.number - 1


@dataclass(frozen=True)
class Cut:
    """How questions are cut into batches, and which batches are asked here.

    Attributes:
        size: Questions in a batch.
        shard: The part that is asked, None for all.
    """

    size: int
    shard: Shard | None = None


@dataclass(frozen=True)
class Job:
    """The questions of one task for one method under one protocol.

    Attributes:
        task: The task.
        items: All of its questions, also finished ones.
        compressor: The method, None for the full cache.
        configuration: What the answers depend on.
        scoring: How the answers are scored.
        cut: How it is cut into batches.
    """

    task: Task
    items: tuple[TaskItem, ...]
    compressor: Compressor | None
    configuration: Configuration
    scoring: Scoring
    cut: Cut

    @cached_property
    def key(self) -> str:
        """Key of the configuration."""
        return self.configuration.key

    @cached_property
    def _batches(self) -> tuple[tuple[TaskItem, ...], ...]:
        ordered, size = sorted(self.items, key=_length), self.cut.size
        whole = (tuple(ordered[start : start + size]) for start in range(0, len(ordered), size))
        shard = self.cut.shard
        return tuple(
            batch
            for number, batch in enumerate(whole)
            if shard is None or shard.takes(number, self.key)
        )

    @property
    def part(self) -> list[TaskItem]:
        """Questions that are asked here."""
        return [item for batch in self._batches for item in batch]

    def left(self, finished: frozenset[int]) -> int:
        """How many questions are to be asked here still."""
        return sum(item.index not in finished for item in self.part)

    def batches(self, finished: frozenset[int]) -> Iterator[list[TaskItem]]:
        """Batches of questions of similar length that are not finished."""
        for batch in self._batches:
            left = [item for item in batch if item.index not in finished]
            if left:
                yield left


def plan(
    vlm: VLM | UnloadedVLM,
    tasks: Sequence[Task],
    methods: Methods,
    *,
    protocols: Sequence[str] = (QUESTION_FIRST,),
    samples: int | None,
    seed: int,
    max_new_tokens: int | None = None,
    cut: Cut,
) -> list[tuple[str, Job]]:
    """Jobs with their labels.

    Raises:
        LightKVError: A task's questions can't be read.
    """
    jobs = []
    for task in tasks:
        items = tuple(task.items(samples, seed))
        scoring = scoring_of(task)
        for protocol in protocols:
            for label, compressor in methods.items():
                configuration = configure(
                    vlm, task, compressor, seed, max_new_tokens, protocol=protocol
                )
                jobs.append((label, Job(task, items, compressor, configuration, scoring, cut)))
    return jobs


def configure(
    vlm: VLM | UnloadedVLM,
    asked: Task,
    compressor: Compressor | None,
    seed: int,
    max_new_tokens: int | None = None,
    *,
    protocol: str = QUESTION_FIRST,
) -> Configuration:
    """What the answers of a method to a task depend on.

    Raises:
        UnsupportedError: The method hides a parameter, so its results can't be told from those of
            another.
    """
    return Configuration(
        model=vlm.name,
        fingerprint=vlm.fingerprint,
        method=VANILLA if compressor is None else type(compressor).__name__,
        parameters=VANILLA if compressor is None else provenance.described(compressor),
        task=asked.name,
        task_fingerprint=asked.fingerprint,
        protocol=protocol,
        seed=seed,
        max_new_tokens=asked.max_new_tokens if max_new_tokens is None else max_new_tokens,
        dtype=str(vlm.dtype).removeprefix("torch."),
        attention=vlm.attention,
        device=vlm.device.type,
        revision=provenance.code_of([compressor, asked, vlm.family], _ASKING, _SCORING),
        versions=json.dumps(provenance.answering_versions(), sort_keys=True),
        source=json.dumps(dict(asked.source), sort_keys=True),
    )


def _length(item: TaskItem) -> tuple[int, int, int]:
    """Sort key: pictures first, they make the longest prompts; the index breaks ties."""
    images = 1 if callable(item.images) else len(item.images)
    images += sum(len(frames) for frames in item.videos)
    return images, len(item.question), item.index
