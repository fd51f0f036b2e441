"""Methods that act on pictures before the processor sees them.

They need a model whose grid of vision tokens follows the size of a picture. What is asked then
holds smaller pictures, and the processed batch says how many tokens that saves in each prompt, so
that a record can give shares of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from lightkv.contract.compressor import Compressor
from lightkv.contract.view import ModelFacts
from lightkv.errors import InputError, UnsupportedError
from lightkv.prompting import Request, read_image

SAVED: Final = "tokens_saved_by_pictures"
"""Input (B,) int64 of a processed batch: tokens that smaller pictures save in each prompt.
The model does not take it."""


def smaller(requests: Sequence[Request], shares: Sequence[float]) -> list[Request]:
    """Requests whose pictures have a share of their pixels each, both sides shrunk alike."""
    return [
        replace(
            request,
            images=tuple(_resized(image, share) for image in request.images),
            videos=tuple(
                tuple(_resized(frame, share) for frame in frames) for frames in request.videos
            ),
        )
        for request, share in zip(requests, shares, strict=True)
    ]


def _resized(image: Any, share: float) -> Image.Image:
    picture = read_image(image)
    if share >= 1:
        return picture
    width, height = (max(1, round(side * share**0.5)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def with_saved(
    batch: Mapping[str, Tensor], whole: Mapping[str, Tensor], shares: Sequence[float]
) -> dict[str, Tensor]:
    """A batch of smaller pictures that says what it saves.

    Args:
        batch: The processed batch.
        whole: The same prompts with whole pictures.
        shares: Per prompt, the share of its pictures' pixels that was asked for.

    Raises:
        UnsupportedError: If a smaller picture has as many tokens as the whole one.
    """
    saved = whole["attention_mask"].sum(1) - batch["attention_mask"].sum(1)
    for row, (fewer, share) in enumerate(zip(saved.tolist(), shares, strict=True)):
        if fewer <= 0 and share < 1:
            raise UnsupportedError(
                f"prompt {row}: with {share:.3g} of its pixels a picture has as many vision tokens "
                "as before, since the processor's smallest or fixed size is reached; use a larger "
                "share or another method"
            )
    return {**batch, SAVED: saved}


def check_pictures(
    compressor: Compressor | None, facts: ModelFacts, batch: Mapping[str, Tensor]
) -> None:
    """Refuse a batch whose pictures are not those that the method asks for.

    Raises:
        InputError: See above.
    """
    acts = compressor is not None and compressor.acts_on_pictures(facts)
    if acts and SAVED not in batch:
        raise InputError(
            f"{compressor} makes pictures smaller before the processor sees them: build the inputs "
            "with vlm.encode(requests, compressor), or ask with vlm.ask"
        )
    if SAVED in batch and not acts:
        raise InputError(
            "these inputs hold pictures that a method made smaller; build the inputs again with "
            "vlm.encode(requests)"
        )


def saved_by(batch: Mapping[str, Tensor]) -> Tensor | None:
    """(B,) int64: tokens that smaller pictures save in each prompt, or None."""
    saved = batch.get(SAVED)
    return None if saved is None else saved.to(torch.int64)
