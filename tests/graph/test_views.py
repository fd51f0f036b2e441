"""What a view can show besides a layer's output: attention to come, angles, the final norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv import VLM
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack
from lightkv.contract.compressor import Reducer
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.rotary import logits_of_places, rotate, unrotate
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InvalidValueError
from tests.closeness import assert_close

ONE = {"max_new_tokens": 1, "do_sample": False}
LAYER = 1


@dataclass(frozen=True)
class Looking(Reducer):
    """Keeps every second vision token after a layer; remembers what it was shown."""

    seen: list[LayerView]
    ahead: bool = False
    layer: int = LAYER
    scale: float | None = None
    keeps_all: bool = False

    def __post_init__(self) -> None:
        return None

    def check(self, facts: ModelFacts) -> None:
        return None

    def check_layout(self, layout: TokenLayout) -> None:
        return None

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return (self.layer,)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return ()

    def looks_ahead(self) -> bool:
        return self.ahead

    def needs_rotary(self) -> bool:
        return not self.ahead

    def reduce(self, view: LayerView) -> Reduction:
        self.seen.append(view)
        layout = view.layout
        every_second = layout.vision & (layout.position % 2 == 0)
        return Reduction.from_keep(layout.real if self.keeps_all else layout.text | every_second)

    def states(self, view: LayerView, reduction: Reduction) -> Tensor | None:
        return None if self.scale is None else self.scale * reduction.apply(view.hidden)


class Watching:
    """Looks at a layer and its attention."""

    def __init__(self, layer: int) -> None:
        self.layer = layer
        self.views: list[LayerView] = []

    def layers(self, facts: ModelFacts) -> list[int]:
        return [self.layer]

    def attention_layers(self, facts: ModelFacts) -> list[int]:
        return [self.layer]

    def see(self, view: LayerView) -> None:
        self.views.append(view)


def inputs_of(vlm: VLM, name: str) -> dict[str, Any]:
    return stack(ZOO[name].rows(vlm.model.config)[:2])


@pytest.mark.parametrize("driver", ["hooks", "nnsight"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ZOO)
def test_the_attention_to_come_is_that_of_the_next_layer(
    name: str, kernel: str, driver: str
) -> None:
    vlm = ZOO[name].build(kernel)
    inputs = inputs_of(vlm, name)
    watching, shown = Watching(LAYER + 1), Looking([], ahead=True)
    vlm.generate(inputs, observers=(watching,), **ONE)
    record = vlm.generate(inputs, shown, driver=driver, **ONE).records[0]
    ahead, then = shown.seen[0].read_attention(), watching.views[0].read_attention()
    where = torch.arange(ahead.length).expand(ahead.batch_size, -1)
    real = shown.seen[0].layout.real[:, None, :, None]
    # Projected in one product or in two: not a bit-for-bit claim on every processor.
    assert_close(ahead.probabilities(where) * real, then.probabilities(where) * real)
    # It decided at the input of the next layer, and left nothing in its cache.
    lengths = record.prefill_lengths
    assert lengths[LAYER] == lengths[0] > lengths[LAYER + 1] == lengths[-1]
    assert [layer.entries for layer in record.layers] == list(lengths)


@pytest.mark.parametrize("name", ZOO)
def test_unrotated_keys_are_those_before_the_rotary_embedding(name: str) -> None:
    """Turned forward again they are the cached ones; places alone no longer tell them apart."""
    vlm = ZOO[name].build()
    shown = Looking([])
    vlm.generate(inputs_of(vlm, name), shown, **ONE)
    view = shown.seen[0]
    cos, sin = view.read_rotary()
    assert view.keys is not None
    back = unrotate(view.keys, (cos, sin))
    assert_close(rotate(back, cos[:, None], sin[:, None]), view.keys)
    projected = _unrotated(vlm, view.hidden, LAYER + 1)
    if projected is not None:
        again = Looking([], layer=LAYER + 1)
        vlm.generate(inputs_of(vlm, name), again, **ONE)
        later = again.seen[0]
        assert later.keys is not None
        real = later.layout.real[:, None, :, None]
        ours = unrotate(later.keys, later.read_rotary()) * real
        assert_close(ours, projected * real)


def _unrotated(vlm: VLM, hidden: Tensor, number: int) -> Tensor | None:
    """Keys (B, H_kv, N, d) that a plain layer projects, None where its family does more."""
    layer = vlm.model.get_decoder().layers[number]
    if not hasattr(layer.self_attn, "k_proj") or hasattr(layer.self_attn, "k_norm"):
        return None
    with torch.no_grad():
        keys = layer.self_attn.k_proj(layer.input_layernorm(hidden))
    return keys.view(*hidden.shape[:2], -1, layer.self_attn.head_dim).transpose(1, 2)


@pytest.mark.parametrize("name", ZOO)
def test_the_final_norm_is_the_models(name: str) -> None:
    vlm = ZOO[name].build()
    inputs = inputs_of(vlm, name)
    last = Watching(vlm.facts.layers - 1)
    output = vlm.generate(
        inputs,
        observers=(last,),
        **ONE,
        output_hidden_states=True,
        return_dict_in_generate=True,
    ).output
    real = last.views[0].layout.real
    assert_close(last.views[0].normed()[real], output.hidden_states[0][-1][real])


def test_states_of_survivors_can_be_given(tiny_vlm: VLM) -> None:
    from tests.tiny import prompt

    inputs = prompt(1, 6)
    plain, same, other = (Looking([], scale=scale) for scale in (None, 1.0, 3.0))
    settings = {**ONE, "output_logits": True, "return_dict_in_generate": True}
    outputs = [tiny_vlm.generate(inputs, one, **settings).output for one in (plain, same, other)]
    logits = [output.logits[0] for output in outputs]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    # States count also where all tokens stay.
    kept = [
        tiny_vlm.generate(inputs, Looking([], scale=scale, keeps_all=True), **settings).output
        for scale in (None, 3.0)
    ]
    assert not torch.equal(kept[0].logits[0], kept[1].logits[0])
    wrong = Looking([], scale=1.0)
    object.__setattr__(wrong, "states", lambda view, reduction: view.hidden)
    with pytest.raises(InvalidValueError, match="states"):
        tiny_vlm.generate(inputs, wrong, **ONE)


def test_places_alone_are_as_alike_as_queries_and_keys_of_ones() -> None:
    angles = torch.arange(7.0)[:, None] / 100.0 ** (torch.arange(3) / 3)
    both = torch.cat([angles, angles], -1)[None]
    rotary = both.cos(), both.sin()
    ones = rotate(torch.ones(1, 1, 7, 10), rotary[0][:, None], rotary[1][:, None])[0, 0]
    assert_close(logits_of_places(rotary, 10)[0], ones @ ones.T / 10**0.5)


@dataclass(frozen=True)
class BothWays(Looking):
    """Its layer's tokens see later ones."""

    def two_way_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return (self.layer,)


