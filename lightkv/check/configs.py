"""Configs of the tiny models: four decoder layers, four heads, 64 features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VOCABULARY = 160
IMAGE, VIDEO, START, END, BREAK = 150, 151, 152, 153, 149
TILE, PATCH, MAX_TILES = 32, 8, 9
PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
WINDOW = 24

_HEADS: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_TEXT: dict[str, Any] = {**_HEADS, "num_key_value_heads": 2}
_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_QWEN_TOWER: dict[str, Any] = {
    "num_heads": 4,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
_QWEN_IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}


def _make(name: str, **fields: Any) -> Any:
    """A config of transformers by its class name."""
    import transformers

    return getattr(transformers, name)(**fields)


def _clip() -> Any:
    return _make("CLIPVisionConfig", **_TOWER, image_size=TILE, patch_size=PATCH)


def _siglip() -> Any:
    return _make(
        "SiglipVisionConfig", **_TOWER, image_size=TILE, patch_size=PATCH, vision_use_head=False
    )


def llava() -> Any:
    """LLaVA with a Llama decoder."""
    return _make(
        "LlavaConfig",
        vision_config=_clip(),
        text_config=_make("LlamaConfig", **_TEXT),
        image_token_id=IMAGE,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )


def _llava_next(text: Any) -> Any:
    return _make(
        "LlavaNextConfig",
        vision_config=_clip(),
        text_config=text,
        image_token_id=IMAGE,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        image_grid_pinpoints=PINPOINTS,
    )


def llava_next() -> Any:
    """LLaVA-NeXT with a Llama decoder."""
    return _llava_next(_make("LlamaConfig", **_TEXT))


def llava_next_mistral() -> Any:
    """LLaVA-NeXT with a Mistral decoder whose layers all have a sliding window."""
    return _llava_next(_make("MistralConfig", **_TEXT, sliding_window=WINDOW))


def llava_onevision() -> Any:
    """LLaVA-OneVision with a Qwen2 decoder."""
    return _make(
        "LlavaOnevisionConfig",
        vision_config=_siglip(),
        text_config=_make("Qwen2Config", **_TEXT),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio=f"anyres_max_{MAX_TILES}",
    )


def _rope(**extra: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0, **extra}
    return {**_TEXT, "rope_parameters": rope}


def qwen2_vl() -> Any:
    """Qwen2-VL."""
    tower = {**_QWEN_TOWER, "depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    return _make("Qwen2VLConfig", vision_config=tower, text_config=_rope(), **_QWEN_IDS)


def qwen2_5_vl() -> Any:
    """Qwen2.5-VL, with windows in its tower."""
    tower = {
        **_QWEN_TOWER,
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    return _make("Qwen2_5_VLConfig", vision_config=tower, text_config=_rope(), **_QWEN_IDS)


def qwen3_vl() -> Any:
    """Qwen3-VL; three of its four decoder layers take vision features."""
    tower = {
        **_QWEN_TOWER,
        "depth": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1, 2],
    }
    text = {**_rope(mrope_interleaved=True), "head_dim": 16}
    return _make("Qwen3VLConfig", vision_config=tower, text_config=text, **_QWEN_IDS)


def internvl() -> Any:
    """InternVL with a Qwen2 decoder and 4 x 4 tokens a tile."""
    return _make(
        "InternVLConfig",
        vision_config=_make(
            "InternVLVisionConfig",
            **_TOWER,
            image_size=[TILE, TILE],
            patch_size=[PATCH // 2, PATCH // 2],
        ),
        text_config=_make("Qwen2Config", **_TEXT),
        image_token_id=IMAGE,
        image_seq_length=16,
        downsample_ratio=0.5,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )


def gemma3() -> Any:
    """Gemma 3 with every second layer windowed and 4 x 4 tokens an image."""
    text = _make(
        "Gemma3TextConfig",
        **_TEXT,
        head_dim=16,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"] * 2,
        query_pre_attn_scalar=16,
    )
    return _make(
        "Gemma3Config",
        text_config=text,
        vision_config=_siglip(),
        mm_tokens_per_image=16,
        image_token_id=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
    )


def _idefics(name: str) -> Any:
    tower = {**_TOWER, "image_size": TILE, "patch_size": PATCH // 2}
    return _make(
        name,
        vision_config=tower,
        text_config=_make("LlamaConfig", **_TEXT).to_dict(),
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=0,
    )


def idefics3() -> Any:
    """Idefics3 with 4 x 4 tokens a tile."""
    return _idefics("Idefics3Config")


def smolvlm() -> Any:
    """SmolVLM with 4 x 4 tokens a tile."""
    return _idefics("SmolVLMConfig")


def fuyu() -> Any:
    """Fuyu: a Persimmon decoder, one linear map in place of a vision encoder."""
    text = {**_HEADS, "model_type": "persimmon", "partial_rotary_factor": 0.5}
    return _make(
        "FuyuConfig",
        text_config=text,
        **_HEADS,
        patch_size=PATCH,
        num_channels=3,
        image_size=TILE,
        image_token_id=IMAGE,
    )


CONFIGS: dict[str, Callable[[], Any]] = {
    maker.__name__: maker
    for maker in (
        llava,
        llava_next,
        llava_next_mistral,
        llava_onevision,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        internvl,
        gemma3,
        idefics3,
        smolvlm,
        fuyu,
    )
}
