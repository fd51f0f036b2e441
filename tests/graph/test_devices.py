"""On a device of its own: nothing mixes with the host, which waits for it a few times a prefill."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from lightkv.catalogue import compressor
from tests.elsewhere import DEVICE, elsewhere
from tests.test_methods import METHODS, built
from tests.tiny import prompt, stack, tiny_llava

BATCHES = {"one": [prompt(1, 7)], "padded": [prompt(1, 5), prompt(1, 9, seed=1)]}
# Not for this prompt or model: images alone; words for a text tower.
OTHERS = {"kvzip", "cdpruner"}


CASES = [(name, "padded") for name in METHODS if name not in OTHERS]
# Entries of one row leave in a way of their own.
CASES += [(name, "one") for name in ("tgvkv", "tgvkv-released", "h2o", "streamingllm", "prefixkv")]


@pytest.mark.parametrize(("name", "batch"), CASES)
def test_no_method_mixes_device_and_host(name: str, batch: str) -> None:
    vlm = tiny_llava()
    method: Any = built(name)
    settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "driver": "hooks"}
    inputs = stack(BATCHES[batch])
    wanted = vlm.generate(dict(inputs), method, **settings)
    with elsewhere(vlm.model, inputs) as (there, _):
        output = vlm.generate(there, method, **settings)
        assert output.output.device == DEVICE
        kept = [layer.kept for record in output.records for layer in record.layers]
    expected = [layer.kept for record in wanted.records for layer in record.layers]
    assert all(type(one) is Tensor and one.device.type == "cpu" for one in kept)
    for one, other in zip(kept, expected, strict=True):
        assert one.shape == other.shape


def waits_of(text: str | None, tokens: int = 1) -> int:
    """How often the host waits for the device in a model of 16 layers."""
    vlm = tiny_llava(layers=16)
    method = None if text is None else compressor(text, vlm.facts)
    with elsewhere(vlm.model, BATCHES["one"][0]) as (there, waits):
        vlm.generate(there, method, max_new_tokens=tokens, do_sample=False)
        counted: Counter[str] = waits
        return sum(counted.values())


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("tgvkv:retention=0.3", 15),
        ("snapkv:retention=0.3", 6),
        ("random:retention=0.3", 10),
        ("streamingllm:retention=0.3", 5),
        ("lightkv:layers=(3,6,9);windows=(4,2,1);ratios=(0.3,0.3,0.3)", 6),
    ],
)
def test_the_host_waits_a_few_times_in_a_prefill(text: str, most: int) -> None:
    assert waits_of(text) - waits_of(None) <= most


@pytest.mark.parametrize("text", ["h2o:retention=0.3", "tgvkv:retention=0.3", "lightkv"])
def test_the_host_never_waits_in_a_step(text: str) -> None:
    plain = waits_of(None, 5) - waits_of(None)
    assert waits_of(text, 5) - waits_of(text) == plain


def test_mixing_is_noticed_and_waits_are_counted() -> None:
    model = torch.nn.Linear(2, 2)
    with elsewhere(model, {"x": torch.ones(3, 2)}) as (there, waits):
        made = model(there["x"])
        assert made.device == DEVICE and not waits
        with pytest.raises(RuntimeError, match="mixes"):
            made + torch.ones(3, 2)
        with pytest.raises(TypeError, match="not an array"):
            made.numpy()
        assert made.cpu().device.type == "cpu"
        assert bool((made == made).all()) and made.tolist()
        assert waits == {"_to_copy": 1, "_local_scalar_dense": 1, "tolist": 1}