@pytest.mark.parametrize("driver", ["hooks", "nnsight"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_a_layer_can_look_both_ways(name: str, kernel: str, driver: str) -> None:
    vlm = ZOO[name].build(kernel)
    inputs = inputs_of(vlm, name)
    causal, two_way = Looking([]), BothWays([])
    for method in (causal, two_way):
        vlm.generate(inputs, method, driver=driver, **ONE)
    ours, usual = two_way.seen[0], causal.seen[0]
    before = Watching(LAYER - 1)
    vlm.generate(inputs, observers=(before,), **ONE)
    layer = vlm.model.get_decoder().layers[LAYER]
    real = ours.layout.real
    hidden = torch.zeros(real.shape[0], 1, real.shape[1], real.shape[1])
    hidden = hidden.masked_fill(~real[:, None, None], torch.finfo(torch.float32).min)
    layer.self_attn.config._attn_implementation = "eager"
    with torch.no_grad():
        expected = layer(
            before.views[0].hidden, attention_mask=hidden, position_embeddings=ours.read_rotary()
        )
    assert_close(ours.hidden[real], expected[real])
    assert float((ours.hidden - usual.hidden)[real].abs().max()) > 0.01
    # The last token sees the same either way.
    assert_close(ours.hidden[:, -1], usual.hidden[:, -1])
