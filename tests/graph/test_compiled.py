"""Compiled decode steps are those of eager decoding up to rounding; generate stays its own."""

from __future__ import annotations

from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from lightkv import VLM
from lightkv.check.drawn_methods import DrawnMerges
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack as stack_rows
from lightkv.commands.ask import ask_command
from lightkv.contract.compressor import Compressor
from lightkv.embedded import items
from lightkv.engine import compiled
from lightkv.errors import UnsupportedError
from tests.graph.compiling import SETTINGS, Traced, assert_alike, both
from tests.graph.methods import KeepNewest, KeepSome, MergeSome
from tests.tiny import prompt, stack, tiny_llava

pytestmark = pytest.mark.usefixtures("traced")

METHODS: dict[str, Compressor | None] = {
    "full cache": None,
    "layers of their own length": KeepNewest(),
    "merged, then cut": MergeSome((0,)) | KeepSome(0.6),
    "heads of their own": KeepSome(0.5, per_head=True),
}
BATCHES = {"one": [prompt(1, 8)], "padded": [prompt(1, 8), prompt(2, 6, seed=2)]}


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def small(request: pytest.FixtureRequest) -> VLM:
    return tiny_llava(request.param, layers=2)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", METHODS)
def test_steps_are_those_of_eager_decoding(
    small: VLM, traced: Traced, name: str, batch: str
) -> None:
    before = len(traced.graphs)
    assert_alike(*both(small, stack(BATCHES[batch]), compressor=METHODS[name]))
    assert len(traced.graphs) <= before + 1


# A wrapper or a decoder of its own each; those left out share one of these.
FAMILIES = ("llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl", "idefics3", "fuyu")


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    vlm = ZOO[name].build()
    method = DrawnMerges(-1) | KeepSome(0.5, per_head=True)
    inputs = stack_rows(ZOO[name].rows(vlm.model.config))
    assert_alike(*both(vlm, inputs, compressor=method, max_new_tokens=3))


EMBEDDED = {
    "full cache": None,
    "tgvkv": "tgvkv:retention=0.3",
    "ada-kv": "ada-kv:retention=0.4",
    "lightkv": "lightkv",
    "lightkv | snapkv": "lightkv | snapkv:retention=0.5",
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_embedded_model_answers_alike(embedded: VLM, name: str) -> None:
    item = items("read", 1)[0]
    eager = embedded.ask(item.image, item.question, EMBEDDED[name])
    ours = embedded.ask(item.image, item.question, EMBEDDED[name], decode="compiled")
    assert len(eager.tokens) > 2
    assert ours.tokens == eager.tokens
    assert repr(ours) == repr(eager)
    assert ours.kept == eager.kept
    assert ours.kv_bytes == eager.kv_bytes


def test_the_compiler_itself(traced: Traced) -> None:
    if which("g++") is None and which("clang++") is None:
        pytest.skip("torch compiles for processors with a C++ compiler, and there is none")
    assert traced.stands_for == "inductor"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "BACKEND", traced.stands_for)
        assert_alike(*both(tiny_llava(layers=1), prompt(1, 8), compressor=KeepSome(0.5)))


