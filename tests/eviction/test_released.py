"""The released arithmetic of TGV-KV, piece by piece; whole cases are in test_golden_tgv."""

import pytest
import torch

from lightkv import TGVKV
from lightkv.contract.layout import TokenKind
from lightkv.errors import InputError
from lightkv.eviction.methods.tgvkv_released import (
    ReleasedTextVision,
    drop_counts,
    forget_share,
    one_block,
)
from lightkv.eviction.parts.decoding import EvictOne
from tests.closeness import assert_close
from tests.eviction.prompts import FACTS, Rows, causal, kept, layout_of


def decide(strengths, retention, length, floor=5, seen=None):
    lengths = torch.full((1, len(strengths)), length)
    claims = [torch.tensor([s]) for s in strengths]
    budget = ReleasedTextVision(seen)
    floors = torch.full_like(lengths, floor)
    return budget.decide(claims, retention * lengths.double(), lengths, floors, False)


def test_forget_share_may_be_negative_and_counts_are_clipped():
    lengths = torch.full((1, 2), 54)
    forget = forget_share(torch.tensor([[1.0, 9.0]]), 0.75 * lengths.double(), lengths)
    assert_close(forget, torch.tensor([[0.85, -0.35]]))
    assert drop_counts(forget, lengths).tolist() == [[46, 0]]


def test_drop_counts_round_half_to_even():
    lengths = torch.tensor([[2, 6, 10]])
    assert drop_counts(torch.full((1, 3), 0.25), lengths).tolist() == [[0, 2, 2]]


def test_what_a_layer_cannot_use_is_lost():
    allocation = decide([1.0, 19.0], 0.75, 54)
    assert allocation.entries.tolist() == [[5, 54]]
    assert_close(allocation.ratio, torch.tensor([[0.075, 1.425]]))


def test_less_than_one_entry_to_drop_leaves_the_prompt_alone():
    assert decide([1.0, 9.0], 0.99, 50).entries.tolist() == [[50, 50]]
    assert decide([1.0, 9.0], 0.98, 50).entries.tolist() != [[50, 50]]
    # More tokens seen than the cache holds: more are allowed.
    assert decide([1.0, 9.0], 0.5, 50, seen=100).entries.tolist() == [[50, 50]]


def test_no_strength_at_all_leaves_the_prompt_alone():
    allocation = decide([0.0, 0.0], 0.5, 50)
    assert allocation.entries.tolist() == [[50, 50]]
    assert allocation.ratio.isnan().all()


def test_several_images_are_read_as_one_block():
    kinds = one_block(layout_of("ssvvvttvvvttt")).kind[0].tolist()
    names = {TokenKind.SYSTEM: "s", TokenKind.VISION: "v", TokenKind.TEXT: "t"}
    assert "".join(names[TokenKind(kind)] for kind in kinds) == "ssvvvvvvttttt"


def test_one_block_of_padded_rows():
    rows = Rows(["svvtt", "sssvvtvvvtttt"])
    batch = one_block(rows.views()[0].layout)
    for row, layout in enumerate(rows.layouts):
        alone = one_block(layout).kind[0]
        assert torch.equal(batch.kind[row, -len(alone) :], alone)
        assert (batch.kind[row, : -len(alone)] == TokenKind.PADDING).all()


def test_a_prompt_without_question_is_left_alone_while_the_paper_refuses():
    view = causal("ssvvvvvv")
    method = TGVKV.released(0.2)
    method.check(FACTS)
    method.check_layout(view.layout)
    assert kept(method.retain([method.observe(view)])[0]) == list(range(8))
    with pytest.raises(InputError, match="text after the image"):
        TGVKV(retention=0.2).check_layout(view.layout)


def test_a_prompt_without_image_is_refused():
    with pytest.raises(InputError, match="vision token"):
        TGVKV.released(0.2).check_layout(layout_of("sstt"))


def test_settings():
    method = TGVKV.released(0.1, protect_first=2)
    assert method.decode_policy() == EvictOne(2)
    assert not method.redistribute
    assert "ReleasedTGVKV" in repr(method)
