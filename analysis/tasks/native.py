"""The native-resolution model's question kinds as tasks: pictures of any size, pairs and videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from analysis.tasks.base import Fact, TaskItem
from analysis.tasks.generated import GeneratedKind
from lightkv.embedded.qwen.items import KINDS, NativeItem, native_items
from lightkv.errors import UnknownNameError

NAME: Final = "embedded-qwen"


@dataclass(frozen=True)
class NativeKind(GeneratedKind):
    """One of :data:`lightkv.embedded.qwen.items.KINDS`."""

    model = NAME

    @classmethod
    def named(cls, argument: str) -> NativeKind:
        """The task ``embedded-qwen:KIND``.

        Raises:
            UnknownNameError: There is no such kind.
        """
        if argument not in KINDS:
            raise UnknownNameError(f"question kind of {NAME}:KIND", argument, KINDS)
        return cls(argument)

    def drawn(self, samples: int, seed: int) -> Iterator[TaskItem]:
        """Of :func:`lightkv.embedded.qwen.items.native_items`."""
        for item in native_items(self.kind, samples, seed=seed):
            yield TaskItem(
                index=item.index,
                identity=f"{seed}/{item.index}",
                images=item.images,
                videos=(item.frames,) if item.frames else (),
                question=item.question,
                answers=(item.answer,),
                cells=item.cells,
                earlier=item.earlier,
                facts=_facts(item),
            )


def _facts(item: NativeItem) -> dict[str, Fact]:
    """Tokens of the question, a word each; of videos, hint and wording as well."""
    facts: dict[str, Fact] = {"tokens": len(item.question.split())}
    if item.frames:
        facts |= {"hint": item.hint, "paraphrased": item.paraphrased}
    return facts
