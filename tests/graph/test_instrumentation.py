"""Nothing is left on the model after a run, and hooks stay no longer than they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from nnsight import NNsight
from torch import Tensor, nn
from transformers import LogitsProcessor, StoppingCriteria

import lightkv
from lightkv import VLM
from lightkv.catalogue import method as evictor
from lightkv.contract.compressor import Compressor, Observation
from lightkv.contract.decoding import DecodePolicy, DecodeView
from lightkv.contract.interventions import Knockout
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.engine.graph import InterventionGraph
from lightkv.errors import InvalidValueError, UnsupportedError
from tests.graph.driving import ROWS, SETTINGS, Watch, assert_equal, left_by
from tests.graph.methods import KeepSome, MergeSome
from tests.tiny import prompt, stack


def traces_on(model: nn.Module) -> list[Any]:
    """Whatever a driver could leave on a model, module by module."""
    names = ("forward", "__nnsight__", "config")
    return [
        (
            {name: id(module.__dict__[name]) for name in names if name in module.__dict__},
            list(module._forward_hooks.values()),
            list(module._forward_pre_hooks.values()),
        )
        for module in model.modules()
    ]


@dataclass(frozen=True)
class FailsInPrefill(KeepSome):
    def observe(self, view: LayerView) -> Observation:
        if view.layer == 2:
            raise RuntimeError("the method broke")
        return super().observe(view)

    def attention_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        return tuple(range(facts.layers))


@dataclass(frozen=True)
class FailsInDecode(DecodePolicy):
    @property
    def needs_attention(self) -> bool:
        return True

    def evict(self, view: DecodeView) -> None:
        if view.layer == 2:
            raise RuntimeError("the method broke")


class FailsAfter(StoppingCriteria):
    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the method broke")


BREAKS: dict[str, dict[str, Any]] = {
    "prefill": {"compressor": FailsInPrefill()},
    "decode": {"compressor": KeepSome(decode=FailsInDecode())},
    "stopping criterion": {"compressor": KeepSome(), "stopping_criteria": [FailsAfter()]},
}


@pytest.fixture
def clean(tiny_vlm: VLM) -> Iterator[Callable[[], None]]:
    # transformers installs hooks of its own, for good, when hidden states are first recorded.
    plain = tiny_vlm.model.generate(**ROWS[0], **SETTINGS)
    before = traces_on(tiny_vlm.model)

    def check() -> None:
        assert traces_on(tiny_vlm.model) == before
        assert_equal(dict(tiny_vlm.model.generate(**ROWS[0], **SETTINGS)), dict(plain))

    yield check


@pytest.mark.parametrize("driver", ["hooks", "nnsight"])
@pytest.mark.parametrize("name", BREAKS)
def test_errors_leave_nothing_and_keep_their_type(
    tiny_vlm: VLM, clean: Callable[[], None], driver: Any, name: str
) -> None:
    with pytest.raises(RuntimeError, match="the method broke"):
        tiny_vlm.generate(ROWS[0], driver=driver, **BREAKS[name], **SETTINGS)
    clean()
    again = tiny_vlm.generate(ROWS[0], evictor("h2o", 0.5), driver=driver, **SETTINGS)
    fresh = tiny_vlm.generate(ROWS[0], evictor("h2o", 0.5), **SETTINGS)
    assert_equal(dict(again.output), dict(fresh.output))
    clean()


class Count(LogitsProcessor):
    """Counts what stands around decoder layers and attention when a token is chosen."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.before = traces_on(model)
        self.seen: list[int] = []

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        parts = zip(traces_on(self.model), self.before, strict=True)
        self.seen.append(sum(now != before for now, before in parts))
        return scores


@pytest.mark.parametrize(
    ("method", "batch", "stays"),
    [
        (KeepSome(2.0), "padded", False),
        (MergeSome((1,)), "one", False),
        (evictor("tgvkv", 0.3), "one", False),
        (evictor("tgvkv", 0.3), "padded", True),
        (evictor("h2o", 0.5), "one", True),
    ],
    ids=["nothing left", "merged", "evicted", "rows differ", "goes on evicting"],
)
def test_hooks_go_once_decoding_needs_nothing(
    clean: Callable[[], None], tiny_vlm: VLM, method: Compressor, batch: str, stays: bool
) -> None:
    count = Count(tiny_vlm.model)
    inputs = stack(ROWS if batch == "padded" else ROWS[:1])
    tiny_vlm.generate(inputs, method, logits_processor=[count], max_new_tokens=4, do_sample=False)
    # Eager attention always takes a mask, so each layer needs one of its own length.
    eager = tiny_vlm.attention == "eager" and method != KeepSome(2.0)
    assert [number > 0 for number in count.seen] == [stays or eager] * 4
    clean()


