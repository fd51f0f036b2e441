"""Two drivers carry out one definition: equal bits, and nothing left on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from nnsight import NNsight
from torch import Tensor, nn
from transformers import LogitsProcessor, StoppingCriteria

import lightkv
from lightkv import VLM, Request
from lightkv.catalogue import method as evictor
from lightkv.check.drawn_methods import DrawnEviction, DrawnMerges
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack as stack_rows
from lightkv.contract.compressor import Compressor, LayerView, ModelFacts, Observation
from lightkv.contract.decoding import DecodePolicy, DecodeView
from lightkv.contract.interventions import Intervention, Knockout, KVPatch
from lightkv.embedded import conversations
from lightkv.engine.graph import InterventionGraph
from lightkv.errors import InvalidValueError, LightKVError, UnsupportedError
from lightkv.merging.lightkv import LightKV
from lightkv.session import Session
from tests.graph.methods import KeepSome, MergeSome
from tests.test_methods import METHODS, built
from tests.tiny import prompt, stack, tiny_llava

SETTINGS: dict[str, Any] = {
    "max_new_tokens": 4,
    "do_sample": False,
    "output_logits": True,
    "output_hidden_states": True,
    "return_dict_in_generate": True,
}
STAGES = LightKV((0, 2), (2, 1), (0.3, 0.3))
ROWS = [prompt(1, 8), prompt(1, 12, seed=1), prompt(2, 6, seed=2)]

Both = tuple[Any, Any]


def left_by(vlm: VLM, inputs: dict[str, Tensor], driver: str, **settings: Any) -> Any:
    """Everything that a run leaves, or the words of its refusal."""
    try:
        made = vlm.generate(inputs, driver=driver, keep_run=True, **settings)
    except LightKVError as error:
        return f"{type(error).__name__}: {error}"
    held = made.run.held
    tail = held.continue_with(torch.ones(held.entries[0].valid.shape[0], 1, dtype=torch.bool))
    layers = held.cache.layers
    records = [
        (one.length, one.kept, one.entries, one.requested, one.padded, one.provenance is None)
        for record in made.records
        for one in record.layers
    ]
    return {
        "output": dict(made.output),
        "cache": [(layer.keys, layer.values) for layer in layers],
        "entries": [(one.position, one.valid, one.score, one.rotated) for one in held.entries],
        "records": records,
        "bytes": [(one.kv_bytes, one.padding_bytes, one.full_kv_bytes) for one in made.records],
        "next": tail,
    }


def assert_equal(ours: Any, theirs: Any, path: str = "") -> None:
    assert type(ours) is type(theirs), path
    if isinstance(ours, Tensor):
        assert torch.equal(ours, theirs), path
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            if key != "past_key_values":
                assert_equal(ours[key], theirs[key], f"{path}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), path
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(one, other, f"{path}/{number}")
    else:
        assert ours == theirs, path


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


class Watch:
    """Keeps what it is shown of all layers."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(-1, facts.layers)

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(1, facts.layers)

    def see(self, view: LayerView) -> None:
        rows = None
        if view.layer >= 1:
            rows = view.read_attention().column_sums(view.layout.real)
        self.seen.append((view.layer, view.hidden.clone(), rows))


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
