"""How sure answers are is read off the model's own logits, and nothing stays on the model."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from analysis.asking.answering import ask
from analysis.asking.decisions import Steps, watched
from analysis.asking.jobs import configure
from analysis.tasks import task
from lightkv import TGVKV, VLM
from lightkv.prompting import QUESTION_AGNOSTIC, QUESTION_FIRST, SECOND_TURN
from lightkv.settings import GREEDY
from tests.analysis.stored import row
from tests.closeness import assert_close


def digest(tokens: Any) -> str:
    return hashlib.sha256(",".join(map(str, tokens)).encode()).hexdigest()[:12]


def test_tokens_and_smallest_lead(embedded: VLM) -> None:
    source = task("embedded/read")
    items = source.items(3, 0)
    method = TGVKV(retention=0.2)
    settings = configure(embedded, source, method, 0)
    with watched(embedded) as steps:
        rows = ask(embedded, items, method, settings)
    decisions = steps.decisions(rows, QUESTION_FIRST)
    assert not embedded.model.get_output_embeddings()._forward_hooks
    inputs = embedded.encode([item.request() for item in items], method)
    output = embedded.generate(
        inputs,
        method,
        max_new_tokens=settings.max_new_tokens,
        output_logits=True,
        return_dict_in_generate=True,
        **GREEDY,
    ).output
    logits = torch.stack(output.logits, 1)
    new = output.sequences[:, inputs["input_ids"].shape[1] :]
    for number, (one, answered) in enumerate(zip(decisions, rows, strict=True)):
        length = answered.generated_tokens
        two = logits[number, :length].float().topk(2).values
        assert one.item == answered.item and one.tokens == digest(new[number, :length].tolist())
        assert_close(torch.tensor(one.gap), (two[:, 0] - two[:, 1]).min())


def steps_of(*logits: list[tuple[int, float]]) -> Steps:
    """Steps at each of which rows have a most likely token with a lead."""
    steps = Steps([9])
    for step in logits:
        seen = torch.zeros(len(step), 2, 10)
        for number, (token, lead) in enumerate(step):
            seen[number, -1, token] = lead
        steps.see(None, None, seen)
    return steps


def test_only_steps_of_the_answer_count() -> None:
    steps = steps_of(
        [(5, 0.5), (5, 0.5)], [(1, 3.0), (2, 2.0)], [(9, 4.0), (3, 1.0)], [(0, 0.1), (9, 5.0)]
    )
    rows = [row(0, generated_tokens=2), row(1, generated_tokens=3)]
    decisions = steps.decisions(rows, QUESTION_AGNOSTIC)
    assert [one.gap for one in decisions] == [3.0, 1.0]
    assert [one.tokens for one in decisions] == [digest([1, 9]), digest([2, 3, 9])]


def test_under_the_second_turn_the_first_answer_counts_up_to_its_end() -> None:
    steps = steps_of([(9, 2.0), (4, 6.0)], [(1, 0.1), (9, 0.7)], [(1, 3.0), (2, 4.0)])
    rows = [row(0, generated_tokens=1), row(1, generated_tokens=1)]
    assert [round(one.gap, 3) for one in steps.decisions(rows, SECOND_TURN)] == [2.0, 0.7]
    assert [one.gap for one in steps.decisions(rows, QUESTION_FIRST)] == [3.0, 4.0]
    assert steps.decisions(rows, QUESTION_FIRST)[0].values() == (digest([1]), 3.0)
