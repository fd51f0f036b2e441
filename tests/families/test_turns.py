"""A second turn on a held cache has the positions of the whole conversation, in every family."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM, Request
from lightkv.check.drawn_methods import DrawnEviction
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import Row
from lightkv.session import Session

COUNT = 4
ASKED = [Request((), "again ?")]


class Rehearsed(VLM):
    """Encodes prepared rows instead of requests."""

    prepared: list[Row]

    def encode(self, requests: Sequence[Request], *_: Any, **__: Any) -> dict[str, Tensor]:
        return dict(self.prepared.pop(0))


def rehearsed(name: str) -> tuple[Rehearsed, Row]:
    made = ZOO[name].build()
    vlm = Rehearsed(name, made.model, SimpleNamespace(decode=lambda *_, **__: ""), made.family)
    return vlm, ZOO[name].rows(made.model.config)[0]


def with_turn(row: Row, said: Sequence[int]) -> Row:
    """The row, an answer and a further question."""
    more = torch.tensor([[*said, 11, 12, 13, 14, 15]])
    longer = {**row, "input_ids": torch.cat([row["input_ids"], more], 1)}
    for key in ("attention_mask", "mm_token_type_ids", "token_type_ids"):
        if key in row:
            fill = torch.ones_like(more) if key == "attention_mask" else torch.zeros_like(more)
            longer[key] = torch.cat([row[key], fill.to(row[key])], 1)
    return longer


def says(vlm: VLM, row: Row) -> tuple[int, ...]:
    output = vlm.generate(row, max_new_tokens=COUNT, do_sample=False).output
    return tuple(output[0, -COUNT:].tolist())


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3"])
@pytest.mark.parametrize("ahead", [False, True], ids=["second turn", "read ahead"])
def test_keeping_everything_answers_as_a_fresh_prompt(name: str, ahead: bool) -> None:
    vlm, row = rehearsed(name)
    session = Session(vlm, DrawnEviction(2.0))
    vlm.prepared = [row]
    if ahead:
        session.read(ASKED)
        vlm.prepared = [row]
    first = session.ask(ASKED, max_new_tokens=COUNT)[0]
    assert first.tokens == says(vlm, row)
    later = with_turn(row, first.tokens)
    vlm.prepared = [later]
    expected = says(vlm, later)
    # Another prompt on the same model in between leaves the session alone.
    says(vlm, ZOO[name].rows(vlm.model.config)[1])
    assert session.ask(ASKED, max_new_tokens=COUNT)[0].tokens == expected
