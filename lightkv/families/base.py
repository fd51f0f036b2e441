"""What a model family tells the library about its models."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.contract.view import QuestionWords, VisionFeatures
from lightkv.errors import InputError, ModelError
from lightkv.families.boxes import WHOLE, Box
from lightkv.families.slots import Placed, row_layout
from lightkv.families.supply import Supply

# Where a config has the placeholder of a kind of picture, and the input with its pixels.
_PIXELS = {"image_token_id": "pixel_values", "video_token_id": "pixel_values_videos"}
_VIDEOS = ("pixel_values_videos", "video_grid_thw")


class Family(ABC):
    """One architecture family: where its parts are and how vision tokens lie on their grids.

    A family is stateless; everything it needs comes from the model's config and the inputs.
    """

    #: ``config.model_type`` values of this family.
    model_types: tuple[str, ...] = ()

    #: Inputs without which the model would run and be silently wrong.
    required_inputs: tuple[str, ...] = ()

    #: True if the decoder adds vision features after some of its first layers.
    adds_to_layers: bool = False

    #: True if a smaller picture has fewer vision tokens.
    grid_follows_picture: bool = False

    #: True if pictures go through a vision encoder before they enter the decoder.
    has_encoder: bool = True

    #: True if requests may hold videos.
    takes_videos: bool = False

    #: True if a token's position is one number, in pictures too.
    one_axis: bool = True

    #: Inputs that only say how vision tokens lie; the model does not take them.
    layout_inputs: tuple[str, ...] = ()

    #: True if models of the family run code that comes with their checkpoint.
    remote_code: bool = False

    def adopt(self, model: Any) -> Any:
        """The model to run, made from the loaded one; by default the loaded one itself."""
        return model

    def decoder_path(self, model: Any) -> str:
        """Dotted path of the text decoder (the module that owns ``layers``).

        Raises:
            ModelError: If the model does not contain the decoder it reports.
        """
        decoder = model.get_decoder()
        for path, module in model.named_modules():
            if module is decoder:
                return str(path)
        raise ModelError(f"{type(model).__name__} does not contain the decoder it reports")

    def vision_ids(self, config: Any) -> tuple[int, ...]:
        """Ids of the placeholders that vision tokens take."""
        named = (getattr(config, kind, None) for kind in _PIXELS)
        return tuple(int(token) for token in named if token is not None)

    def placeholders(self, config: Any, inputs: Mapping[str, Tensor]) -> tuple[int, ...]:
        """Ids that stand for vision tokens in these inputs, of those that occur.

        Without a video among the inputs the id of a video is a word like others, for the model too.
        """
        video = getattr(config, "video_token_id", None)
        no_video = all(inputs.get(name) is None for name in _VIDEOS)
        return tuple(
            token
            for token in self.vision_ids(config)
            if bool((inputs["input_ids"] == token).any()) and not (token == video and no_video)
        )

    def check_pixels(self, config: Any, inputs: Mapping[str, Tensor]) -> None:
        """Refuse placeholders without the pictures that they stand for.

        Raises:
            InputError: If the model would read them as words.
        """
        needs = {getattr(config, kind, None): name for kind, name in _PIXELS.items()}
        for token in self.placeholders(config, inputs):
            if (name := needs.get(token)) is not None and inputs.get(name) is None:
                raise InputError(
                    f"the prompt has placeholders for pictures, but {name} is missing: the model "
                    "would read them as words; pass on everything the processor returns"
                )

    @abstractmethod
    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        """Where the pictures of a processed batch come from; called once per batch.

        Raises:
            InputError: If the inputs lack what carries the grids.
        """

    def layout(self, config: Any, inputs: Mapping[str, Tensor]) -> TokenLayout:
        """Layout of a processed batch.

        Args:
            config: The model's config.
            inputs: What the processor returned: ``input_ids`` (B, N), ``attention_mask`` (B, N)
                and whatever carries the grids.

        Raises:
            InputError: If vision tokens and grids don't match, or a required input is missing.
        """
        ids = inputs["input_ids"]
        tokens = self.placeholders(config, inputs)
        if tokens:
            missing = [name for name in self.required_inputs if inputs.get(name) is None]
            if missing:
                raise InputError(
                    f"{missing[0]} is missing: without it this model runs and is silently wrong; "
                    "pass on everything the processor returns"
                )
        supply = self.supply(config, inputs)
        rows = []
        for row, real in zip(ids, inputs["attention_mask"].bool(), strict=True):
            placed = []
            for token in tokens:
                slots = ((row == token) & real).nonzero()[:, 0]
                if len(slots):
                    placed.append(Placed(slots, supply(token, row, slots)))
            rows.append(row_layout(real, placed))
        return TokenLayout.stack(rows).to(ids.device)

    def row_pixels(
        self, config: Any, inputs: Mapping[str, Tensor], layout: TokenLayout
    ) -> list[list[Tensor]]:
        """Pixels of each row's own pictures, so that rows can be told apart.

        Where pixels don't say whose they are, every row has them all.

        Args:
            config: The model's config.
            inputs: The processed batch.
            layout: Its layout.
        """
        rows: list[list[Tensor]] = [[] for _ in range(layout.batch_size)]
        for kind, name in _PIXELS.items():
            values = inputs.get(name)
            if values is None:
                continue
            counts = self.pixel_counts(inputs, layout, name, getattr(config, kind, None))
            split = sum(counts) == len(values)
            parts = torch.split(values, list(counts)) if split else [values] * len(rows)
            for row, part in zip(rows, parts, strict=True):
                row.append(part)
        return rows

    def pixel_counts(
        self, inputs: Mapping[str, Tensor], layout: TokenLayout, name: str, token: int | None
    ) -> Sequence[int]:
        """How many of the first dimension of an input belong to each row: its pictures.

        Args:
            inputs: The processed batch.
            layout: Its layout.
            name: The input.
            token: Id of its placeholder.
        """
        ids = inputs["input_ids"].to(layout.kind.device)
        return [
            int(image[(row == token) & (image >= 0)].unique().numel())
            for row, image in zip(ids, layout.image, strict=True)
        ]

    def picture_boxes(
        self, image_processor: Any, size: tuple[int, int], grids: Sequence[Grid]
    ) -> list[Box]:
        """Area of a picture that each of its token grids shows.

        Args:
            image_processor: Of the model; its settings decide what is cut and padded.
            size: (height, width) of the picture in pixels.
            grids: Of the picture, in prompt order.

        Returns:
            Left, top, right and bottom as shares of width and height; below 0 or above 1 where the
            picture was padded. Here: every grid shows the whole picture.

        Raises:
            UnsupportedError: If the family doesn't know, or grids and picture don't fit.
        """
        return [WHOLE] * len(grids)

    def vision_features(
        self,
        model: Any,
        inputs: Mapping[str, Tensor],
        layout: TokenLayout,
        names: frozenset[str],
        words: QuestionWords | None = None,
    ) -> VisionFeatures:
        """What the vision tower knows of each vision token.

        Args:
            model: The model.
            inputs: The processed batch.
            layout: Its layout.
            names: Fields of :class:`~lightkv.contract.view.VisionFeatures` that a method asked for;
                a field that the family can't give stays None, and the method says so.
            words: Of the question, where relevance to it is asked for.
        """
        return VisionFeatures()

    def pictures_twice(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What carries the pictures of one prompt, for a prompt that shows all of them twice.

        Args:
            inputs: Tensors of a processed prompt that are not one number per token.

        Raises:
            UnsupportedError: If the model can't be shown them twice.
        """
        return {name: torch.cat([value, value]) for name, value in inputs.items()}

    def trained_length(self, config: Any) -> int | None:
        """Positions that the model was trained to read, None where its config doesn't say.

        Stretched rotary embeddings (YaRN and the like) count.
        """
        text = config.get_text_config()
        trained = getattr(text, "max_position_embeddings", None)
        rope = getattr(text, "rope_parameters", None) or {}
        original = rope.get("original_max_position_embeddings", trained)
        factor = rope.get("factor", 1)
        return None if trained is None else max(int(trained), int(factor * original))

    def positions_taken(self, layout: TokenLayout) -> Tensor:
        """(B,) int64: positions that each row's prompt takes."""
        return layout.prompt_lengths

    def sliding_windows(self, config: Any, layers: int) -> tuple[int | None, ...]:
        """Tokens that each layer's queries look back on, themselves included; None for all."""
        text = config.get_text_config()
        window = getattr(text, "sliding_window", None)
        if window is None:
            return (None,) * layers
        kinds = getattr(text, "layer_types", None)
        # Without a list of kinds every layer has the window, as in Mistral.
        if kinds is None:
            return (int(window),) * layers
        sliding = (kinds[layer] == "sliding_attention" for layer in range(layers))
        return tuple(int(window) if slides else None for slides in sliding)

    def final_norm(self, model: Any) -> Callable[[Tensor], Tensor] | None:
        """The norm after the decoder's last layer, as a function that leaves no trace; or None."""
        decoder = model.get_decoder()
        names = (name for name in ("norm", "final_layernorm") if hasattr(decoder, name))
        norm = getattr(decoder, next(names, ""), None)
        return None if norm is None else functools.partial(type(norm).forward, norm)

    def text_rotary(self, model: Any, length: int) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine (1, length, d) of consecutive text positions from 0.

        None where a token's own embedding already is that of its index in the prompt, so that
        renumbering can pick from what the model computed.
        """
        return None

    def rotary_at(self, model: Any, positions: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine (B, T, d) of text at positions (B, T) in a layer."""
        weight = model.get_input_embeddings().weight
        cos, sin = model.get_decoder().rotary_emb(weight.new_zeros(1, 1, 1), positions)
        return cos, sin

    def rotary_shift(self, model: Any) -> Tensor | None:
        """(B, 1) how far positions of later tokens lie from their index, right after a prefill.

        None where a token's position is its index in the row.
        """
        return None

    def later_positions(self, index: Tensor, shift: Tensor | None) -> Tensor:
        """What the model takes as ``position_ids`` of tokens that go on from a cache.

        Args:
            index: (B, T) int64, places of the tokens in their rows.
            shift: What :meth:`rotary_shift` said after the prefill.
        """
        return index
