"""Two drivers carry out one definition: equal bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor

from lightkv import VLM, Request
from lightkv.catalogue import method as evictor
from lightkv.check.drawn_methods import DrawnEviction, DrawnMerges
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack as stack_rows
from lightkv.contract.compressor import Compressor
from lightkv.contract.interventions import Intervention, Knockout, KVPatch
from lightkv.embedded import conversations
from lightkv.merging.lightkv import LightKV
from lightkv.session import Session
from tests.graph.driving import ROWS, SETTINGS, Watch, assert_equal, left_by
from tests.graph.methods import KeepSome
from tests.test_methods import METHODS, built
from tests.tiny import stack, tiny_llava

STAGES = LightKV((0, 2), (2, 1), (0.3, 0.3))


def assert_drivers_agree(vlm: VLM, inputs: dict[str, Tensor], **settings: Any) -> None:
    by_hooks = left_by(vlm, inputs, "hooks", **settings)
    assert_equal(by_hooks, left_by(vlm, inputs, "nnsight", **settings))


FAMILY_METHODS: dict[str, Compressor] = {
    "keep all": DrawnEviction(2.0),
    "tgvkv": evictor("tgvkv", 0.3),
    "lightkv | released": STAGES | evictor("tgvkv-released", 0.4),
    "before layer 0 | per head": DrawnMerges(-1) | KeepSome(0.5, per_head=True),
    "h2o": evictor("h2o", 0.4),
}


@pytest.fixture(
    scope="module", params=[(n, k) for n in ZOO for k in ("sdpa", "eager")], ids="-".join
)
def family(request: pytest.FixtureRequest) -> VLM:
    name, kernel = request.param
    return ZOO[name].build(kernel)


@pytest.mark.parametrize("batch", ["one", "padded"])
@pytest.mark.parametrize("name", FAMILY_METHODS)
def test_every_family(family: VLM, name: str, batch: str) -> None:
    rows = ZOO[family.name].rows(family.model.config)
    inputs = stack_rows(rows if batch == "padded" else rows[:1])
    assert_drivers_agree(family, inputs, compressor=FAMILY_METHODS[name], **SETTINGS)


@pytest.mark.parametrize("batch", ["one", "padded"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method(tiny_vlm: VLM, name: str, batch: str) -> None:
    inputs = stack(ROWS if batch == "padded" else ROWS[:1])
    assert_drivers_agree(tiny_vlm, inputs, compressor=built(name), seed=3, **SETTINGS)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_half_precision(kernel: str) -> None:
    vlm = tiny_llava(kernel)
    vlm.model.to(torch.bfloat16)
    inputs = stack(ROWS)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    for name in ("tgvkv", "h2o"):
        assert_drivers_agree(vlm, inputs, compressor=evictor(name, 0.4), **SETTINGS)


class Forbid(LogitsProcessor):
    """Forbids what has been said, so that it sees the whole sequence or errs."""

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return scores.scatter(1, ids.clamp_max(scores.shape[1] - 1), -1e4)


class Heard:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.tokens: list[Tensor] = []

    def put(self, tokens: Tensor) -> None:
        self.tokens.append(tokens.clone())

    def end(self) -> None:
        self.tokens.append(torch.tensor([-1]))


WAYS: dict[str, dict[str, Any]] = {
    "sampling": {"do_sample": True, "temperature": 0.8},
    "beams": {"num_beams": 3},
    "returned sequences": {"do_sample": True, "num_return_sequences": 3},
    "processor": {"logits_processor": [Forbid()]},
    "attentions": {"output_attentions": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "method",
    [STAGES | evictor("tgvkv", 0.3), evictor("streamingllm", 0.4)],
    ids=["static", "evicts"],
)
def test_every_way_of_generating(tiny_vlm: VLM, way: str, method: Compressor) -> None:
    if way == "attentions" and tiny_vlm.attention != "eager":
        pytest.skip("only eager attention returns its probabilities")

    def left(driver: str) -> Any:
        torch.manual_seed(5)
        settings = {**SETTINGS, **WAYS[way]}
        return left_by(tiny_vlm, ROWS[0], driver, compressor=method, **settings)

    assert_equal(left("hooks"), left("nnsight"))


def test_streamers_hear_the_same(tiny_vlm: VLM) -> None:
    heard = {driver: Heard() for driver in ("hooks", "nnsight")}
    for driver, streamer in heard.items():
        tiny_vlm.generate(
            ROWS[0],
            evictor("tgvkv", 0.3),
            driver=driver,  # type: ignore[arg-type]
            streamer=streamer,
            max_new_tokens=4,
        )
    assert_equal(heard["hooks"].tokens, heard["nnsight"].tokens)


@pytest.mark.parametrize(
    "method", [None, STAGES | evictor("h2o", 0.4)], ids=["plain", "compressed"]
)
@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3"])
def test_observers_see_and_interventions_do_the_same(name: str, method: Compressor | None) -> None:
    vlm = ZOO[name].build()
    inputs = stack_rows(ZOO[name].rows(vlm.model.config)[:2])
    watch = {driver: Watch() for driver in ("hooks", "nnsight")}
    cut = Knockout((1, 2), "text", "vision")
    swap = patch(vlm, inputs)
    acting: list[tuple[Intervention, ...]] = [(cut,), (swap,), (cut, swap)]
    for interventions in acting if method is None else acting[:1]:
        left = {
            driver: left_by(
                vlm,
                inputs,
                driver,
                compressor=method,
                observers=(watch[driver],),
                interventions=interventions,
                **SETTINGS,
            )
            for driver in watch
        }
        assert isinstance(left["hooks"], dict)
        assert_equal(left["hooks"], left["nnsight"])
    assert len(watch["hooks"].seen) > vlm.facts.layers
    assert_equal(watch["hooks"].seen, watch["nnsight"].seen)


def patch(vlm: VLM, inputs: dict[str, Tensor]) -> KVPatch:
    """Every vision entry of layer 1 replaced by noise."""
    layout = vlm.layout(inputs)
    width = vlm.generate(inputs, keep_run=True, max_new_tokens=1).run
    assert width is not None
    shape = width.held.cache.layers[1].keys.shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return KVPatch((1,), {1: noise}, {1: noise}, layout)


@pytest.mark.parametrize(
    "method", [None, evictor("tgvkv", 0.3), evictor("h2o", 0.5), STAGES], ids=str
)
def test_conversations_go_on_alike(embedded: VLM, method: Compressor | None) -> None:
    talks = conversations(2, seed=5, turns=2)
    answers = {}
    for driver in ("hooks", "nnsight"):
        vlm = VLM("again", embedded.model, embedded.processor, embedded.family, driver)  # type: ignore[arg-type]
        session = Session(vlm, method)
        first = session.ask([Request((t.image,), t.turns[0].question) for t in talks])
        later = [
            Request((t.image,), t.turns[1].question, ((t.turns[0].question, answer.text),))
            for t, answer in zip(talks, first, strict=True)
        ]
        answers[driver] = [one.tokens for one in (*first, *session.ask(later))]
    assert answers["hooks"] == answers["nnsight"]


# ---------------------------------------------------------------------- nothing is left
