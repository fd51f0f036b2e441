"""From requests to processed batches, and what is refused of both before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightkv.errors import InputError, ModelError
from lightkv.prompting import Request, read_image, read_video


def completed(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A processed batch with an attention mask, checked.

    Args:
        inputs: What the processor returned: ``input_ids`` (B, N), perhaps ``attention_mask``
            (B, N) and whatever belongs to the pictures.

    Raises:
        InputError: If there are no token ids, they or the mask have a wrong shape or type, a row
            is empty, or a row is padded on the right.
    """
    if not isinstance(inputs, Mapping):
        raise InputError(
            f"the inputs are of type {type(inputs).__name__}; pass what the processor returned, or "
            "ask with vlm.ask"
        )
    batch = dict(inputs)
    ids = batch.get("input_ids")
    if ids is None:
        extra = (
            "; inputs_embeds alone don't say which tokens belong to an image, pass both"
            if batch.get("inputs_embeds") is not None
            else ""
        )
        raise InputError(f"input_ids are missing{extra}")
    _check_ids(ids)
    if batch.get("attention_mask") is None:
        batch["attention_mask"] = torch.ones_like(ids)
    _check_mask(batch["attention_mask"], ids)
    return batch


def has_holes(mask: Tensor) -> bool:
    """True if some token after the first real one of its row is masked."""
    real = mask.bool()
    return bool((real.int().cummax(1).values.bool() & ~real).any())


def _check_ids(ids: Any) -> None:
    if not isinstance(ids, Tensor) or ids.dim() != 2 or not ids.numel():
        what = f"of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(
            f"input_ids are {what}; give a tensor of prompts x tokens, at least one of each"
        )
    if ids.dtype.is_floating_point or ids.dtype == torch.bool:
        raise InputError(f"input_ids are {ids.dtype}; give whole numbers (int64)")


def _check_mask(mask: Any, ids: Tensor) -> None:
    if not isinstance(mask, Tensor) or mask.shape != ids.shape:
        what = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"attention_mask is {what}; give one number per token, {tuple(ids.shape)}")
    if bool(((mask != 0) & (mask != 1)).any()):
        raise InputError("attention_mask holds other numbers than 0 (masked) and 1 (real)")
    late = (mask[:, -1] == 0).nonzero()[:, 0].tolist()
    if late:
        row = late[0]
        if not bool(mask[row].any()):
            raise InputError(f"row {row} of the batch is all padding; give every row a prompt")
        raise InputError(
            f"row {row} of the batch is padded on the right, where its answer has to start; pad on "
            "the left (tokenizer.padding_side = 'left')"
        )


def row_identities(
    ids: Tensor, real: Tensor, pixels: Sequence[Sequence[Tensor]]
) -> tuple[int, ...]:
    """Per row a 64-bit number that identifies its prompt, the same alone and in a batch.

    Args:
        ids: (B, N) token ids.
        real: (B, N) bool, False for padding.
        pixels: Per row the pixels of its pictures; zeros count as padding.
    """
    identities = []
    for row, keep, parts in zip(ids.cpu(), real.cpu(), pixels, strict=True):
        digest = hashlib.blake2b(row[keep].numpy().tobytes(), digest_size=8)
        for part in parts:
            values = part[part != 0].float().cpu()
            digest.update(values.numpy().tobytes())
        identities.append(int.from_bytes(digest.digest(), "little"))
    return tuple(identities)


def processed(
    processor: Any, name: str, requests: Sequence[Request], vision_ids: Sequence[int]
) -> Any:
    """A processor's output for some requests, left-padded.

    Args:
        processor: The model's processor.
        name: The model, for messages.
        requests: Questions about pictures and videos, checked.
        vision_ids: Ids of the placeholders of vision tokens.

    Raises:
        InputError: If a text contains a mark that stands for pictures, an image can't be used, or
            the chat template refuses the conversation.
        ModelError: If the model came without a processor or a chat template.
    """
    if processor is None or not hasattr(processor, "apply_chat_template"):
        raise ModelError(
            f"{name} has no processor that writes prompts; build its inputs yourself and use "
            "vlm.generate(inputs, ...)"
        )
    marks = _marks(processor, vision_ids)
    texts, images, videos = [], [], []
    for number, request in enumerate(requests):
        mark = next((m for m in marks for text in request.texts if m in text), None)
        if mark is not None:
            raise InputError(
                f"request {number} contains {mark!r}, which stands for a picture; leave it out, "
                "the prompt gets the marks of its pictures without it"
            )
        texts.append(chat(processor, name, request))
        images.append([read_image(image) for image in request.images])
        videos += [read_video(frames) for frames in request.videos]
    pictures: dict[str, Any] = {"images": images} if any(images) else {}
    if videos:
        # Processors would leave out frames by themselves.
        pictures |= {"videos": videos, "do_sample_frames": False}
    try:
        return processor(text=texts, padding=True, return_tensors="pt", **pictures)
    except (ValueError, IndexError) as error:
        raise InputError(f"the processor of {name} can't use this: {error}") from error


def _marks(processor: Any, vision_ids: Sequence[int]) -> set[str]:
    """Texts that a processor or tokenizer takes for (a part of) a picture."""
    tokenizer = getattr(processor, "tokenizer", processor)
    named = {
        value
        for name, value in vars(processor).items()
        if name.endswith("_token") and isinstance(value, str) and value
    }
    return named | {str(tokenizer.convert_ids_to_tokens(int(token))) for token in vision_ids}


def chat(processor: Any, name: str, request: Request) -> str:
    """A request as the model's chat template writes it.

    Args:
        processor: The model's processor.
        name: The model, for messages.
        request: The request, checked.

    Raises:
        InputError: If the template refuses the conversation.
        ModelError: If there is no template.
    """
    from jinja2 import TemplateError

    try:
        return str(
            processor.apply_chat_template(
                request.messages(), add_generation_prompt=True, tokenize=False
            )
        )
    except TemplateError as error:
        raise InputError(f"the chat template of {name} refuses the request: {error}") from error
    except ValueError as error:
        raise ModelError(f"{name} can't write a prompt: {error}") from error
