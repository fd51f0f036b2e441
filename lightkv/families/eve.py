"""EVE (encoder-free, not in transformers): an adapter for the code that comes with its checkpoints.

EVE is a Llama decoder whose images become embeddings outside of it.  Its own ``forward`` and
``prepare_inputs_for_generation`` hand on no positions, which would be silently wrong after a
compressed cache; so the decoder runs as stock ``LlamaForCausalLM`` on the very same modules, and
only ``encode_images`` of the remote code is used.

Tested on a stand-in with the same interface (``encode_images``, ``get_model``, ``lm_head``). Not
tested: the published checkpoints, whether their code runs under this transformers version, and
their image preprocessing. ``ask`` does not work, since EVE has no processor: build inputs with
:func:`eve_inputs` and use ``generate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.layout import Grid, TokenLayout
from lightkv.errors import InputError, UnsupportedError
from lightkv.families.base import Family
from lightkv.families.boxes import Box
from lightkv.families.slots import Picture, Segment
from lightkv.families.supply import Supply, from_queues, read_input

# What EVE's code puts where an image belongs.
IMAGE_SENTINEL = -200


class Eve(Family):
    """EVE-7B v1 and HD: a class token, then rows of patches with a line break each."""

    model_types = ("eve",)
    has_encoder = False
    layout_inputs = ("patch_grids",)
    remote_code = True

    def vision_ids(self, config: Any) -> tuple[int, ...]:
        return (IMAGE_SENTINEL,)

    def row_pixels(
        self, config: Any, inputs: Mapping[str, Tensor], layout: TokenLayout
    ) -> list[list[Tensor]]:
        # Images are embeddings before the model sees them.
        embedded = inputs.get("inputs_embeds")
        if embedded is None:
            return [[] for _ in range(layout.batch_size)]
        return [[row] for row in embedded]

    def picture_boxes(
        self, image_processor: Any, size: tuple[int, int], grids: Sequence[Grid]
    ) -> list[Box]:
        raise UnsupportedError(
            "how EVE's own code cuts and pads a picture is not known here, so tokens can't be "
            "followed back to its pixels"
        )

    def supply(self, config: Any, inputs: Mapping[str, Tensor]) -> Supply:
        if not bool((inputs["input_ids"] == IMAGE_SENTINEL).any()):
            return from_queues({})
        grids = read_input(inputs, "patch_grids").tolist()
        pictures = [_picture(rows, cols) for rows, cols in grids]
        return from_queues({IMAGE_SENTINEL: pictures})

    def adopt(self, model: Any) -> Any:
        from transformers import LlamaForCausalLM

        with torch.device("meta"):
            stock: Any = LlamaForCausalLM(model.config)
        stock.model = model.get_model()
        stock.lm_head = model.lm_head
        stock.generation_config = model.generation_config
        # Kept for eve_inputs, outside the list of submodules: its weights are the same tensors.
        stock.__dict__["encode_images"] = model.encode_images
        return stock.eval()


def _picture(rows: int, cols: int) -> Picture:
    return Picture((Segment(Grid(1, rows, cols), "rows", leading=1),))


def eve_inputs(model: Any, prompts: Sequence[Tensor], images: Tensor) -> dict[str, Tensor]:
    """Inputs of a left-padded batch.

    Args:
        model: What :meth:`Eve.adopt` made.
        prompts: Per row token ids (n,) with one ``IMAGE_SENTINEL`` per image.
        images: (images of all rows, 4, H, W): pixels and EVE's mask of real pixels.

    Raises:
        InputError: If images and sentinels differ in number.
    """
    features, grids = model.encode_images(images)
    wanted = sum(int((prompt == IMAGE_SENTINEL).sum()) for prompt in prompts)
    if wanted != len(features):
        raise InputError(f"the prompts have {wanted} places for images, {len(features)} are given")
    embed = model.get_input_embeddings()
    waiting = iter(features)
    rows: list[tuple[Tensor, Tensor]] = []
    for prompt in prompts:
        ids, parts = [], []
        for token in torch.split(prompt, 1):
            is_image = int(token) == IMAGE_SENTINEL
            part = next(waiting) if is_image else embed(token)
            ids.append(token.expand(len(part)))
            parts.append(part)
        rows.append((torch.cat(ids), torch.cat(parts)))
    longest = max(len(ids) for ids, _ in rows)
    pad = torch.nn.functional.pad
    return {
        "input_ids": torch.stack([pad(ids, (longest - len(ids), 0)) for ids, _ in rows]),
        "attention_mask": torch.stack(
            [pad(torch.ones_like(ids), (longest - len(ids), 0)) for ids, _ in rows]
        ),
        "inputs_embeds": torch.stack(
            [pad(part, (0, 0, longest - len(part), 0)) for _, part in rows]
        ),
        "patch_grids": torch.stack([grid.to(prompts[0].device) for grid in grids]),
    }
