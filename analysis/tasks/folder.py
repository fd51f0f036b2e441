"""Questions from a file: how real benchmarks are evaluated.

The file is JSON Lines in UTF-8, written ``folder:PATH`` as a task. Every line is a question, with
pictures relative to the file::

    {"image": "images/1.png", "question": "What was it in 2009?", "answer": "14"}
    {"image": ["a.png", "b.png"], "question": "Are these the same?", "answers": ["no", "n"]}

``answer`` or ``answers`` are the reference answers; optional are ``id``, ``earlier``, a question
about the same images that comes first when the task is asked as a second turn, and ``facts``, such
as ``{"difficulty": "hard"}``, which become columns of the rows. Answers are scored by exact match,
unless a line before the first question says otherwise::

    {"task": "chartqa", "metric": "relaxed_accuracy", "max_new_tokens": 32}

Header: ``task`` (the name in results, that of the file by default), ``metric`` (of
:data:`analysis.scoring.metrics.METRICS`), ``max_new_tokens`` (32), ``system`` (text before the
images) and ``prompt``, a template such as ``"{question}\\nAnswer with a single word."``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from analysis.scoring.metrics import METRICS, Metric
from analysis.scoring.metrics import metric as metric_named
from analysis.tasks.base import Fact, Task, TaskItem, check_samples, register
from lightkv.errors import InputError, InvalidValueError

DEFAULT_MAX_NEW_TOKENS = 32
_HEADER = frozenset(("task", "metric", "max_new_tokens", "system", "prompt"))
_QUESTION = frozenset(("id", "image", "question", "answer", "answers", "earlier", "facts"))
DEFAULT_METRIC = "exact"


@dataclass(frozen=True)
class Header:
    """What the line before the questions says, or what holds without one."""

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
        header: Name, metric and limits.
        questions: Its questions in file order.
        lines: The number of the line of each question.
    """

    path: Path
    header: Header
    questions: tuple[TaskItem, ...]
    lines: tuple[int, ...]

    @classmethod
    def read(cls, path: str | Path) -> FolderTask:
        """Read a file.

        Raises:
            InputError: The file can't be read or used; names the line and what is wrong with it.
            InvalidValueError: The path is empty.
        """
        if not str(path):
            raise InvalidValueError("folder", str(path), "folder:PATH of a JSON Lines file")
        file = Path(path)
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} can't be read: {error}") from error
        written = [
            _Line(file, number, text) for number, text in enumerate(lines, 1) if text.strip()
        ]
        described = bool(written) and "question" not in written[0].fields
        asked = written[described:]
        if not asked:
            raise InputError(f"{file} needs at least one question")
        header = _header(written[0], file.stem) if described else _plain_header(file.stem)
        questions = tuple(_question(line, index, header) for index, line in enumerate(asked))
        numbers = tuple(line.number for line in asked)
        return cls(file, header, questions, numbers)

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

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the questions as they are asked, and of the pictures' content."""
        files = {image for item in self.questions for image in item.pictures}
        contents = {image: _content(image) for image in files}
        return _digest(
            [
                [
                    *(item.question, item.system, item.earlier),
                    [contents[one] for one in item.pictures],
                    # Stored with an answer, which stays as it is; only where there are any.
                    *([dict(item.facts)] if item.facts else []),
                ]
                for item in self.questions
            ]
        )

    @cached_property
    def truth(self) -> str:
        """Digest of the right answers."""
        return _digest([item.answers for item in self.questions])

    @property
    def source(self) -> Mapping[str, str]:
        """The file."""
        return {"path": str(self.path)}

    def items(self, samples: int | None, seed: int) -> list[TaskItem]:
        """Questions in the seed's order; the headers of their images are read."""
        check_samples(samples, len(self.questions))
        order = np.random.default_rng(seed).permutation(len(self.questions))
        picked = [self.questions[index] for index in order[:samples]]
        for item in sorted(picked, key=lambda item: item.index):
            for image in item.pictures:
                _check_image(image, f"{self.path}, line {self.lines[item.index]}")
        return picked


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

    def facts(self) -> dict[str, Fact]:
        """Texts and numbers by name."""
        facts = self.fields.get("facts", {})
        if not isinstance(facts, dict) or not all(isinstance(one, Fact) for one in facts.values()):
            raise self.error("'facts' must be an object of texts, numbers, true or false")
        return facts

    def either(self, one: str, other: str) -> str:
        """Which of two fields is there; there must be exactly one of them."""
        present = [name for name in (one, other) if name in self.fields]
        if len(present) != 1:
            raise self.error(f"{one!r} or {other!r} must be there, and one of them only")
        return present[0]

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.fields.get(name)
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not listed or not all(map(_is_text, listed)):
            raise self.error(f"{name!r} must be a text or a list of texts, none of them empty")
        return tuple(listed)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _plain_header(name: str) -> Header:
    """What holds for a file of nothing but questions."""
    return Header(name, metric_named(DEFAULT_METRIC), DEFAULT_MAX_NEW_TOKENS, None, "{question}")


def _header(line: _Line, file_name: str) -> Header:
    line.allow(_HEADER)
    tokens = line.fields.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise line.error("'max_new_tokens' must be an integer of at least 1")
    prompt = line.text("prompt", "{question}")
    if "{question}" not in prompt:
        raise line.error("'prompt' must hold {question}")
    name = line.text("metric", DEFAULT_METRIC)
    if name not in METRICS:
        raise line.error(f"unknown metric {name!r}; known: {', '.join(sorted(METRICS))}")
    system = line.text("system") if "system" in line.fields else None
    return Header(line.text("task", file_name), metric_named(name), tokens, system, prompt)


def _question(line: _Line, index: int, header: Header) -> TaskItem:
    line.allow(_QUESTION)
    answers = line.texts(line.either("answer", "answers"))
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
        picture=" ".join(line.texts("image")),
        facts=line.facts(),
    )


def _content(image: Image.Image | Path) -> str:
    """Digest of a picture file; a missing one is reported when it is asked about."""
    assert isinstance(image, Path)  # noqa: S101
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()
    except OSError:
        return "not there"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()


def _check_image(image: Image.Image | Path, where: str) -> None:
    """Read an image's header, so that a bad file is known before anything runs."""
    if isinstance(image, Image.Image):
        return
    try:
        with Image.open(image):
            pass
    except (OSError, UnidentifiedImageError) as error:
        problem = "is not there" if isinstance(error, FileNotFoundError) else "can't be read"
        raise InputError(f"{where}: the image {image} {problem}") from error


register("folder", FolderTask.read)
