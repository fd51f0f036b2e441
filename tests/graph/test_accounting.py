"""What a run says it kept: compared with the request, in bytes, with padding named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from lightkv import VLM, Request
from lightkv.catalogue import method as evictor
from lightkv.contract.compressor import Observation
from lightkv.contract.retention import Retention, verify
from lightkv.embedded import items
from lightkv.errors import RetentionMismatchError
from tests.graph.methods import KeepSome


@dataclass(frozen=True)
class Asks(KeepSome):
    """Claims that ``more`` entries than it keeps were requested, in one layer."""

    more: float = 0.0

    def retain(self, observations: Sequence[Observation]) -> list[Retention]:
        kept = super().retain(observations)
        kept[3] = replace(kept[3], requested=kept[3].requested + self.more)
        return kept


def requests() -> list[Request]:
    return [Request((item.image,), item.question) for item in items("read", 2)]


@pytest.mark.parametrize("more", [-2.0, 2.0])
def test_keeping_another_number_than_requested_is_an_error(embedded: VLM, more: float) -> None:
    with pytest.raises(RetentionMismatchError, match=r"layer 3, row 0: \d+ entries are kept"):
        embedded.ask_many(requests(), Asks(0.5, more=more), max_new_tokens=2)


def test_rounding_is_no_mismatch(embedded: VLM) -> None:
    embedded.ask_many(requests(), Asks(0.5, more=0.9), max_new_tokens=2)


def test_protection_and_length_bound_the_request() -> None:
    keep = torch.tensor([[True, True, True, False, False]])
    lengths = [5]
    protected = torch.tensor([3])
    verify([Retention.from_keep(keep, torch.tensor([0.5]), protected=protected)], [lengths])
    verify([Retention.from_keep(keep | True, torch.tensor([9.0]))], [lengths])
    with pytest.raises(RetentionMismatchError, match=r"0\.5 were requested and 0 are protected"):
        verify([Retention.from_keep(keep, torch.tensor([0.5]))], [lengths])


def test_the_first_layer_and_row_that_differ_are_named() -> None:
    whole = torch.ones(2, 5, dtype=torch.bool)
    right = Retention.from_keep(whole, torch.tensor([5.0, 5.0]))
    wrong = Retention.from_keep(whole, torch.tensor([5.0, 3.0]), unused=9)
    with pytest.raises(RetentionMismatchError, match=r"layer 1, row 1: 5 entries are kept of 5"):
        verify([right, wrong, wrong], [[5, 5]] * 3)
    fewer = Retention.from_keep(whole[:, :3], torch.tensor([5.0, 5.0]), unused=1)
    verify([right, fewer], [[5, 5]] * 2)
    less = Retention.from_keep(whole[:, :2], torch.tensor([5.0, 5.0]), unused=1)
    with pytest.raises(RetentionMismatchError, match=r"layer 1, row 0: 2 entries"):
        verify([right, less], [[5, 5]] * 2)


@pytest.mark.parametrize("name", ["tgvkv", "random", "streamingllm", "ada-kv", "pyramidkv"])
@pytest.mark.parametrize("retention", [0.5, 0.1])
def test_the_record_names_the_request(embedded: VLM, name: str, retention: float) -> None:
    answer = embedded.ask(requests()[0].images[0], requests()[0].question, evictor(name, retention))
    assert answer.record.requested_retention == pytest.approx(retention, abs=1e-4)


def test_a_share_of_the_vision_entries_is_reported_as_a_share_of_all(embedded: VLM) -> None:
    request = requests()[0]
    record = embedded.ask(
        request.images[0], request.question, evictor("tgvkv-vision-only", 0.1)
    ).record
    layout = record.layout
    text = int((layout.real & ~layout.vision).sum())
    wanted = (0.1 * int(layout.vision.sum()) + text) / int(layout.real.sum())
    assert record.requested_retention == pytest.approx(wanted, abs=1e-4)
    assert record.achieved_retention == pytest.approx(wanted, abs=2 / int(layout.real.sum()))


def test_methods_that_decide_per_head_say_what_padding_hides(embedded: VLM) -> None:
    request = requests()[0]
    per_head = embedded.ask(request.images[0], request.question, evictor("ada-kv", 0.2)).record
    entry = per_head.full_kv_bytes // sum(layer.length for layer in per_head.layers)
    held = sum(layer.padded for layer in per_head.layers) * entry
    assert per_head.kv_bytes + per_head.padding_bytes == pytest.approx(held)
    assert per_head.padding_bytes > 0
    assert str(per_head.padding_bytes) in per_head.warnings[0]
    shared = embedded.ask(request.images[0], request.question, evictor("snapkv", 0.2)).record
    assert shared.padding_bytes == 0 and shared.warnings == ()
