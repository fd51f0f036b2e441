"""A real model's decoder at full depth, every layer with the same random weights.

Each layer's weights are read from memory whenever the layer runs, as those of a real model are:
one layer's are larger than any processor's cache. So a decoder of 13 billion parameters takes less
than 2 GiB. What is computed has no meaning; how long it takes does not depend on that.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Final

import torch
from torch import Tensor, nn

from lightkv.contract.compressor import Compressor
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.serving import drawn_features
from lightkv.contract.view import ModelFacts
from lightkv.cost.presets import ModelPreset
from lightkv.cost.presets.shape import TextShape, VisionShape
from lightkv.engine.drivers import Driver
from lightkv.engine.graph import InterventionGraph
from lightkv.engine.plan import Plan
from lightkv.engine.run import Run
from lightkv.errors import InvalidValueError

#: The decoder of transformers that a family's text tower is built from.
DECODERS: Final = {
    "llava": "llama",
    "llava_next": "llama",
    "llava_onevision": "qwen2",
    "internvl_chat": "llama",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl": "qwen3",
}
_TOWER_WIDTH = 1024  # of the features that methods are shown


def has_bfloat16(device: torch.device) -> bool:
    """True if a device multiplies bfloat16 matrices in hardware."""
    if device.type != "cpu":
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def decoder_of(preset: ModelPreset) -> str:
    """The ``model_type`` of a preset's decoder.

    Raises:
        InvalidValueError: transformers has none of its kind.
    """
    if preset.family not in DECODERS:
        allowed = f"a preset of one of the families {', '.join(DECODERS)}"
        raise InvalidValueError("shape", preset.name, allowed)
    if preset.family == "llava_next" and "mistral" in preset.name:
        return "mistral"
    return DECODERS[preset.family]


def grid_of(tokens: int) -> Grid:
    """The grid nearest to a square that has ``tokens`` cells."""
    rows = next(side for side in range(math.isqrt(tokens), 0, -1) if tokens % side == 0)
    return Grid(1, rows, tokens // rows)


class BenchDecoder:
    """A decoder that runs methods; nothing of a vision tower but drawn features.

    Args:
        preset: Whose decoder.
        layers: Depth.
        device: Where.
        dtype: Of weights and states.
        longest: Longest sequence, in tokens.
        seed: Of weights, prompts and methods that draw at random.
    """

    def __init__(
        self,
        preset: ModelPreset,
        layers: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        longest: int,
        seed: int = 0,
    ) -> None:
        self.text = preset.shape.text
        self.device, self.dtype, self.seed, self.layers = device, dtype, seed, layers
        self.facts = ModelFacts(layers, self.text.heads, self.text.kv_heads, self.text.hidden)
        torch.manual_seed(seed)
        self.model = _model(decoder_of(preset), self.text, device, dtype, longest)
        repeat_layer(self.model, layers)
        self._graph = InterventionGraph(self.model, "model")

    def prompt(self, vision: int, text: int, rows: int) -> tuple[Tensor, TokenLayout]:
        """Drawn token ids (B, N) of an image and the text after it, and their layout."""
        kinds = [TokenKind.VISION] * vision + [TokenKind.TEXT] * text
        row = single_layout(kinds, [grid_of(vision)])
        generator = torch.Generator().manual_seed(self.seed)
        ids = torch.randint(self.text.vocab, (rows, vision + text), generator=generator)
        return ids.to(self.device), TokenLayout.stack([row] * rows).to(self.device)

    def check(self, compressor: Compressor | None, layout: TokenLayout) -> None:
        """Raise :class:`LightKVError` if a method does not fit the decoder or the prompt."""
        if compressor is not None:
            compressor.check(self.facts)
            compressor.check_layout(layout)

    def generate(
        self,
        ids: Tensor,
        layout: TokenLayout,
        compressor: Compressor | None,
        new_tokens: int,
        *,
        driver: Driver = "auto",
        **settings: Any,
    ) -> tuple[Any, Run | None]:
        """Greedy generation of ``new_tokens``: what ``generate`` returns, and a method's run."""
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        asked = {"max_new_tokens": new_tokens, "do_sample": False, "return_dict_in_generate": True}
        if compressor is None:
            return self.model.generate(**inputs, **asked, **settings), None
        plan = Plan.of(compressor, self.facts)
        run = Run(plan, layout, seed=self.seed, final_norm=self.model.model.norm)
        if plan.needs_vision:
            run.vision = drawn_features(layout, _TOWER_WIDTH, self.text.hidden, self.seed)
        return self._graph.generate(run, inputs, driver=driver, **asked, **settings), run

    @property
    def step_weights(self) -> int:
        """Bytes of weights that a decode step reads: all layers, and the head."""
        numbers = self.layers * self.text.layer_matrix + self.text.vocab * self.text.hidden
        return numbers * self.dtype.itemsize

    def prefill_flops(self, lengths: list[int]) -> int:
        """Floating-point operations of a prefill whose layers process ``lengths`` tokens of a row.

        Matrix products alone, two each; of the attention the half that is not masked; the head
        reads the last token.
        """
        pairs = sum(length * (length + 1) // 2 for length in lengths)
        attention = 2 * pairs * self.text.heads * self.text.head_dim
        matrices = sum(lengths) * self.text.layer_matrix + self.text.vocab * self.text.hidden
        return 2 * (attention + matrices)


def _model(
    kind: str, text: TextShape, device: torch.device, dtype: torch.dtype, longest: int
) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind,
        **text.config_fields(1),
        vocab_size=text.vocab,
        tie_word_embeddings=text.tied_head,
        max_position_embeddings=longest,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    if kind == "mistral":
        config.sliding_window = None
    build: Any = AutoModelForCausalLM
    with torch.device(device):
        model = build.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.eval()
    model.generation_config.eos_token_id = None  # answers have the length that was asked for
    return model


def repeat_layer(model: Any, layers: int) -> None:
    """Make a decoder of one layer one of ``layers``, all of which hold the same weights."""
    first: nn.Module = model.model.layers[0]
    # The config is one object for all layers, as in every model.
    parts = (*first.parameters(), *first.buffers(), model.config)
    shared = {id(one): one for one in parts}
    for number in range(1, layers):
        layer: Any = copy.deepcopy(first, dict(shared))
        layer.self_attn.layer_idx = number
        model.model.layers.append(layer)
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None) is not None:
        model.config.layer_types = model.config.layer_types[:1] * layers


def build_tower(vision: VisionShape, device: torch.device, dtype: torch.dtype) -> Any:
    """A CLIP vision tower of a preset's dimensions, with random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=vision.hidden,
        intermediate_size=vision.intermediate,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
    )
    config._attn_implementation = "sdpa"
    with torch.device(device):
        tower: Any = CLIPVisionModel(config)
    return tower.to(dtype).eval()
