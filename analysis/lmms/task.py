"""A benchmark of lmms-eval as a task: its questions, prompts and pictures as it gives them.

    lightkv evaluate --task lmms:pope --samples 360
    lightkv evaluate --task lmms:textvqa_val_lite --samples 0
    lightkv evaluate --task lmms:my_folder/my_task.yaml
    lightkv evaluate --task "lmms:pope,system=A chat between a user and an assistant."

Texts are read at once, pictures when a question is asked. A part of a benchmark consists of whole
pictures with all questions about them, drawn by the seed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
from PIL import Image

from analysis.lmms import harness
from analysis.lmms.loading import content_of, known, loaded, refuse
from analysis.scoring.aggregates import Formula
from analysis.scoring.formulas import FORMULAS
from analysis.tasks.base import Task, TaskItem, check_samples
from lightkv.errors import InvalidValueError, UnsupportedError

PREFIX: Final = "lmms/"
DEFAULT_MAX_NEW_TOKENS: Final = 32
"""Where a task has no limit of its own; the harness's models then take from 128 to 32,768."""

PICTURES: Final = ("image_source", "imageId", "docId", "image_id", "video_id")
"""Columns that name what a question is about, in the data sets of the papers' benchmarks."""

_SYSTEM: Final = ",system="
_REVISION: Final = re.compile(r"@([0-9a-f]{40})")


