"""On a GPU: both drivers and plain `generate` give the same bits, and all is where it belongs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import lightkv
from analysis.probing.probe import probe_inputs
from lightkv import VLM
from lightkv.catalogue import compressor
from lightkv.check.shapes import build_shape
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack
from lightkv.contract.products import half_products
from lightkv.embedded import items
from tests.closeness import assert_close

pytestmark = pytest.mark.gpu

FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl", "gemma3")
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 6,
    "do_sample": False,
    "output_logits": True,
    "return_dict_in_generate": True,
}
METHODS = (
    "tgvkv:retention=0.4",
    "lightkv:layers=(0,2);windows=(2,1);ratios=(0.3,0.3)",
    "lightkv:layers=(0,2);windows=(2,1);ratios=(0.3,0.3) | tgvkv:retention=0.4",
    "tgvkv-released:retention=0.4",
    "h2o:retention=0.4",
    "streamingllm:retention=0.4",
    "ada-kv:retention=0.4;window=4",
    "random:retention=0.4",
)


def on_gpu(name: str, dtype: torch.dtype) -> tuple[VLM, list[dict[str, Tensor]]]:
    vlm = ZOO[name].build()
    rows = ZOO[name].rows(vlm.model.config)
    vlm.model.to("cuda", dtype)
    return vlm, rows


def moved(vlm: VLM, rows: list[dict[str, Tensor]], dtype: torch.dtype) -> dict[str, Tensor]:
    inputs = {name: value.to("cuda") for name, value in stack(rows).items()}
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_drivers_and_plain_give_the_same_bits(name: str, dtype: torch.dtype) -> None:
    vlm, rows = on_gpu(name, dtype)
    for batch in (rows[:1], rows[:2]):
        inputs = moved(vlm, batch, dtype)
        plain = vlm.model.generate(**vlm.model_inputs(dict(inputs)), **SETTINGS)
        for text in ("tgvkv:retention=1.0", *METHODS):
            method = compressor(text, vlm.facts)
            made = {
                driver: vlm.generate(dict(inputs), method, driver=driver, keep_run=True, **SETTINGS)
                for driver in ("hooks", "nnsight")
            }
            ours, theirs = (torch.stack(one.output.logits) for one in made.values())
            assert torch.equal(ours, theirs), text
            # Sliding windows get a cache that holds all, and are equal up to rounding.
            if text == "tgvkv:retention=1.0" and not vlm.quirks.has_windows:
                assert torch.equal(ours, torch.stack(plain.logits))
            caches = [one.run.held.cache.layers for one in made.values()]
            for one, other in zip(*caches, strict=True):
                assert one.keys.device.type == "cuda"
                assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
            records = [one.records for one in made.values()]
            for one, other in zip(*records, strict=True):
                kept = zip(one.layers, other.layers, strict=True)
                assert all(torch.equal(a.kept, b.kept) for a, b in kept)
                assert one.layers[0].kept.device.type == "cpu"


def test_what_is_kept_is_what_a_processor_keeps() -> None:
    vlm, rows = on_gpu("llava", torch.float32)
    plain = ZOO["llava"].build()
    for text in ("tgvkv:retention=0.4", "snapkv:retention=0.4;window=4"):
        method = compressor(text, vlm.facts)
        moved_output = vlm.generate(moved(vlm, rows[:2], torch.float32), method, max_new_tokens=1)
        wanted = plain.generate(stack(rows[:2]), method, max_new_tokens=1)
        for one, other in zip(moved_output.records, wanted.records, strict=True):
            assert one.kv_bytes == other.kv_bytes
            for a, b in zip(one.layers, other.layers, strict=True):
                # Products are rounded otherwise there, so a score near the threshold may swap.
                shared = set(a.kept.flatten().tolist()) & set(b.kept.flatten().tolist())
                assert len(shared) >= b.kept.numel() - 2


def test_probes_measure_what_they_do_on_a_processor() -> None:
    vlm, rows = on_gpu("llava", torch.float32)
    quantities = ["block_sum", "column_sum", "hidden"]
    dataset = probe_inputs(vlm, [moved(vlm, rows[:2], torch.float32)], quantities)
    wanted = probe_inputs(ZOO["llava"].build(), [stack(rows[:2])], quantities)
    for name in quantities:
        assert_close(dataset[name], wanted[name], 1e-3)


def test_the_embedded_model_answers_on_a_gpu_as_on_a_processor() -> None:
    asked = [(item.image, item.question) for item in items("read", 4, seed=0)]
    for device in ("cuda", "cpu"):
        vlm = lightkv.load(device=device)
        assert vlm.device.type == device
        answers = [vlm.ask(picture, question, "tgvkv:retention=0.5") for picture, question in asked]
        if device == "cuda":
            texts = [one.text for one in answers]
    assert [one.text for one in answers] == texts


@pytest.mark.parametrize("shape", ["llava-1.5-7b", "qwen2.5-vl-7b"])
def test_real_dimensions_in_half_precision(shape: str) -> None:
    vlm, entry = build_shape(shape, layers=4, device="cuda", dtype="bfloat16")
    rows = entry.rows(vlm.model.config)
    inputs = moved(vlm, rows[:1], torch.bfloat16)
    for text in ("tgvkv:retention=0.3", "h2o:retention=0.3"):
        method = compressor(text, vlm.facts)
        logits = [
            torch.stack(vlm.generate(dict(inputs), method, driver=driver, **SETTINGS).output.logits)
            for driver in ("hooks", "nnsight")
        ]
        assert torch.equal(*logits) and logits[0].isfinite().all()


@pytest.mark.parametrize("text", ["tgvkv:retention=0.3", "h2o:retention=0.3"])
def test_half_products_change_few_kept_entries(text: str) -> None:
    vlm, entry = build_shape("llava-1.5-7b", layers=4, device="cuda", dtype="bfloat16")
    inputs = moved(vlm, entry.rows(vlm.model.config)[:1], torch.bfloat16)
    method = compressor(text, vlm.facts)
    wide = vlm.generate(dict(inputs), method, max_new_tokens=1).records[0]
    with half_products():
        half = vlm.generate(dict(inputs), method, max_new_tokens=1).records[0]
    for one, other in zip(half.layers, wide.layers, strict=True):
        shared = set(one.kept.tolist()) & set(other.kept.tolist())
        assert len(shared) >= 0.98 * other.kept.numel() - 1