class Tokens(BaseStreamer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.tokens: list[list[int]] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.tokens.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended = True


def test_processors_and_streamers_are_those_of_generate(small: VLM) -> None:
    inputs, method = prompt(1, 8), KeepSome(0.5)
    plain = small.generate(inputs, method, **SETTINGS).output.sequences
    said = plain[0, inputs["input_ids"].shape[1] :].tolist()
    runs = []
    for decode in ("eager", "compiled"):
        streamer = Tokens()
        more = {"streamer": streamer, "suppress_tokens": said, "decode": decode}
        output = small.generate(inputs, method, **more, **SETTINGS).output
        assert streamer.ended
        streamed = [token for tokens in streamer.tokens for token in tokens]
        assert streamed == output.sequences[0].tolist()
        assert not {*output.sequences[0, -len(said) :].tolist()} & {*said}
        runs.append(output)
    assert_alike(*runs)


def test_a_model_with_a_method_attached_takes_it(small: VLM) -> None:
    quick = small.compressed_by(KeepSome(0.5))
    eager = quick.generate(**prompt(1, 8), **SETTINGS)
    kept = [layer.kept.tolist() for layer in quick.records[0].layers]
    assert_alike(eager, quick.generate(**prompt(1, 8), **SETTINGS, decode="compiled"))
    assert [layer.kept.tolist() for layer in quick.records[0].layers] == kept


class StopAt(StoppingCriteria):
    """Ends every row at a length."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return torch.full((len(ids),), ids.shape[1] >= self.length)


def test_criteria_end_it_and_what_joined_is_held(small: VLM) -> None:
    inputs = prompt(1, 8)
    length = inputs["input_ids"].shape[1] + 3
    stops = StoppingCriteriaList([StopAt(length)])
    eager, ours = both(small, inputs, stopping_criteria=stops)
    assert ours.sequences.shape[1] == length
    assert_alike(eager, ours)


def test_several_sequences_of_one_prompt(small: VLM) -> None:
    drawn = []
    for decode in ("eager", "compiled"):
        torch.manual_seed(0)
        settings = {**SETTINGS, "do_sample": True, "num_return_sequences": 2}
        drawn.append(small.generate(prompt(1, 8), KeepSome(0.5), decode=decode, **settings).output)
    assert drawn[1].sequences.shape[0] == 2
    assert_alike(*drawn)


class Broken(StoppingCriteria):
    """Fails at the second token."""

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        if ids.shape[1] > prompt(1, 8)["input_ids"].shape[1] + 1:
            raise KeyError("broken")
        return torch.zeros(len(ids), dtype=torch.bool)


def test_nothing_is_left_on_the_model(small: VLM) -> None:
    expected = small.model.generate(**prompt(1, 8), **SETTINGS)
    small.generate(prompt(1, 8), decode="compiled", **SETTINGS)
    stops = StoppingCriteriaList([Broken()])
    with pytest.raises(KeyError, match="broken"):
        small.generate(prompt(1, 8), decode="compiled", stopping_criteria=stops, **SETTINGS)
    for module in small.model.modules():
        assert "forward" not in vars(module)
    after = small.model.generate(**prompt(1, 8), **SETTINGS)
    assert torch.equal(torch.stack(after.logits), torch.stack(expected.logits))
    assert_alike(*both(small, prompt(1, 8)))


def test_a_model_that_was_traced_before(small: VLM) -> None:
    small.generate(prompt(1, 8), KeepSome(0.5), driver="nnsight", max_new_tokens=2)
    assert_alike(*both(small, prompt(1, 8), compressor=KeepSome(0.5)))


def test_one_run_at_a_time(small: VLM) -> None:
    class Asks(Broken):
        def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
            small.generate(prompt(1, 4), KeepSome(0.5), max_new_tokens=1)
            return super().__call__(ids, scores)

    stops = StoppingCriteriaList([Asks()])
    with pytest.raises(UnsupportedError, match="another run is active"):
        small.generate(prompt(1, 8), decode="compiled", stopping_criteria=stops, **SETTINGS)


def test_the_command_asks_it(tmp_path: Path, traced: Traced) -> None:
    item = items("read", 1)[0]
    item.image.save(tmp_path / "picture.png")
    asked = [str(tmp_path / "picture.png"), item.question, "--method", "tgvkv:retention=0.3"]
    eager = CliRunner().invoke(ask_command, asked)
    before = len(traced.graphs)
    ours = CliRunner().invoke(ask_command, [*asked, "--decode", "compiled"])
    assert len(traced.graphs) == before + 1
    assert ours.exit_code == 0
    assert ours.output == eager.output
