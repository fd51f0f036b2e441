"""KVzip on the graph: images read twice, then compressed, then asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightkv import VLM, Request
from lightkv.catalogue import compressor, method
from lightkv.embedded import items
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.protocols import ask_under, protocol
from lightkv.reading import before_question, scored

AGNOSTIC = "question-agnostic"


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    asked = [Request((item.image,), item.question) for item in items("read", 2)]
    # Rows of a batch differ in length.
    return [*asked, replace(asked[0], system="what color is the circle ?")]


@pytest.mark.parametrize("over", ["model", "layer", "head"])
def test_a_row_of_a_batch_is_compressed_as_alone(
    embedded: VLM, requests: list[Request], over: str
) -> None:
    kvzip = method("kvzip", 0.4, over=over)
    together = ask_under(AGNOSTIC, embedded, requests, kvzip, max_new_tokens=4)
    for request, answer in zip(requests, together, strict=True):
        alone = ask_under(AGNOSTIC, embedded, [request], kvzip, max_new_tokens=4)[0]
        assert alone.tokens == answer.tokens
        for ours, theirs in zip(answer.record.layers, alone.record.layers, strict=True):
            assert [k[k >= 0].tolist() for k in ours.kept] == [
                k[k >= 0].tolist() for k in theirs.kept
            ]


def test_the_record_is_that_of_the_prompt_without_its_repetition(
    embedded: VLM, requests: list[Request]
) -> None:
    answer = ask_under(AGNOSTIC, embedded, requests[:1], method("kvzip", 0.4))[0]
    record, layout = answer.record, answer.record.layout
    assert bool(layout.vision[0, -1]) and record.method == str(method("kvzip", 0.4))
    system = int((layout.real & ~layout.vision).sum())
    asked = (system + 0.4 * int(layout.vision.sum())) / layout.length
    assert record.requested_retention == pytest.approx(asked, abs=1e-4)
    assert record.achieved_retention == pytest.approx(asked, abs=1 / layout.length)
    for layer in record.layers:  # the text before the image stays in every head
        assert all(set(range(system)) <= set(kept.tolist()) for kept in layer.kept)


def test_scores_are_those_of_the_repetition(embedded: VLM, requests: list[Request]) -> None:
    """Another instruction is another reading."""
    plain = scored(embedded, method("kvzip", 0.4), requests[:1])
    other = scored(embedded, method("kvzip", 0.4, instruction="what color ?"), requests[:1])
    scores = [part.scores for part in (plain, other)]  # type: ignore[union-attr]
    assert len(scores[0]) == embedded.facts.layers
    assert not any(torch.equal(a, b) for a, b in zip(*scores, strict=True))
    assert scored(embedded, None, requests) is None
    h2o = method("h2o", 0.5)
    assert scored(embedded, h2o, requests) is h2o


def test_it_is_refused_where_the_question_is_known(embedded: VLM, requests: list[Request]) -> None:
    kvzip = method("kvzip", 0.4)
    with pytest.raises(InputError, match="question-agnostic"):
        embedded.ask_many(requests, kvzip)
    kvzip.check_layout(protocol(AGNOSTIC).layout(embedded, requests))
    with pytest.raises(UnsupportedError, match="not seen the images repeated"):
        prefix = before_question(embedded, embedded.encode(requests))
        embedded.generate(prefix, kvzip, max_new_tokens=1)
    text = "fastv:layer=2|kvzip:retention=0.4"
    with pytest.raises(InvalidValueError, match="alone"):
        ask_under(AGNOSTIC, embedded, requests, compressor(text, embedded.facts))