def test_a_users_own_trace_works_around_a_run(tiny_vlm: VLM, clean: Callable[[], None]) -> None:
    inputs = prompt(1, 5)
    alone = tiny_vlm.generate(inputs, MergeSome((0,)), **SETTINGS)
    wrapped = NNsight(tiny_vlm.model.get_decoder())
    seen: dict[str, Tensor] = {}

    def run(inputs: dict[str, Tensor]) -> Any:
        return tiny_vlm.generate(inputs, MergeSome((0,)) | evictor("tgvkv", 0.5), **SETTINGS)

    with wrapped.trace(inputs, fn=run):
        seen["input"] = wrapped.layers[2].inputs[0][0]
        wrapped.layers[2].output[:] = 0
        seen["next"] = wrapped.layers[3].inputs[0][0]
    assert (
        seen["input"].shape[1] == alone.records[0].prefill_lengths[2] < inputs["input_ids"].shape[1]
    )
    assert not seen["next"].any()
    # A user's own wrapping stays; what we add to it does not, whichever driver runs.
    before = traces_on(tiny_vlm.model)
    for driver in ("nnsight", "hooks"):
        again = tiny_vlm.generate(inputs, MergeSome((0,)), driver=driver, **SETTINGS)  # type: ignore[arg-type]
        assert_equal(dict(again.output), dict(alone.output))
        assert traces_on(tiny_vlm.model) == before


def test_auto_takes_hooks_for_a_compressor_alone(
    tiny_vlm: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightkv.engine import hooks, traces

    taken: list[str] = []
    for kind in (hooks.Hooks, traces.Traces):

        def call(self: Any, passes: Any, function: Any, *, _call: Any = kind.call, **s: Any) -> Any:
            taken.append(type(self).__name__)
            return _call(self, passes, function, **s)

        monkeypatch.setattr(kind, "call", call)
    few: dict[str, Any] = {"max_new_tokens": 1}
    tiny_vlm.generate(ROWS[0], KeepSome(), **few)
    tiny_vlm.generate(ROWS[0], keep_run=True, **few)
    tiny_vlm.generate(ROWS[0], KeepSome(), observers=(Watch(),), **few)
    tiny_vlm.generate(ROWS[0], interventions=(Knockout((1,)),), **few)
    tiny_vlm.generate(ROWS[0], KeepSome(), driver="nnsight", **few)
    tiny_vlm.generate(ROWS[0], interventions=(Knockout((1,)),), driver="hooks", **few)
    assert taken == ["Hooks", "Hooks", "Traces", "Traces", "Traces", "Hooks"]


def test_an_unknown_driver_is_refused_before_anything_runs(tiny_vlm: VLM) -> None:
    with pytest.raises(InvalidValueError, match=r"driver is 'torch'.*'auto', 'nnsight', 'hooks'"):
        tiny_vlm.generate(ROWS[0], KeepSome(), driver="torch")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="driver"):
        tiny_vlm.generate(ROWS[0], driver="torch")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="driver"):
        lightkv.load("no-such-folder", driver="torch")  # type: ignore[arg-type]


def test_a_run_inside_a_run_is_refused(tiny_vlm: VLM, clean: Callable[[], None]) -> None:
    class Nested(Watch):
        def see(self, view: LayerView) -> None:
            tiny_vlm.generate(ROWS[0], KeepSome(), max_new_tokens=1)

    for driver in ("hooks", "nnsight"):
        with pytest.raises(UnsupportedError, match="another run is active"):
            tiny_vlm.generate(ROWS[0], observers=(Nested(),), driver=driver, max_new_tokens=1)  # type: ignore[arg-type]
        clean()


def test_a_graph_for_every_model(tiny_vlm: VLM) -> None:
    """Two graphs of one model don't know each other's instruments."""
    path = tiny_vlm.family.decoder_path(tiny_vlm.model)
    other = VLM("other", tiny_vlm.model, None, tiny_vlm.family)
    other._graph = InterventionGraph(tiny_vlm.model, path)
    first = left_by(tiny_vlm, ROWS[0], "nnsight", compressor=KeepSome(), **SETTINGS)
    assert_equal(left_by(other, ROWS[0], "nnsight", compressor=KeepSome(), **SETTINGS), first)
    assert_equal(left_by(tiny_vlm, ROWS[0], "nnsight", compressor=KeepSome(), **SETTINGS), first)
