"""Where the tokens of a request's pictures lie on them."""

from __future__ import annotations

from typing import Any

from lightkv.catalogue import MethodLike
from lightkv.contract.layout import TokenLayout
from lightkv.errors import UnsupportedError
from lightkv.kept_map import PicturePlace
from lightkv.model import LoadedModel
from lightkv.pictures import smaller
from lightkv.prompting import Request, read_image


def picture_places(
    model: LoadedModel, request: Request, compressor: MethodLike, layout: TokenLayout
) -> tuple[PicturePlace, ...]:
    """One place per picture of a request, in prompt order, and then one per video.

    Args:
        model: The model that was asked.
        request: What it was asked.
        compressor: The method; one that acts on pictures made them smaller.
        layout: Of the prompt (1 row, without padding).

    Raises:
        UnsupportedError: If the family doesn't say where its tokens lie, or the processor made more
            pictures of one (crops that it adds as pictures of their own).
    """
    shares = model.picture_shares([request], compressor)
    shown = request if shares is None else smaller([request], shares)[0]
    numbers = sorted(set(layout.image[0][layout.vision[0]].tolist()))
    pictures = _pictures(request)
    if len(numbers) != len(pictures):
        raise UnsupportedError(
            f"the prompt holds {len(numbers)} pictures for {len(pictures)} that were given; "
            "where added crops lie on a picture is not known"
        )
    image_processor = getattr(model.processor, "image_processor", model.processor)
    places = []
    for number, whole, small in zip(numbers, pictures, _pictures(shown), strict=True):
        segments = _segments(layout, number)
        grids = [layout.grids[0][segment] for segment in segments]
        width, height = read_image(small).size
        boxes = model.family.picture_boxes(image_processor, (height, width), grids)
        width, height = read_image(whole).size
        places.append(PicturePlace(height, width, segments, tuple(boxes)))
    return tuple(places)


def _pictures(request: Request) -> list[Any]:
    """The pictures of a request, and one frame of every video."""
    return [*request.images, *(frames[0] for frames in request.videos)]


def _segments(layout: TokenLayout, number: int) -> tuple[int, ...]:
    """Grids of one picture, in prompt order."""
    return tuple(sorted(set(layout.segment[0][layout.image[0] == number].tolist())))
