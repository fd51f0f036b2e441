"""Tokenizer, processor and chat template of the encoder-free model.

Image processor and tokenizer are stock classes. The stock processor around them expects a
tokenizer with the marks of one released checkpoint and has no chat template; the one here writes
the same inputs. Importing this module makes it known to ``AutoProcessor``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoProcessor, PreTrainedConfig
from transformers.feature_extraction_utils import BatchFeature
from transformers.models.fuyu.image_processing_pil_fuyu import FuyuImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from lightkv.embedded import vocabulary as words
from lightkv.embedded.canvas import PATCH, SQUARE
from lightkv.embedded.fuyu.vocabulary import KNOWN, LINE
from lightkv.embedded.processing import build_tokenizer, chat_template
from lightkv.errors import InputError


class RowsProcessor(ProcessorMixin):
    """A picture as rows of patches, each closed by a line break, before the text.

    Args:
        image_processor: Resizes pictures that are too large, and normalises.
        tokenizer: Of the text, ``<image>`` and ``<line>`` included.
        chat_template: Puts ``<image>`` first.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None
    ) -> None:
        self.image_token = words.IMAGE
        self.image_token_id = words.IMAGE_ID
        build: Any = super().__init__
        build(image_processor, tokenizer, chat_template=chat_template)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        padding: bool | str = False,
        return_tensors: str | None = None,
        **others: Any,
    ) -> BatchFeature:
        """Inputs of the model.

        Args:
            images: A picture, or one for each text, each perhaps in a list of its own.
            text: One or several prompts that hold ``<image>`` at most once.
            padding: As the tokenizer takes it.
            return_tensors: ``pt`` for tensors.
            **others: What chat templates pass on and is None here, as ``videos``.

        Returns:
            ``input_ids``, ``attention_mask`` and, with pictures, ``pixel_values`` (patches of all
            pictures in a row, 3 * p * p).

        Raises:
            InputError: If pictures and marks differ in number, a prompt has several, or an argument
                would have no effect.
        """
        unused = [name for name, value in others.items() if value is not None]
        if unused:
            raise InputError(f"{', '.join(unused)}: no effect on this processor; leave it out")
        prompts = [text] if isinstance(text, str) else list(text or [])
        pictures = _flat(images)
        marks = [prompt.count(words.IMAGE) for prompt in prompts]
        if max(marks, default=0) > 1:
            raise InputError(
                f"a prompt has {max(marks)} pictures; this model reads one, before the text"
            )
        if sum(marks) != len(pictures):
            raise InputError(f"{len(pictures)} pictures for prompts with {sum(marks)} <image>")
        drawn = [self._rows(picture) for picture in pictures]
        left = iter(drawn)
        prompts = [
            prompt.replace(words.IMAGE, next(left)[1]) if mark else prompt
            for prompt, mark in zip(prompts, marks, strict=True)
        ]
        tokenizer: Any = self.tokenizer
        data = dict(tokenizer(prompts, padding=padding, add_special_tokens=False))
        data.pop("token_type_ids", None)
        if drawn:
            data["pixel_values"] = torch.cat([values for values, _ in drawn])
        return BatchFeature(data, tensor_type=return_tensors)

    def _rows(self, picture: Any) -> tuple[torch.Tensor, str]:
        """Patches of a picture (patches, 3 * p * p), and its tokens."""
        processor: Any = self.image_processor
        made = processor([picture], return_tensors="np")
        size = processor.patch_size
        patch = (size["height"], size["width"])
        used = (made["image_unpadded_heights"][0][0], made["image_unpadded_widths"][0][0])
        rows, columns = (math.ceil(int(u) / p) for u, p in zip(used, patch, strict=True))
        image = made["images"][0][0][:, : rows * patch[0], : columns * patch[1]]
        values = torch.as_tensor(processor.patchify_image(image)).float()
        return values, (words.IMAGE * columns + LINE) * rows


class _RowsConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Stands for the processor's name in the registry of ``AutoProcessor``."""

    model_type = "lightkv_rows"


_register: Any = AutoProcessor.register
_register(_RowsConfig, RowsProcessor, exist_ok=True)


def _flat(images: Any) -> list[Any]:
    if images is None:
        return []
    if not isinstance(images, list | tuple):
        return [images]
    return [picture for entry in images for picture in _flat(entry)]


def build_processor() -> RowsProcessor:
    """The processor of the shipped model: 128 x 128 pictures become 256 vision tokens."""
    sizes: dict[str, Any] = {
        "size": {"height": SQUARE.height, "width": SQUARE.width},
        "patch_size": {"height": PATCH, "width": PATCH},
    }
    images = FuyuImageProcessorPil(**sizes)
    tokenizer = build_tokenizer(KNOWN, {"image_token": words.IMAGE, "line_token": LINE})
    first = (
        "{%- for message in messages if message['content'] is not string -%}"
        "{%- for part in message['content'] if part['type'] == 'image' -%}"
        f"{words.IMAGE}"
        "{%- endfor -%}{%- endfor -%}"
    )
    return RowsProcessor(images, tokenizer, first + chat_template(""))
