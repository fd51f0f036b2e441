"""Errors of loading say what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch

import lightkv
from lightkv import VLM, checkpoint, loading
from lightkv.check.tiny import ZOO
from lightkv.embedded import items
from lightkv.errors import ModelError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(lightkv.embedded.CHECKPOINT, folder)
    return folder


def rewrite(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def test_unknown_architectures_name_the_known_ones_and_the_way_in(copy: Path) -> None:
    rewrite(copy, model_type="bert", architectures=["BertModel"])
    with pytest.raises(ModelError, match=r"'bert'.*Known: .*qwen3_vl.*To add it"):
        lightkv.load(copy)
    rewrite(copy, model_type="no-such-thing")
    with pytest.raises(ModelError, match="no-such-thing"):
        lightkv.load(copy)


def test_too_little_memory_is_said_before_loading(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "free_bytes", lambda _: 1000)
    with pytest.raises(ModelError, match=r"take 0\.0 GiB in float32, cpu has 0\.0 GiB free"):
        lightkv.load(copy)


def test_weights_are_counted_from_the_config() -> None:
    config = ZOO["llava"].config()
    model = ZOO["llava"].build().model
    expected = sum(p.numel() for p in model.parameters())
    assert loading.weight_bytes(config, torch.bfloat16) == 2 * expected


def test_processors_that_need_torchvision_say_so(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoProcessor

    def broken(*_: object, **__: object) -> None:
        raise AttributeError("'VIDEO_PROCESSOR_MAPPING' has no attribute '_extra_content'")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", broken)
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"can't be built.*torchvision.*torch 2"):
        lightkv.load(copy)


def test_pickled_weights_are_read_only_when_asked_for(copy: Path) -> None:
    from safetensors.torch import load_file

    weights = copy / "model.safetensors"
    torch.save(load_file(weights), copy / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match=r"use_safetensors=False"):
        lightkv.load(copy)
    vlm = lightkv.load(copy, use_safetensors=False)
    assert vlm.fingerprint == lightkv.load().fingerprint


def test_a_device_map_is_passed_on(copy: Path) -> None:
    vlm = lightkv.load(copy, device_map={"": "cpu"})
    assert vlm.device.type == "cpu"


@pytest.mark.parametrize("driver", ["nnsight", "hooks"])
def test_layers_that_accelerate_places_are_compressed_alike(
    embedded: VLM, tmp_path: Path, driver: Literal["nnsight", "hooks"]
) -> None:
    """Every other layer is fetched when it runs, through accelerate's wrapper of its forward."""
    parts = ("vision_tower", "multi_modal_projector", "language_model.embed_tokens")
    places = {f"model.{name}": "cpu" for name in (*parts, "language_model.norm")}
    places |= {"model.language_model.rotary_emb": "cpu", "lm_head": "cpu"}
    for layer in range(embedded.facts.layers):
        places[f"model.language_model.layers.{layer}"] = "cpu" if layer % 2 else "disk"
    spread = lightkv.load(device_map=places, offload_folder=str(tmp_path), driver=driver)
    wrapped = [hasattr(layer, "_hf_hook") for layer in spread.model.model.language_model.layers]
    assert all(wrapped[::2]), "accelerate holds the layers that are fetched"
    answers_alike(spread, embedded)


def test_a_model_that_accelerate_deals_out_itself_is_compressed_alike(
    embedded: VLM, tmp_path: Path
) -> None:
    """As over several GPUs: "auto" fills the first device, and the rest goes elsewhere."""
    room = round(0.7 * sum(one.nbytes for one in embedded.model.parameters()))
    spread = lightkv.load(device_map="auto", max_memory={"cpu": room}, offload_folder=str(tmp_path))
    layers = range(embedded.facts.layers)
    placed = [spread.model.hf_device_map[f"model.language_model.layers.{one}"] for one in layers]
    assert sorted(set(placed)) == ["cpu", "disk"]
    answers_alike(spread, embedded)


def answers_alike(spread: VLM, embedded: VLM) -> None:
    """Answers, kept entries and bytes of a model in parts are those of the whole."""
    item = items("read", 1)[0]
    requests = [lightkv.Request((item.image,), item.question)]
    for method in ("tgvkv:retention=0.5", "lightkv | tgvkv:retention=0.5"):
        (whole,), (other,) = (vlm.ask_many(requests, method) for vlm in (embedded, spread))
        assert other.tokens == whole.tokens
        assert other.kept == whole.kept and other.kv_bytes == whole.kv_bytes
