"""What a compressor gets to see: facts about the model, and one view per layer it asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.attention import Attention
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.errors import UnsupportedError


@dataclass(frozen=True)
class ModelFacts:
    """What a method may know about a model, in order to validate itself before a run.

    Attributes:
        layers: Of the decoder.
        heads, kv_heads: Of each of its layers.
        hidden_size: Of its embeddings.
        grid_follows_picture: True if a smaller picture has fewer vision tokens.
    """

    layers: int
    heads: int
    kv_heads: int
    hidden_size: int
    grid_follows_picture: bool = False


@dataclass(frozen=True)
class VisionFeatures:
    """What the vision side of a model knows of each vision token, at its place in the sequence.

    All but ``tile`` are zero outside the patches; a field is None where the model has no such
    thing or no method asked for it.

    Attributes:
        cls_attention: (B, N) float32, attention of the class token to each patch in the tower
            layer that the projector reads, sum over heads.
        first_attention: (B, N) float32, the same in the tower's first layer.
        keys: (B, N, d) keys of that reading layer, mean over heads.
        features: (B, N, d) the tower's output before the projector.
        received: (B, N, T) float32, attention that each patch receives in each of the tower's T
            layers up to the reading one, mean over heads and over all queries.
        last_attention: (B, N) float32, attention of the class token in the tower's last layer,
            all heads taken for one.
        last_keys: (B, N, C) keys of that layer, all heads side by side.
        text_relevance: (B, N) float32, cosine of patch and question in a joint embedding space.
        tile: (B, N) int64, number of the tower's pass that made each patch; -1 for other tokens.
        project: Turns tower states (..., d) into embeddings (..., D) of the decoder.
    """

    cls_attention: Tensor | None = None
    first_attention: Tensor | None = None
    keys: Tensor | None = None
    features: Tensor | None = None
    received: Tensor | None = None
    last_attention: Tensor | None = None
    last_keys: Tensor | None = None
    text_relevance: Tensor | None = None
    tile: Tensor | None = None
    project: Callable[[Tensor], Tensor] | None = None

    def repeated(self, times: int) -> VisionFeatures:
        """Each row ``times`` times."""
        return self._each(lambda value: value.repeat_interleave(times, 0))

    def take(self, reduction: Reduction) -> VisionFeatures:
        """The features of each survivor's representative."""
        return self._each(reduction.take)

    def _each(self, change: Callable[[Tensor], Tensor]) -> VisionFeatures:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors: dict[str, Any] = {n: change(v) for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


_WANTED = {
    "cls_attention": "the attention of a class token (CLS) in the vision tower",
    "first_attention": "the attention of a class token (CLS) in the vision tower's first layer",
    "keys": "the keys of a vision tower with a class token (CLS)",
    "features": "the output of a vision tower with a class token (CLS)",
    "received": "the attention maps of a vision tower that makes one token of each patch",
    "last_attention": "the attention of a class token (CLS) in the vision tower's last layer",
    "last_keys": "the keys of the last layer of a vision tower with a class token (CLS)",
    "text_relevance": "a text tower that shares a space with the vision tower",
    "tile": "a vision tower that makes one token of each patch",
}


@dataclass(frozen=True)
class QuestionWords:
    """What relevance to the question is measured by.

    Attributes:
        texts: Per prompt, the text after its first image.
        text_tower: CLIP checkpoint whose text tower reads them.
    """

    texts: tuple[str, ...]
    text_tower: str


@dataclass(frozen=True)
class PromptInputs:
    """The uncompressed prompt at the input of the first layer.

    Attributes:
        hidden: (B, N0, D) input embeddings.
        layout: Their layout.
    """

    hidden: Tensor
    layout: TokenLayout


@dataclass(frozen=True, kw_only=True)
class EntriesView:
    """The cache entries of one decoder layer after its prefill, as an evictor sees them.

    A part that says which queries it reads may be shown several layers of one layout at once: the
    rows of the first, then those of the second, and so on.

    Attributes:
        layer: 0-based index, of the first of several.
        layers: Number of layers of the decoder.
        layout: Layout of the N positions at this layer.
        sizes: (B, N) int64, original tokens that each position stands for.
        attention: Attention of the layer (of the next one for a reducer that looks ahead), or
            None if it was not asked for.
        keys, values: (B, H_kv, N, d) cache entries of the layer, or None at layer -1.
        seed: Seed of the run, for methods that draw at random.
        identities: Gives per row a number that tells its prompt, words and pictures, from others;
            None counts as 0 for each. Asked for when something is drawn.
        rotary: Cosine and sine (B or 1, N, d) of the layer's rotary embedding, or None if it was
            not asked for or the model has none of that form.
        together: How many consecutive layers the rows are of.
    """

    layer: int
    layers: int
    layout: TokenLayout
    sizes: Tensor
    attention: Attention | None = None
    keys: Tensor | None = None
    values: Tensor | None = None
    seed: int = 0
    identities: Callable[[], Sequence[int]] | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    together: int = 1

    def read_attention(self) -> Attention:
        """The layer's attention.

        Raises:
            RuntimeError: If the compressor did not list this layer in ``attention_layers``.
        """
        if self.attention is None:
            raise RuntimeError(f"the attention of layer {self.layer} was not asked for")
        return self.attention

    def read_rotary(self) -> tuple[Tensor, Tensor]:
        """Cosine and sine (B or 1, N, d) of the layer's rotary embedding.

        Raises:
            UnsupportedError: If the model turns queries and keys in another form, or not at all.
        """
        if self.rotary is None:
            raise UnsupportedError(
                "the method needs the angles of the rotary embedding, one per token; this model "
                "has none"
            )
        return self.rotary

    def row_seeds(self) -> list[int]:
        """One number of 63 bits per row, from the run's seed, the layer and the row's own prompt.

        So each question loses tokens of its own at random, and the same ones alone and in a batch.
        """
        rows = self.layout.batch_size // self.together
        identities = [0] * rows if self.identities is None else self.identities()
        layers = range(self.layer, self.layer + self.together)
        keys = (f"{self.seed} {layer} {identity}" for layer in layers for identity in identities)
        digests = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
        return [int.from_bytes(digest, "little") >> 1 for digest in digests]

    def generators(self) -> list[torch.Generator]:
        """One generator per row, see :meth:`row_seeds`."""
        return [torch.Generator("cpu").manual_seed(seed) for seed in self.row_seeds()]


@dataclass(frozen=True, kw_only=True)
class LayerView(EntriesView):
    """One decoder layer of the prefill, as a reducer or an observer sees it.

    Attributes:
        hidden: (B, N, D) output of the layer; at layer -1 the input of the first.
        vision: What the vision tower knows, or None if nothing of it was asked for.
        inputs: The uncompressed prompt, or None if it was not asked for.
        final_norm: The norm after the model's last layer, or None if the model has none.
    """

    hidden: Tensor
    vision: VisionFeatures | None = None
    inputs: PromptInputs | None = None
    final_norm: Callable[[Tensor], Tensor] | None = None

    def read_vision(self, name: str) -> Tensor:
        """A field of :class:`VisionFeatures`.

        Raises:
            UnsupportedError: If the model does not have it.
        """
        value: Tensor | None = getattr(self.vision, name, None)
        if value is None:
            raise UnsupportedError(f"the method needs {name}: {_WANTED[name]}; the model has none")
        return value

    def project(self, states: Tensor) -> Tensor:
        """Embeddings (..., D) of the decoder for states (..., d) of the vision tower.

        Raises:
            UnsupportedError: If the model has no projector of single states.
        """
        if self.vision is None or self.vision.project is None:
            raise UnsupportedError(
                "the method changes states of the vision tower before the projector; this model "
                "has no projector that takes them one by one"
            )
        return self.vision.project(states)

    def read_inputs(self) -> PromptInputs:
        """The uncompressed prompt.

        Raises:
            RuntimeError: If the compressor did not ask for it in ``needs_inputs``.
        """
        if self.inputs is None:
            raise RuntimeError("the uncompressed prompt was not asked for")
        return self.inputs

    def normed(self) -> Tensor:
        """(B, N, D) hidden states after the model's final norm.

        Raises:
            UnsupportedError: If the model has none.
        """
        if self.final_norm is None:
            raise UnsupportedError("the method needs the model's final norm; this model has none")
        return self.final_norm(self.hidden)
