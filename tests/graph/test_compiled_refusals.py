"""What can't be compiled is refused in words, before the prompt is read."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
from torch import Tensor
from transformers import CompileConfig

from lightkv import VLM
from lightkv.check.tiny import ZOO
from lightkv.contract.interventions import Knockout
from lightkv.engine import compiled
from lightkv.errors import InvalidValueError, UnsupportedError
from tests.graph.compiling import SETTINGS
from tests.graph.methods import MergeSome
from tests.tiny import prompt, tiny_llava


class Watch:
    """Looks at nothing."""

    def layers(self, facts: Any) -> Sequence[int]:
        return ()

    def attention_layers(self, facts: Any) -> Sequence[int]:
        return ()

    def see(self, view: Any) -> None: ...


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "evicting policy": ({"compressor": "h2o:retention=0.5"}, "evicts while decoding"),
    "re-indexed cache": ({"compressor": "tgvkv:retention=0.5;positions=reindex"}, "re-indexing"),
    "re-indexed merge": ({"compressor": MergeSome(positions="reindex")}, "re-indexing"),
    "observers": ({"observers": (Watch(),)}, "observers and interventions"),
    "interventions": (
        {"interventions": (Knockout((0,)),)},
        "observers and interventions",
    ),
    "nnsight": ({"driver": "nnsight"}, "driver='nnsight'"),
    "kept run": ({"keep_run": True}, "a cache that grows"),
    "beams": ({"num_beams": 2}, "num_beams=2"),
    "attentions": ({"output_attentions": True}, "output_attentions=True: compiled steps"),
    "states": ({"output_hidden_states": True}, "output_hidden_states=True: compiled steps"),
    "no compiling": ({"disable_compile": True}, "disable_compile=True: it says the opposite"),
    "how to compile": (
        {"compile_config": CompileConfig()},
        "compile_config=.*: it is for steps that transformers compiles by itself",
    ),
    "cache": ({"use_cache": False}, "use_cache=False"),
}


@pytest.fixture
def idle() -> VLM:
    """A model that fails if it is asked."""
    vlm = tiny_llava(layers=2)

    @functools.wraps(vlm.model.forward)
    def forward(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was run before the refusal")

    vars(vlm.model)["forward"] = forward
    return vlm


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_the_prompt_is_read(idle: VLM, name: str) -> None:
    settings, words = REFUSED[name]
    with pytest.raises(UnsupportedError, match=words):
        idle.generate(prompt(1, 8), decode="compiled", **settings)


def test_no_other_way_to_decode(idle: VLM) -> None:
    with pytest.raises(
        InvalidValueError, match="decode is 'fast'; allowed: one of 'eager', 'compiled'"
    ):
        idle.generate(prompt(1, 8), decode="fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gemma3", "llava_next_mistral"])
def test_windows_are_refused(name: str) -> None:
    vlm = ZOO[name].build()
    narrow = min(window for window in vlm.quirks.windows if window)
    with pytest.raises(UnsupportedError, match=f"look back on {narrow} tokens"):
        vlm.generate(ZOO[name].rows(vlm.model.config)[0], decode="compiled")


class Quantiser:
    """Of weights that can't be compiled."""

    is_compileable = False


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("hf_device_map", {"a": 0, "b": "cpu"}, "several devices"),
        ("hf_quantizer", Quantiser(), "quantised"),
    ],
)
def test_placements_are_refused(
    idle: VLM, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, words: str
) -> None:
    monkeypatch.setattr(idle.model, name, value, raising=False)
    with pytest.raises(UnsupportedError, match=words):
        idle.generate(prompt(1, 8), decode="compiled")


ALLOWED: dict[str, Any] = {
    "hf_device_map": {"": "cpu"},
    "hf_quantizer": type("Compilable", (), {"is_compileable": True})(),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_other_placements_are_not(idle: VLM, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(idle.model, name, ALLOWED[name], raising=False)
    settings = {"num_beams": 1, "output_attentions": False, "disable_compile": False}
    with pytest.raises(AssertionError, match="the model was run"):
        idle.generate(prompt(1, 8), decode="compiled", max_new_tokens=2, **settings)


def test_a_step_with_a_branch() -> None:
    vlm = tiny_llava(layers=1)
    feed = vlm.model.get_decoder().layers[0].mlp
    plain = feed.forward
    vars(feed)["forward"] = lambda states: plain(states) * (1 if states.sum() > 0 else 2)
    with pytest.raises(UnsupportedError, match=r"can't be compiled here: [^;]*branch"):
        vlm.generate(prompt(1, 8), decode="compiled", max_new_tokens=2)


def test_a_step_that_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(*_: Any) -> Any:
        raise ValueError("no compiler here")

    monkeypatch.setattr(compiled, "BACKEND", backend)
    with pytest.raises(UnsupportedError, match=r"can't be compiled here: .*no compiler here"):
        tiny_llava(layers=1).generate(prompt(1, 8), decode="compiled", max_new_tokens=2)


def test_a_trace_of_ones_own() -> None:
    vlm = tiny_llava(layers=1)
    nnsight = pytest.importorskip("nnsight")

    def asked(**inputs: Tensor) -> Any:
        return vlm.generate(inputs, decode="compiled", **SETTINGS)

    with (
        pytest.raises(Exception, match="compiled steps show it nothing"),
        nnsight.NNsight(vlm.model).trace(fn=asked, **prompt(1, 8)),
    ):
        pass
