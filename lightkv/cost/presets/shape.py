"""The dimensions of a vision-language model that its cost depends on: numbers, no weights."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from lightkv.errors import InvalidValueError

if TYPE_CHECKING:
    from lightkv.cost.presets import ModelPreset

_FAMILIES = ("llava", "llava_next", "llava_onevision")
_VISION_TOWERS = ("clip_vision_model", "siglip_vision_model")
_PLAIN_MLP_DECODERS = ("opt", "gpt2", "gpt_neox", "phi", "persimmon")


def _check_positive(shape: Any) -> None:
    """Raise :class:`InvalidValueError` for an integer field that is below 1."""
    for field in fields(shape):
        value = getattr(shape, field.name)
        if isinstance(value, bool):
            continue
        if not isinstance(value, int) or value < 1:
            raise InvalidValueError(field.name, value, "an integer of at least 1")


@dataclass(frozen=True)
class TextShape:
    """The language decoder.

    ``gated`` tells a three-matrix MLP (gate, up, down; Llama) from a two-matrix one.
    ``tied_head`` says that the LM head shares the embedding's weights.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    gated: bool = True
    tied_head: bool = False

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.heads % self.kv_heads:
            raise InvalidValueError("kv_heads", self.kv_heads, f"a divisor of heads ({self.heads})")

    @property
    def layer_matrix(self) -> int:
        """Weights of one layer's matrices: query, key, value, output and MLP."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + (3 if self.gated else 2) * self.hidden * self.intermediate

    @property
    def kv_numbers(self) -> int:
        """Numbers that one token stores in one layer's cache: a key and a value per KV head."""
        return 2 * self.kv_heads * self.head_dim

    def config_fields(self, layers: int) -> dict[str, int]:
        """Fields of a transformers config for ``layers`` layers of these dimensions."""
        return {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
        }


@dataclass(frozen=True)
class VisionShape:
    """The vision tower, per tile of ``image_size`` x ``image_size`` pixels.

    ``tokens`` counts the tower's sequence with the class token where there is one.
    ``used_layers`` is the number of layers up to the one whose output the projector reads
    (LLaVA reads the last but one); the tower itself runs all ``layers``.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    image_size: int
    patch_size: int
    tokens: int
    used_layers: int
    gated: bool = False
    channels: int = 3

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.used_layers > self.layers:
            raise InvalidValueError("used_layers", self.used_layers, f"at most {self.layers}")

    @property
    def patches(self) -> int:
        """Patches of one tile."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_matrix(self) -> int:
        """Weights of the patch embedding."""
        return self.channels * self.patch_size**2 * self.hidden

    @property
    def layer_matrix(self) -> int:
        """Weights of one layer's matrices."""
        mlp = (3 if self.gated else 2) * self.hidden * self.intermediate
        return 4 * self.hidden**2 + mlp


@dataclass(frozen=True)
class ProjectorShape:
    """A two-layer MLP from vision features to decoder embeddings; ``rows`` a tile go through it."""

    inputs: int
    hidden: int
    outputs: int
    rows: int

    def __post_init__(self) -> None:
        _check_positive(self)

    @property
    def matrix(self) -> int:
        """Weights of both matrices."""
        return self.hidden * (self.inputs + self.outputs)


@dataclass(frozen=True)
class ModelShape:
    """Everything :mod:`lightkv.cost.workload` knows about a model.

    A model without vision encoder has ``vision`` and ``projector`` ``None``.
    """

    text: TextShape
    vision: VisionShape | None = None
    projector: ProjectorShape | None = None

    def __post_init__(self) -> None:
        if (self.vision is None) != (self.projector is None):
            raise InvalidValueError(
                "projector", self.projector, "given together with vision, or both left out"
            )

    @property
    def parameters(self) -> int:
        """Weights of all matrices and token embeddings; biases, norms and position tables (below
        1 % in the papers' models) are left out."""
        text = self.text
        total = text.layers * text.layer_matrix
        total += text.vocab * text.hidden * (1 if text.tied_head else 2)
        if self.vision is not None and self.projector is not None:
            total += self.vision.layers * self.vision.layer_matrix + self.vision.patch_matrix
            total += self.projector.matrix
        return total

    @classmethod
    def from_config(cls, config: Any) -> ModelShape:
        """Read the dimensions from a transformers config.

        Args:
            config: A text decoder's config, or a LLaVA, LLaVA-NeXT or LLaVA-OneVision one with a
                CLIP or SigLIP tower.

        Raises:
            InvalidValueError: The model is of a kind whose cost is not modelled here.
        """
        try:
            text = _text_shape(config)
            if getattr(config, "vision_config", None) is None:
                return cls(text)
            if config.model_type not in _FAMILIES:
                raise InvalidValueError("model_type", config.model_type, " or ".join(_FAMILIES))
            vision = _vision_shape(config)
        except AttributeError as error:
            raise InvalidValueError(
                "config", type(config).__name__, f"a transformer decoder's ({error})"
            ) from error
        layers = config.vision_feature_layer
        features = len(layers) if isinstance(layers, list | tuple) else 1
        dropped = config.vision_feature_select_strategy == "default"
        projector = ProjectorShape(
            inputs=vision.hidden * features,
            hidden=text.hidden,
            outputs=text.hidden,
            rows=vision.tokens - dropped,
        )
        return cls(text, vision, projector)

    @classmethod
    def from_preset(cls, preset: ModelPreset | str) -> ModelShape:
        """The dimensions of a preset, given as the preset itself or as its name."""
        from lightkv.cost.presets import preset as lookup

        return lookup(preset).shape if isinstance(preset, str) else preset.shape


def _text_shape(config: Any) -> TextShape:
    """The decoder of a config."""
    raw = config.get_text_config()
    heads = raw.num_attention_heads
    return TextShape(
        layers=raw.num_hidden_layers,
        hidden=raw.hidden_size,
        intermediate=raw.intermediate_size,
        heads=heads,
        kv_heads=getattr(raw, "num_key_value_heads", None) or heads,
        head_dim=getattr(raw, "head_dim", None) or raw.hidden_size // heads,
        vocab=raw.vocab_size,
        gated=raw.model_type not in _PLAIN_MLP_DECODERS,
        tied_head=bool(getattr(config, "tie_word_embeddings", False)),
    )


def _vision_shape(config: Any) -> VisionShape:
    """The vision tower of a LLaVA-like config."""
    raw = config.vision_config
    if raw.model_type not in _VISION_TOWERS:
        raise InvalidValueError(
            "vision_config.model_type", raw.model_type, " or ".join(_VISION_TOWERS)
        )
    feature_layers = config.vision_feature_layer
    indices = feature_layers if isinstance(feature_layers, list | tuple) else [feature_layers]
    used = max(i if i >= 0 else raw.num_hidden_layers + 1 + i for i in indices)
    patches = (raw.image_size // raw.patch_size) ** 2
    return VisionShape(
        layers=raw.num_hidden_layers,
        hidden=raw.hidden_size,
        intermediate=raw.intermediate_size,
        heads=raw.num_attention_heads,
        image_size=raw.image_size,
        patch_size=raw.patch_size,
        tokens=patches + (raw.model_type == "clip_vision_model"),
        used_layers=used,
        channels=raw.num_channels,
    )
