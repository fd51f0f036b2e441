"""Questions from a file: how real benchmarks are evaluated.

The file is JSON Lines in UTF-8, written ``folder:PATH`` as a task. Its first line describes the
task, every further line is a question::

    {"task": "chartqa", "metric": "relaxed_accuracy", "max_new_tokens": 32}
    {"id": "1", "image": "images/1.png", "question": "What was it in 2009?", "answers": ["14"]}
    {"image": ["a.png", "b.png"], "question": "Are these the same?", "answers": ["no"]}

Header: ``task`` (a name) and ``metric`` (of :data:`analysis.scoring.metrics.METRICS`); optional are
``max_new_tokens`` (32), ``system`` (text before the images) and ``prompt``, a template such as
``"{question}\\nAnswer with a single word."``.
Question: ``image`` (a path or a list of paths, relative to the file), ``question`` and ``answers``
(reference answers); optional are ``id`` and ``earlier``, a question about the same images that
comes first when the task is asked as a second turn.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from analysis.scoring.metrics import METRICS, Metric
from analysis.scoring.metrics import metric as metric_named
from analysis.tasks.base import Task, TaskItem, check_samples, register
from lightkv.errors import InputError, InvalidValueError

DEFAULT_MAX_NEW_TOKENS = 32
_HEADER = frozenset(("task", "metric", "max_new_tokens", "system", "prompt"))
_QUESTION = frozenset(("id", "image", "question", "answers", "earlier"))


@dataclass(frozen=True)
class Header:
    """First line of a file."""

    task: str
    metric: Metric
    max_new_tokens: int
    system: str | None
    prompt: str


@dataclass(frozen=True)
class FolderTask(Task):
    """The questions of one JSON Lines file, drawn in an order that the seed decides.

    The file is read and checked as a whole when the task is made.

    Attributes:
        path: The file.
        header: What its first line says.
        questions: Its questions in file order.
        digest: SHA-256 of the file's content.
    """

    path: Path
    header: Header
    questions: tuple[TaskItem, ...]
    digest: str

    @classmethod
    def read(cls, path: str | Path) -> FolderTask:
        """Read a file.

        Raises:
            InputError: Naming the file, the line and what is wrong with it.
        """
        if not str(path):
            raise InvalidValueError("folder", str(path), "folder:PATH of a JSON Lines file")
        file = Path(path)
        try:
            content = file.read_bytes()
            lines = content.decode("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} can't be read: {error}") from error
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        if len(numbered) < 2:
            raise InputError(f"{file} needs a header line and at least one question")
        header = _header(_Line(file, *numbered[0]))
        questions = tuple(
            _question(_Line(file, number, text), index, header)
            for index, (number, text) in enumerate(numbered[1:])
        )
        return cls(file, header, questions, hashlib.sha256(content).hexdigest())

    @property
    def name(self) -> str:
        """``folder/`` and the header's task."""
        return f"folder/{self.header.task}"

    @property
    def metric(self) -> str:
        """The header's metric."""
        return self.header.metric.name

    @property
    def max_new_tokens(self) -> int:
        """The header's limit."""
        return self.header.max_new_tokens

    @property
    def fingerprint(self) -> str:
        """The digest of the file."""
        return self.digest

    def items(self, samples: int | None, seed: int) -> list[TaskItem]:
        """Questions in the seed's order; the headers of their images are read."""
        check_samples(samples, len(self.questions))
        order = np.random.default_rng(seed).permutation(len(self.questions))
        chosen = [self.questions[index] for index in order[:samples]]
        for item in chosen:
            for image in item.images:
                _check_image(image, item.identity, self.path)
        return chosen


class _Line:
    """One line of a file: its fields, checked, and errors that name it."""

    def __init__(self, file: Path, number: int, text: str) -> None:
        self.file = file
        self.number = number
        self._text = text

    def error(self, problem: str) -> InputError:
        return InputError(f"{self.file}, line {self.number}: {problem}")

    @cached_property
    def fields(self) -> dict[str, Any]:
        try:
            fields = json.loads(self._text)
        except json.JSONDecodeError as error:
            raise self.error(f"not JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(fields, dict):
            raise self.error("not a JSON object")
        return fields

    def allow(self, names: frozenset[str]) -> None:
        unknown = sorted(set(self.fields) - names)
        if unknown:
            raise self.error(f"unknown fields {unknown}; known: {sorted(names)}")

    def text(self, name: str, default: str | None = None) -> str:
        value = self.fields.get(name, default)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{name!r} must be a text that is not empty")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.fields.get(name)
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not listed or not all(map(_is_text, listed)):
            raise self.error(f"{name!r} must be a text or a list of texts, none of them empty")
        return tuple(listed)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _header(line: _Line) -> Header:
    line.allow(_HEADER)
    tokens = line.fields.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise line.error("'max_new_tokens' must be an integer of at least 1")
    prompt = line.text("prompt", "{question}")
    if "{question}" not in prompt:
        raise line.error("'prompt' must hold {question}")
    name = line.text("metric")
    if name not in METRICS:
        raise line.error(f"unknown metric {name!r}; known: {', '.join(sorted(METRICS))}")
    system = line.text("system") if "system" in line.fields else None
    return Header(line.text("task"), metric_named(name), tokens, system, prompt)


def _question(line: _Line, index: int, header: Header) -> TaskItem:
    line.allow(_QUESTION)
    answers = line.texts("answers")
    try:
        header.metric.check(answers)
    except InputError as error:
        raise line.error(str(error)) from error
    return TaskItem(
        index=index,
        identity=str(line.fields.get("id", f"line {line.number}")),
        images=tuple(line.file.parent / image for image in line.texts("image")),
        question=header.prompt.replace("{question}", line.text("question")),
        answers=answers,
        system=header.system,
        earlier=line.text("earlier") if "earlier" in line.fields else None,
    )


def _check_image(image: Image.Image | Path, identity: str, file: Path) -> None:
    """Read an image's header, so that a bad file is known before anything runs."""
    if isinstance(image, Image.Image):
        return
    try:
        with Image.open(image):
            pass
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(
            f"{file}, question {identity!r}: the image {image} can't be read"
        ) from error


register("folder", FolderTask.read)
