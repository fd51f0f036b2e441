"""Images shown a second time: the prompt before stays what it was, and the copies are alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM
from lightkv.catalogue import method
from lightkv.check.tiny import ZOO
from lightkv.errors import UnsupportedError
from lightkv.reading import before_question, with_repetition
from lightkv.session import Session
from tests.closeness import assert_close
from tests.families.test_turns import ASKED, Rehearsed, rehearsed, says

WORDS = torch.tensor([[11, 12, 13]])
FAMILIES = [name for name in ZOO if not name.startswith("fuyu")]


def read(vlm: VLM, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
    """Input (1, N, D) of the first decoder layer, and the cache after one pass."""
    seen: list[Tensor] = []
    layer = vlm.model.get_decoder().layers[0]

    def note(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        cache = vlm.model(**vlm.model_inputs(inputs), use_cache=True).past_key_values
    handle.remove()
    return seen[0], cache


@pytest.mark.parametrize("name", FAMILIES)
def test_images_are_repeated_after_a_prompt_that_stays_what_it_was(name: str) -> None:
    vlm, row = rehearsed(name)
    prefix = before_question(vlm, row)
    twice = with_repetition(vlm, prefix, WORDS)
    length = prefix["input_ids"].shape[1]
    layout, before = vlm.layout(twice), vlm.layout(prefix)
    first = int(before.vision[0].nonzero()[0])
    again = layout.vision[0, length + WORDS.shape[1] :]
    assert torch.equal(again, before.vision[0, first:])
    assert twice["input_ids"][0, length : length + 3].tolist() == WORDS[0].tolist()
    hidden, cache = read(vlm, twice)
    _, plain = read(vlm, prefix)
    copies = hidden[0, length + WORDS.shape[1] :][again]
    assert_close(copies, hidden[0, first:length][again], 1e-4)
    for ours, theirs in zip(cache.layers, plain.layers, strict=True):
        count = min(theirs.keys.shape[2], length)
        if theirs.keys.shape[2] == length and ours.keys.shape[2] == twice["input_ids"].shape[1]:
            assert_close(ours.keys[:, :, :count], theirs.keys, 1e-4)
            assert_close(ours.values[:, :, :count], theirs.values, 1e-4)


def test_fuyus_images_can_not_be_repeated() -> None:
    vlm, row = rehearsed(next(name for name in ZOO if name.startswith("fuyu")))
    with pytest.raises(UnsupportedError, match="second time"):
        with_repetition(vlm, before_question(vlm, row), WORDS)


class _Words:
    """A tokenizer that knows the instruction."""

    def __call__(self, text: str, **_: Any) -> Any:
        return type("Encoded", (), {"input_ids": WORDS})()


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl", "internvl"])
def test_a_repetition_leaves_no_trace_where_everything_is_kept(name: str) -> None:
    """Positions of later tokens are those of a prompt that was read once."""
    vlm, row = rehearsed(name)
    vlm.processor.tokenizer = _Words()
    wanted = says(vlm, row)
    session = Session(vlm, method("kvzip", 1.0))
    vlm.prepared = [row, row]
    session.read(ASKED)
    vlm.prepared = [row]
    answer = session.ask(ASKED, max_new_tokens=4)[0]
    assert answer.tokens == wanted
    assert isinstance(vlm, Rehearsed) and not vlm.prepared
