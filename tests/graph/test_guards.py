"""What would be silently wrong is refused; what is captured is what the model computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lightkv
from lightkv import VLM, Request
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InputError, InvalidValueError, ModelError, UnsupportedError
from tests.closeness import assert_close
from tests.graph.methods import KeepSome, MergeSome
from tests.graph.test_equivalence import BATCHES, SETTINGS, logits
from tests.tiny import prompt, stack


class Watch:
    """Keeps the attention rows and outputs of all layers."""

    def __init__(self) -> None:
        self.attention: dict[int, Tensor] = {}
        self.hidden: dict[int, Tensor] = {}

    def layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(facts.layers)

    def attention_layers(self, facts: ModelFacts) -> Sequence[int]:
        return range(facts.layers)

    def see(self, view: LayerView) -> None:
        every = torch.arange(view.layout.length).expand(view.layout.batch_size, -1)
        self.attention[view.layer] = view.read_attention().probabilities(every)
        self.hidden[view.layer] = view.hidden


@pytest.mark.parametrize("batch", BATCHES)
def test_captured_attention_is_that_of_the_eager_model(tiny_vlm: VLM, batch: str) -> None:
    inputs = stack(BATCHES[batch])
    watch = Watch()
    observed = tiny_vlm.generate(inputs, observers=(watch,), **SETTINGS)
    plain = tiny_vlm.model.generate(**inputs, **SETTINGS)
    assert torch.equal(logits(observed.output), logits(plain))
    kernel = tiny_vlm.model.config._attn_implementation
    tiny_vlm.model.set_attn_implementation("eager")
    with torch.no_grad():
        full = tiny_vlm.model(**inputs, output_attentions=True, output_hidden_states=True)
    tiny_vlm.model.set_attn_implementation(kernel)
    real = inputs["attention_mask"].bool()
    for layer, expected in enumerate(full.attentions):
        ours = watch.attention[layer].transpose(1, 2)[real]
        assert_close(ours, expected.transpose(1, 2)[real])
    assert_close(watch.hidden[1][real], full.hidden_states[2][real])


@pytest.mark.parametrize(
    "setting",
    [
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 4},
        {"prompt_lookup_num_tokens": 2},
    ],
    ids=lambda s: next(iter(s)),
)
def test_settings_that_would_be_silently_wrong_are_refused(
    tiny_vlm: VLM, setting: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedError, match=next(iter(setting))):
        tiny_vlm.generate(prompt(1, 5), KeepSome(), **{**SETTINGS, **setting})


def test_a_cache_handed_in_is_refused(tiny_vlm: VLM) -> None:
    from transformers import DynamicCache

    with pytest.raises(UnsupportedError, match="past_key_values"):
        tiny_vlm.generate(prompt(1, 5), KeepSome(), past_key_values=DynamicCache(), **SETTINGS)


def test_beams_with_one_prompt_are_answered_and_with_several_refused(tiny_vlm: VLM) -> None:
    beams = {"max_new_tokens": 4, "num_beams": 2, "do_sample": False}
    inputs = prompt(1, 5)
    full = tiny_vlm.model.generate(**inputs, **beams)
    nothing_evicted = tiny_vlm.generate(inputs, KeepSome(retention=2.0), **beams)
    assert torch.equal(nothing_evicted.output, full)
    assert tiny_vlm.generate(inputs, KeepSome(), **beams).output.shape == full.shape
    with pytest.raises(UnsupportedError, match="num_beams"):
        tiny_vlm.generate(stack(BATCHES["padded"]), KeepSome(), **beams)


def test_compositions_are_checked_before_the_model_runs(tiny_vlm: VLM) -> None:
    with pytest.raises(InvalidValueError, match="reducers first"):
        tiny_vlm.generate(prompt(1, 5), KeepSome() | MergeSome(), **SETTINGS)
    with pytest.raises(InvalidValueError, match="one reducer per layer"):
        tiny_vlm.compressed_by(MergeSome((1,)) | MergeSome((1, 2)))


def test_a_persistent_edit_leaves_the_model_alone_and_can_be_repeated(tiny_vlm: VLM) -> None:
    inputs = prompt(1, 5)
    plain = tiny_vlm.model.generate(**inputs, **SETTINGS)
    quick = tiny_vlm.compressed_by(MergeSome((1,)) | KeepSome())
    first = quick.generate(**inputs, **SETTINGS)
    second = quick.generate(**inputs, **SETTINGS)
    assert torch.equal(logits(first), logits(second))
    assert not torch.equal(logits(first), logits(plain))
    assert quick.records[0].achieved_retention < 1
    assert torch.equal(logits(tiny_vlm.model.generate(**inputs, **SETTINGS)), logits(plain))


def test_two_models_in_one_process_do_not_disturb_each_other() -> None:
    from tests.tiny import tiny_llava

    one, other = tiny_llava(seed=1), tiny_llava(seed=2, layers=4)
    inputs = prompt(1, 5)
    before = logits(other.generate(inputs, KeepSome(), **SETTINGS).output)
    one.generate(inputs, MergeSome((1,)) | KeepSome(), **SETTINGS)
    assert torch.equal(logits(other.generate(inputs, KeepSome(), **SETTINGS).output), before)


def test_bytes_are_those_of_the_cache(tiny_vlm: VLM) -> None:
    inputs = prompt(1, 5)
    held: list[int] = []

    def count(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        layers = kwargs["past_key_values"].layers
        if layers[0].keys is not None and not held:
            held.append(sum(x.keys.nbytes + x.values.nbytes for x in layers))

    layer = tiny_vlm.model.get_decoder().layers[0]
    handle = layer.register_forward_pre_hook(count, with_kwargs=True)
    record = tiny_vlm.generate(inputs, MergeSome((1,)) | KeepSome(), **SETTINGS).records[0]
    handle.remove()
    assert held == [record.kv_bytes]


@pytest.mark.parametrize(
    ("image", "question", "message"),
    [
        (None, "what color is the circle ?", "NoneType"),
        (np.zeros((4, 4), np.uint8), "what ?", r"\(H, W, 3\)"),
        ("no-such-file.png", "what ?", "no image file"),
        (__file__, "what ?", "can't be read"),
        (np.zeros((4, 4, 3), np.uint8), "  ", "empty"),
    ],
)
def test_bad_images_and_questions(embedded: VLM, image: Any, question: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        embedded.ask(image, question)


def test_no_request_and_no_token_are_errors(embedded: VLM) -> None:
    with pytest.raises(InputError, match="no request"):
        embedded.ask_many([])
    with pytest.raises(InvalidValueError, match="max_new_tokens"):
        embedded.ask_many([Request((), "hello")], max_new_tokens=0)


def test_loading_errors(tmp_path: Any) -> None:
    with pytest.raises(ModelError, match="config"):
        lightkv.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="safetensors"):
        lightkv.load(tmp_path)
    with pytest.raises(InvalidValueError, match="device"):
        lightkv.load(device="toaster")
    with pytest.raises(InvalidValueError, match="dtype"):
        lightkv.load(dtype="int3")
    with pytest.raises(InvalidValueError, match="attention"):
        lightkv.load(attention="flash")
    with pytest.raises(ModelError, match="HF_ENDPOINT"):
        lightkv.load("nobody/no-such-model")


def test_damaged_weights_are_named(tmp_path: Any) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(lightkv.embedded.CHECKPOINT, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        lightkv.load(folder)


def test_lost_weights_are_not_made_up(tmp_path: Any) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(lightkv.embedded.CHECKPOINT, folder)
    weights = load_file(folder / "model.safetensors")
    lost = next(key for key in weights if "layers.3.self_attn.q_proj" in key)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights"):
        lightkv.load(folder)