@dataclass(frozen=True)
class LmmsTask(Task):
    """A benchmark of lmms-eval.

    Attributes:
        benchmark: Its name there.
        lmms: The harness's task.
        config: Its file, as read.
        file: Where that file is.
        system: Text before the pictures, None for the model's own.
    """

    benchmark: str
    lmms: Any = field(repr=False, compare=False)
    config: Mapping[str, Any] = field(repr=False, compare=False)
    file: str = ""
    system: str | None = None

    @classmethod
    def named(cls, argument: str) -> LmmsTask:
        """The benchmark of that name, or that of a YAML file; its data are loaded.

        Args:
            argument: Name or file, then perhaps ``,system=`` and a text.

        Raises:
            InvalidValueError: No name is given.
            UnknownNameError: There is no such benchmark; the message lists the nearest names.
            UnsupportedError: lmms-eval is not installed, or the benchmark takes what models here
                can't: a judge, videos, several turns.
            InputError: Its data set can't be loaded.
        """
        name, tasks, path, config, system = check_named(argument)
        return cls(name, loaded(name, tasks, config), config, path, system)

    @property
    def name(self) -> str:
        """``lmms/`` and the benchmark's name."""
        return PREFIX + self.benchmark

    @property
    def metric(self) -> str:
        """The same; a benchmark has several scores."""
        return self.name

    @property
    def settings(self) -> Mapping[str, Any]:
        """How the harness generates answers; its ``until`` is not heeded by its own chat models."""
        options: Mapping[str, Any] = self.lmms.config.generation_kwargs or {}
        return options

    @property
    def max_new_tokens(self) -> int:
        """The benchmark's limit, or :data:`DEFAULT_MAX_NEW_TOKENS`."""
        return int(self.settings.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the rows, the revision of the pictures, prompts and settings.

        It does not change when a data set is downloaded again.
        """
        digest = hashlib.sha256()
        described = [
            *(harness.version(), self.benchmark, self.revision, self.system),
            self.lmms.lmms_eval_specific_kwargs,
            self.settings,
        ]
        digest.update(json.dumps(described, sort_keys=True, default=str).encode())
        for row in self.lmms.eval_docs_no_media:
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    @cached_property
    def revision(self) -> str:
        """Commit of the data set, or a digest of the pictures of one that has none."""
        docs = self.lmms.eval_docs
        files = getattr(docs.info, "download_checksums", None) or {}
        commits = sorted({commit for name in files for commit in _REVISION.findall(str(name))})
        return " ".join(commits) if commits else content_of(docs)

    @property
    def source(self) -> Mapping[str, str]:
        """Data set, revision and split, and the version of the harness."""
        return {
            "path": str(self.config.get("dataset_path")),
            "name": str(self.config.get("dataset_name")),
            "split": str(self.config.get("test_split") or self.config.get("validation_split")),
            "revision": self.revision,
            "harness": f"lmms-eval {harness.version()}",
        }

    def items(self, samples: int | None, seed: int) -> list[TaskItem]:
        """At most ``samples`` questions, whole pictures of them; None for all in their order."""
        docs = self.lmms.eval_docs_no_media
        check_samples(samples, len(docs))
        places: dict[str, list[int]] = {}
        for index, doc in enumerate(docs):
            places.setdefault(self._picture(doc) or f"#{index}", []).append(index)
        groups = list(places.values())
        if samples is not None:
            groups = _part(groups, samples, seed)
        indices = [index for group in groups for index in group]
        items = [self._item(index, docs[index]) for index in indices]
        self._check_messages(items[0])
        return items

    def _item(self, index: int, doc: Mapping[str, Any]) -> TaskItem:
        return TaskItem(
            index=index,
            identity=str(doc.get("question_id", doc.get("questionId", index))),
            images=partial(self.shown, index),
            question=str(self.lmms.doc_to_text(doc)),
            answers=_texts(self.lmms.doc_to_target(doc)),
            system=self.system,
            picture=self._picture(doc),
        )

    @cached_property
    def _pairs(self) -> Formula | None:
        """The score, if there is one, that takes pictures with all their questions only."""
        scores = (FORMULAS.get(name) for name in self.lmms.aggregation())
        return next((score for score in scores if score and score.whole_units), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """The limit of answers, where the benchmark names none."""
        if self.settings.get("max_new_tokens"):
            return ()
        return (
            f"{self.name} names no limit: answers have at most {DEFAULT_MAX_NEW_TOKENS} tokens "
            "unless --max-new-tokens says otherwise",
        )

    def _picture(self, doc: Mapping[str, Any]) -> str:
        """Name of what a question is about; "" where the data set does not tell."""
        if self._pairs is not None:
            return " ".join(self._pairs.place(doc))
        for column in PICTURES:
            if isinstance(doc.get(column), str | int):
                return str(doc[column])
        return ""

    def shown(self, index: int) -> tuple[Image.Image, ...]:
        """Pictures of a question, decoded now.

        Raises:
            UnsupportedError: There is something other than pictures.
        """
        shown = self.lmms.doc_to_visual(self.lmms.eval_docs[index]) or []
        for one in shown:
            if not isinstance(one, Image.Image):
                raise UnsupportedError(
                    f"{self.benchmark}: question {index} shows a {type(one).__name__}, and models "
                    "are asked about pictures here"
                )
        return tuple(shown)

    def _check_messages(self, item: TaskItem) -> None:
        """Refuse a benchmark whose prompts are other than pictures and then a text.

        Raises:
            UnsupportedError: See above.
        """
        messages = self.lmms.doc_to_messages(self.lmms.eval_docs[item.index])
        kinds = [(turn["role"], [part["type"] for part in turn["content"]]) for turn in messages]
        plain = kinds == [("user", ["image"] * (len(kinds[0][1]) - 1) + ["text"])]
        if not plain or messages[0]["content"][-1]["text"] != item.question:
            raise UnsupportedError(
                f"{self.benchmark} asks in turns of {kinds}; one turn of pictures and then a text "
                "is what can be asked here"
            )


def check_named(argument: str) -> tuple[str, Any, str, Mapping[str, Any], str | None]:
    """What is known of a benchmark before its data are loaded.

    Args:
        argument: As of :meth:`LmmsTask.named`, with the same errors but those of the data.

    Returns:
        Its name, the harness's tasks that it is one of, its file, what that says, and the text
        before the pictures.
    """
    argument, sign, system = argument.partition(_SYSTEM)
    if not argument or (sign and not system.strip()):
        allowed = "lmms:NAME of a benchmark, as lmms:pope or lmms:pope,system=TEXT"
        raise InvalidValueError("lmms", argument + sign, allowed)
    name, tasks = known(argument)
    path = str(tasks.task_index[name]["yaml_path"])
    config = harness.config_of(path)
    refuse(name, config)
    return name, tasks, path, config, system if sign else None


def _texts(target: Any) -> tuple[str, ...]:
    """Right answers as the harness names them."""
    return tuple(map(str, target)) if isinstance(target, list | tuple) else (str(target),)


def _part(groups: list[list[int]], samples: int, seed: int) -> list[list[int]]:
    """Whole groups in the seed's order, as many as fit into ``samples`` questions."""
    taken: list[list[int]] = []
    for place in np.random.default_rng(seed).permutation(len(groups)):
        if sum(map(len, taken)) + len(groups[place]) > samples:
            break
        taken.append(groups[place])
    if not taken:
        smallest = min(map(len, groups))
        raise InvalidValueError(
            "samples", samples, f"at least {smallest}, the questions about one picture"
        )
    return taken
