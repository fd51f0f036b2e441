"""What a server would have to know of a method, found by running it on drawn prompts.

A serving engine keeps one list of entries per layer for all heads, plans memory before prefill,
and never sees attention weights. Each method is run on a few prompts that differ in their numbers
and in nothing else; what it reads and what it answers says which of these it can live with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightkv.contract.attention_sources import ProjectedAttention
from lightkv.contract.compressor import Compressor, Evictor, Reducer, RepeatedReading
from lightkv.contract.layout import Grid, TokenKind, TokenLayout, single_layout
from lightkv.contract.view import LayerView, ModelFacts, PromptInputs, VisionFeatures

FACTS = ModelFacts(layers=32, heads=4, kv_heads=2, hidden_size=128)
"""Deep enough for the published stage layers, wide enough for tokens to be independent."""

_SYSTEM, _SIDE, _QUESTION = 35, 24, 20  # LLaVA-1.5's prompt
_WIDTH = 8  # of a head
_DRAWS = 2
_LAYERS = 2  # that an evictor sees, and takes for all of them
_WIDE = ("keys", "features", "received", "last_keys")  # fields with a feature dimension
_FLAT = ("cls_attention", "first_attention", "last_attention", "text_relevance")


@dataclass(frozen=True)
class Serving:
    """What a method asks of a server.

    Attributes:
        shares_heads: All heads of a layer hold the same entries.
        count_known: How many entries each layer holds follows from the prompt's layout.
        rows: Queries whose attention is recomputed after a layer: "none", "all", "question",
            "vision", "vision and question", "last 64", "some of the question", or "of a
            repetition", which is a second reading of the images.
        decode: What happens while decoding: "appends", "evicts", or "evicts by attention".
        renumbers: Entries take new rotary positions.
    """

    shares_heads: bool
    count_known: bool
    rows: str
    decode: str
    renumbers: bool


def serving(compressor: Compressor) -> Serving:
    """Run a method of one part on drawn prompts.

    Args:
        compressor: Valid for a model of :data:`FACTS` and a prompt of 35 system tokens, an image
            of 24 x 24 and 20 question tokens.
    """
    part = compressor.parts[0]
    read: set[int] = set()
    counts = [_counts(part, draw, read) for draw in range(_DRAWS)]
    known = all(torch.equal(one, counts[0]) for one in counts)
    renumbers = part.position_rule() != "keep"
    if isinstance(part, Reducer):
        return Serving(True, known, _in_words(read), "appends", renumbers)
    words = "of a repetition" if isinstance(part, RepeatedReading) else _in_words(read)
    policy = part.decode_policy()
    decode = "evicts by attention" if policy.needs_attention else "evicts"
    decode = "appends" if policy.static else decode
    return Serving(counts[0].shape[-1] == 1, known, words, decode, renumbers)


def _counts(part: Reducer | Evictor, draw: int, read: set[int]) -> Tensor:
    """Tokens left by the first stage (1,), or entries kept (layers, 1, groups)."""
    if isinstance(part, Reducer):
        reduction = part.reduce(_view(part.stage_layers(FACTS)[0], draw, read))
        return reduction.valid.sum(1)
    views = [_view(layer, draw, read) for layer in range(_LAYERS)]
    if isinstance(part, RepeatedReading):
        part = part.with_scores([_drawn_scores(view) for view in views])
    seen = [part.observe(view) for view in views]
    return torch.stack([retention.counts for retention in part.retain(seen)])


def _view(layer: int, draw: int, read: set[int]) -> LayerView:
    """A layer with drawn states; which of its rows of attention are read is noted."""
    generator = torch.Generator().manual_seed(1000 * draw + layer + 1)
    layout = prompt_layout()

    def states(*shape: int) -> Tensor:
        # Which layer has the sharper attention differs between the prompts.
        sharpness = 1 + 0.5 * ((layer * (1 + draw) + 2 * draw) % 3)
        return torch.randn(*shape, generator=generator) * sharpness

    keys = states(1, FACTS.kv_heads, layout.length, _WIDTH)
    queries = states(1, FACTS.heads, layout.length, _WIDTH)
    hidden = states(1, layout.length, FACTS.hidden_size)
    return LayerView(
        layer=layer,
        layers=FACTS.layers,
        hidden=hidden,
        layout=layout,
        sizes=layout.real.long(),
        attention=_Watched(queries, keys, read),
        seed=draw,
        keys=keys,
        values=states(*keys.shape),
        vision=drawn_features(layout, _WIDTH, FACTS.hidden_size, draw),
        inputs=PromptInputs(hidden, layout),
        rotary=rotary_of(layout, _WIDTH),
        final_norm=lambda states: states,
    )


def _drawn_scores(view: LayerView) -> Tensor:
    """(B, H_kv, N) in place of what a repetition would give."""
    shape = (1, FACTS.kv_heads, view.layout.length)
    return torch.rand(shape, generator=view.generators()[0])


def prompt_layout() -> TokenLayout:
    """The layout of the drawn prompts."""
    kinds = [int(TokenKind.SYSTEM)] * _SYSTEM + [int(TokenKind.VISION)] * _SIDE**2
    return single_layout(kinds + [int(TokenKind.TEXT)] * _QUESTION, [Grid(1, _SIDE, _SIDE)])


def rotary_of(layout: TokenLayout, width: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, N, d) of each token's place, as in a Llama with heads of d numbers."""
    exponents = torch.arange(0, width, 2, device=layout.position.device) / width
    angles = layout.position.clamp_min(0)[..., None] / 10_000.0**exponents
    both = torch.cat([angles, angles], -1)
    return both.cos(), both.sin()


