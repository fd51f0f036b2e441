"""A conversation that goes on from a compressed cache equals masking in the full-length model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM, Request
from lightkv.embedded import conversations, items
from lightkv.errors import InputError, UnknownNameError
from lightkv.protocols import ask_under
from lightkv.pruning.divprune import DivPrune
from lightkv.session import Session
from tests.graph.methods import KeepSome
from tests.graph.oracle import MaskedRun


@pytest.fixture(scope="module")
def talks() -> list[Any]:
    return conversations(3, seed=5, turns=2)


def first_turn(talk: Any) -> Request:
    return Request((talk.image,), talk.turns[0].question)


def second_turn(talk: Any, answer: str) -> Request:
    history = ((talk.turns[0].question, answer),)
    return Request((talk.image,), talk.turns[1].question, history)


def test_without_compression_a_session_equals_asking_afresh(
    embedded: VLM, talks: list[Any]
) -> None:
    session = Session(embedded)
    first = session.ask([first_turn(t) for t in talks], max_new_tokens=12)
    later = [second_turn(t, a.text) for t, a in zip(talks, first, strict=True)]
    afresh = embedded.ask_many(later, max_new_tokens=12)
    assert [a.tokens for a in session.ask(later, max_new_tokens=12)] == [a.tokens for a in afresh]


def test_reading_ahead_without_compression_changes_no_answer(
    embedded: VLM, talks: list[Any]
) -> None:
    requests = [first_turn(t) for t in talks]
    afresh = embedded.ask_many(requests)
    ahead = ask_under("question-agnostic", embedded, requests)
    assert [a.tokens for a in ahead] == [a.tokens for a in afresh]


class PrefixMasked(MaskedRun):
    """Prompt rows from ``start`` on see only the entries that were kept of what is before it."""

    start = 0

    def _hook(self, number: int) -> Any:
        prompt = torch.ones(self.length, self.length, dtype=torch.bool).tril()[None]
        prompt = prompt.repeat(len(self.visible[0]), 1, 1)
        prompt[:, self.start :] &= self.visible[number][:, None]

        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args[0].shape[1] == self.length:
                return args, {**kwargs, "attention_mask": self._as_kernel(prompt[:, None])}
            keys = kwargs["past_key_values"].layers[number].keys.shape[2] + 1
            seen = self.cached(number, keys - self.length)
            return args, {**kwargs, "attention_mask": self._as_kernel(seen[:, None, None])}

        return before


def test_going_on_from_an_evicted_cache_equals_masking(embedded: VLM, talks: list[Any]) -> None:
    method = KeepSome(retention=0.3)
    talk = talks[0]
    session = Session(embedded, method)
    session.read([first_turn(talk)])
    ours = session.ask([first_turn(talk)], max_new_tokens=6)[0]

    inputs = embedded.encode([first_turn(talk)])
    vision = embedded.layout(inputs).vision[0]
    start = int(vision.nonzero()[-1]) + 1
    masks: list[Tensor] = []
    for layer in ours.record.layers:
        visible = torch.ones_like(vision)[None]
        visible[:, :start] = False
        visible[:, layer.kept] = True
        masks.append(visible)
    run = PrefixMasked(embedded.model, embedded.model.get_decoder().layers, masks)
    run.start = start
    theirs = run.generate(inputs, max_new_tokens=6, do_sample=False)
    tokens = theirs[0, inputs["input_ids"].shape[1] :].tolist()
    assert list(ours.tokens) == tokens[: len(ours.tokens)]


@pytest.mark.parametrize("method", [KeepSome(0.4), KeepSome(0.4, per_head=True)], ids=str)
@pytest.mark.parametrize("protocol", ["question-agnostic", "second-turn"])
def test_rows_of_a_session_answer_as_alone(
    embedded: VLM, talks: list[Any], method: KeepSome, protocol: str
) -> None:
    requests = [second_turn(t, "unused") for t in talks]
    if protocol == "question-agnostic":
        requests = [first_turn(t) for t in talks]
    together = ask_under(protocol, embedded, requests, method, max_new_tokens=8)
    alone = [
        ask_under(protocol, embedded, [request], method, max_new_tokens=8)[0]
        for request in requests
    ]
    assert [a.tokens for a in together] == [a.tokens for a in alone]
    assert [a.record.kv_bytes for a in together] == [a.record.kv_bytes for a in alone]


def test_a_session_knows_its_images(embedded: VLM, talks: list[Any]) -> None:
    session = Session(embedded)
    first = session.ask([first_turn(talks[0])])[0]
    other = replace(second_turn(talks[0], first.text), images=(talks[1].image,))
    with pytest.raises(InputError, match="images are not those"):
        session.ask([other])


def test_templates_may_leave_out_the_end_of_an_answer(
    embedded: VLM, talks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of different length: what one row was fed after its end is not part of the talk."""
    template = embedded.processor.chat_template
    assert "</s>" in template
    monkeypatch.setattr(embedded.processor, "chat_template", template.replace("</s>", ""))
    pictures = items("caption", 1)[0], items("color", 1)[0]
    requests = [Request((item.image,), item.question) for item in pictures]
    session = Session(embedded)
    first = session.ask(requests, max_new_tokens=44)
    assert len({len(answer.tokens) for answer in first}) == 2
    later = [
        Request((item.image,), "is there a red circle ?", ((item.question, answer.text),))
        for item, answer in zip(pictures, first, strict=True)
    ]
    later_answer = session.ask(later, max_new_tokens=4)
    assert [a.tokens for a in later_answer] == [
        a.tokens for a in embedded.ask_many(later, max_new_tokens=4)
    ]


def test_a_conversation_that_was_rewritten_is_refused(embedded: VLM, talks: list[Any]) -> None:
    session = Session(embedded, KeepSome())
    session.ask([first_turn(talks[0])])
    with pytest.raises(InputError, match="does not go on"):
        session.ask([second_turn(talks[0], "purple purple")])


def test_protocol_errors(embedded: VLM, talks: list[Any]) -> None:
    with pytest.raises(UnknownNameError, match="second-turn"):
        ask_under("second turn", embedded, [first_turn(talks[0])])
    with pytest.raises(InputError, match="earlier turn"):
        ask_under("second-turn", embedded, [first_turn(talks[0])])
    with pytest.raises(InputError, match="image"):
        ask_under("question-agnostic", embedded, [Request((), "hello ?")])


def test_what_never_looks_at_the_question_may_act_before_it(embedded: VLM) -> None:
    """DivPrune prunes the image alone, so reading the question later changes no answer."""
    asked = [Request((item.image,), item.question) for item in items("list", 3)]
    method = DivPrune(kept=0.2)
    first = ask_under("question-first", embedded, asked, method, max_new_tokens=8)
    ahead = ask_under("question-agnostic", embedded, asked, method, max_new_tokens=8)
    assert [answer.tokens for answer in first] == [answer.tokens for answer in ahead]
