"""Protocols of evaluation: what has been read when the cache is compressed.

Methods rank differently under them. In the papers' protocol a one-word answer comes from the
prefill itself, before anything is evicted; the other two ask a cache that is compressed already.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from lightkv.answers import Answer
from lightkv.catalogue import MethodLike
from lightkv.contract.layout import TokenLayout
from lightkv.errors import InputError, UnknownNameError
from lightkv.prompting import QUESTION_AGNOSTIC, QUESTION_FIRST, SECOND_TURN, Request
from lightkv.reading import before_question
from lightkv.session import Session
from lightkv.vlm import VLM


class Protocol(ABC):
    """An order of reading, compressing and asking."""

    @abstractmethod
    def layout(self, vlm: VLM, requests: Sequence[Request]) -> TokenLayout:
        """Layout of what is compressed.

        Raises:
            InputError: If a request can't be asked under the protocol.
        """

    @abstractmethod
    def ask(
        self,
        vlm: VLM,
        requests: Sequence[Request],
        compressor: MethodLike,
        max_new_tokens: int,
        seed: int,
    ) -> list[Answer]:
        """Answer a batch; raises as :meth:`layout` does."""


class QuestionFirst(Protocol):
    """The papers': the question is part of the compressed prompt."""

    def layout(self, vlm: VLM, requests: Sequence[Request]) -> TokenLayout:
        return vlm.layout(vlm.encode(requests))

    def ask(
        self,
        vlm: VLM,
        requests: Sequence[Request],
        compressor: MethodLike,
        max_new_tokens: int,
        seed: int,
    ) -> list[Answer]:
        return vlm.ask_many(requests, compressor, max_new_tokens=max_new_tokens, seed=seed)


class QuestionAgnostic(Protocol):
    """System text and images are compressed before the question is read."""

    def layout(self, vlm: VLM, requests: Sequence[Request]) -> TokenLayout:
        return vlm.layout(before_question(vlm, vlm.encode(requests)))

    def ask(
        self,
        vlm: VLM,
        requests: Sequence[Request],
        compressor: MethodLike,
        max_new_tokens: int,
        seed: int,
    ) -> list[Answer]:
        session = Session(vlm, compressor, seed=seed)
        session.read(requests)
        return session.ask(requests, max_new_tokens=max_new_tokens)


class SecondTurn(Protocol):
    """The last turn of each history is asked and answered first, under compression.

    The question itself then meets the cache that was compressed for the turn before. Answers that
    the history holds for that turn are replaced by the model's own.
    """

    def layout(self, vlm: VLM, requests: Sequence[Request]) -> TokenLayout:
        return vlm.layout(vlm.encode(_first_turns(requests)))

    def ask(
        self,
        vlm: VLM,
        requests: Sequence[Request],
        compressor: MethodLike,
        max_new_tokens: int,
        seed: int,
    ) -> list[Answer]:
        earlier = _first_turns(requests)
        session = Session(vlm, compressor, seed=seed)
        first = session.ask(earlier, max_new_tokens=max_new_tokens)
        later = [
            replace(request, history=(*before.history, (before.question, answer.text)))
            for request, before, answer in zip(requests, earlier, first, strict=True)
        ]
        return session.ask(later, max_new_tokens=max_new_tokens)


def _first_turns(requests: Sequence[Request]) -> list[Request]:
    if not all(request.history for request in requests):
        raise InputError(f"the {SECOND_TURN} protocol needs an earlier turn in every request")
    return [
        replace(request, question=request.history[-1][0], history=request.history[:-1])
        for request in requests
    ]


#: Protocols by name.
PROTOCOLS: dict[str, Protocol] = {
    QUESTION_FIRST: QuestionFirst(),
    QUESTION_AGNOSTIC: QuestionAgnostic(),
    SECOND_TURN: SecondTurn(),
}


def protocol(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        UnknownNameError: If there is no such protocol.
    """
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def ask_under(
    name: str,
    vlm: VLM,
    requests: Sequence[Request],
    compressor: MethodLike = None,
    *,
    max_new_tokens: int = 32,
    seed: int = 0,
) -> list[Answer]:
    """Answer requests under the protocol called ``name``.

    Raises:
        UnknownNameError: If there is no such protocol.
        InputError: If a request or the method can't be used under it: no image to read ahead, no
            earlier turn, a method that needs the question before it is read.
    """
    return protocol(name).ask(vlm, requests, compressor, max_new_tokens, seed)