def drawn_features(layout: TokenLayout, width: int, hidden: int, seed: int) -> VisionFeatures:
    """What a vision tower would know of each vision token, at random.

    Args:
        layout: Of the prompt.
        width: Feature dimension of keys and features.
        hidden: Feature dimension of the decoder.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    seen = layout.vision
    matrix = torch.randn(width, hidden, generator=generator).to(seen.device) / width**0.5

    def numbers(*wide: int) -> Tensor:
        drawn = torch.rand(*seen.shape, *wide, generator=generator).to(seen.device)
        return drawn * seen.view(*seen.shape, *[1] * len(wide))

    return VisionFeatures(
        **{name: numbers(width) for name in _WIDE},
        **{name: numbers() for name in _FLAT},
        tile=torch.where(seen, 0, -1),
        project=lambda states: states.float() @ matrix,
    )


class _Watched(ProjectedAttention):
    """Attention that notes which of its rows are read."""

    def __init__(self, queries: Tensor, keys: Tensor, read: set[int]) -> None:
        super().__init__(queries, keys, _WIDTH**-0.5)
        self.read = read

    def of_heads(self, heads: slice) -> _Watched:
        shared = slice(heads.start // self.group, heads.stop // self.group)
        return _Watched(self.queries[:, heads], self.keys[:, shared], self.read)

    def logits(self, index: Tensor, columns: Tensor | None = None) -> Tensor:
        self.read.update(index.flatten().tolist())
        return super().logits(index, columns)


def _in_words(read: set[int]) -> str:
    """Which rows of the drawn prompt were read."""
    layout = prompt_layout()
    everyone, question = set(range(layout.length)), _places(layout.question)
    vision = _places(layout.vision)
    for name, rows in {
        "none": set(),
        "all": everyone,
        "question": question,
        "vision": vision,
        "vision and question": vision | question,
        f"last {len(read)}": set(range(layout.length - len(read), layout.length)),
    }.items():
        if rows == read:
            return name
    return "some of the question" if read < question else f"{len(read)} of {layout.length}"


def _places(mask: Tensor) -> set[int]:
    return set(mask[0].nonzero()[:, 0].tolist())
