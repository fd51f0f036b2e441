"""Cost of configurations against torch's FLOP counter and the models' parameters."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    ViTConfig,
)

from lightkv.cost.presets.shape import ModelShape
from lightkv.cost.workload import EXECUTED, Workload, workload_cost
from lightkv.errors import InvalidValueError


def tiny_config(kv_heads: int = 4) -> LlavaConfig:
    text = LlamaConfig(
        vocab_size=320,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
    )
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=84,
        patch_size=14,
    )
    return LlavaConfig(
        text_config=text, vision_config=vision, image_token_id=319, image_seq_length=36
    )


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_executed_flops_equal_torchs_counter(kv_heads: int) -> None:
    config = tiny_config(kv_heads)
    config._attn_implementation = "eager"
    model = LlavaForConditionalGeneration._from_config(config).eval()
    ids = torch.cat([torch.full((1, 36), 319), torch.arange(12)[None]], dim=1)
    images = torch.zeros(1, 3, 84, 84)

    with torch.no_grad(), FlopCounterMode(display=False) as prefill:
        out = model(input_ids=ids, pixel_values=images, logits_to_keep=1)
    with torch.no_grad(), FlopCounterMode(display=False) as decode:
        for step in range(4):
            out = model(
                input_ids=torch.tensor([[step]]), past_key_values=out.past_key_values,
                logits_to_keep=1,
            )  # fmt: skip

    shape = ModelShape.from_config(config)
    request = Workload(36, prompt_tokens=12, generated_tokens=5)
    flops = workload_cost(shape, request, convention=EXECUTED).flops
    assert flops.until_first_token == pytest.approx(prefill.get_total_flops(), rel=1e-3)
    assert flops.while_decoding == pytest.approx(decode.get_total_flops(), rel=1e-3)
    layers = prefill.get_flop_counts()
    tower = next(v for k, v in layers.items() if k.endswith("vision_tower"))
    assert flops.vision == pytest.approx(sum(tower.values()), rel=0.01)


def test_parameters_and_cache_bytes_equal_the_models() -> None:
    config = tiny_config(2)
    model = LlavaForConditionalGeneration._from_config(config).eval()
    shape = ModelShape.from_config(config)
    assert shape.parameters == pytest.approx(model.num_parameters(), rel=0.02)
    out = model(input_ids=torch.arange(10)[None])
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in out.past_key_values.layers)
    request = Workload(0, prompt_tokens=10, generated_tokens=0)
    assert workload_cost(shape, request, bytes_per_number=4).kv.total == stored


def test_a_text_only_config_has_no_vision_cost() -> None:
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    shape = ModelShape.from_config(config)
    assert shape.vision is None
    assert shape.text.tied_head
    assert shape.parameters == pytest.approx(Qwen2ForCausalLM(config).num_parameters(), rel=0.05)
    assert workload_cost(shape, Workload(0)).flops.vision == 0


def test_vision_towers_that_are_not_modelled_are_refused() -> None:
    config = tiny_config()
    config.vision_config = ViTConfig()
    with pytest.raises(InvalidValueError, match=r"vision_config\.model_type"):
        ModelShape.from_config(config)
    config.model_type = "other"
    with pytest.raises(InvalidValueError, match="model_type is 'other'"):
        ModelShape.from_config(config)
    with pytest.raises(InvalidValueError, match="decoder"):
        ModelShape.from_config(SiglipVisionConfig())


def test_a_siglip_tower_has_no_class_token() -> None:
    config = tiny_config()
    config.vision_config = SiglipVisionConfig(image_size=84, patch_size=14)
    config.vision_feature_select_strategy = "full"
    shape = ModelShape.from_config(config)
    assert shape.vision is not None
    assert shape.projector is not None
    assert shape.vision.tokens == shape.projector.rows == 36
