"""Tokenizer, processor and chat template of the native-resolution model, without torchvision.

Tokenizer and image processor are stock classes. The stock video processor needs torchvision; the
one here writes the same inputs. Importing this module makes the processor known to
``AutoProcessor``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from transformers import AutoProcessor, PreTrainedConfig
from transformers.feature_extraction_utils import BatchFeature
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.processing_utils import VideosKwargs
from transformers.video_utils import VideoMetadata, make_batched_videos

from lightkv.embedded import vocabulary as words
from lightkv.embedded.canvas import PATCH
from lightkv.embedded.processing import build_tokenizer, chat_template
from lightkv.embedded.qwen.architecture import FRAMES, MERGE
from lightkv.errors import InputError

FRAME_RATE: Final = 2.0
"""Frames a second of a video where no rate is given."""
LEAST_PIXELS: Final = 64 * 64
MOST_PIXELS: Final = 192 * 192


class FramesProcessor:
    """Videos as lists of frames to what the stock video processor returns.

    Two frames share a grid; an odd last one is repeated. No frames are left out.

    Args:
        images: Resizes and normalises every frame as a picture.
    """

    valid_kwargs = VideosKwargs
    temporal_patch_size = FRAMES

    def __init__(self, images: Qwen2VLImageProcessorPil) -> None:
        self.images = images
        self.merge_size: int = images.merge_size

    def __call__(
        self, videos: Any, *, fps: float | None = None, return_tensors: str | None = None, **_: Any
    ) -> BatchFeature:
        """Patches of all videos, their grids, and the times of their frames.

        Args:
            videos: One or several lists of frames of one size.
            fps: Frames a second, `FRAME_RATE` if None.
            return_tensors: ``pt`` for tensors.

        Returns:
            ``pixel_values_videos`` (patches, 3 * 2 * p * p), ``video_grid_thw`` (videos, 3) and
            ``video_metadata``.

        Raises:
            InputError: If the frames of a video differ in size.
        """
        try:
            batched = make_batched_videos(videos)
        except ValueError as error:
            raise InputError(
                f"give a list of frames of one size for each video ({error})"
            ) from error
        patches, grids, metadata = [], [], []
        for frames in batched:
            values, grid = self._video(list(frames))
            patches.append(values)
            grids.append(grid)
            metadata.append(
                VideoMetadata(
                    total_num_frames=len(frames),
                    fps=fps or FRAME_RATE,
                    frames_indices=list(range(len(frames))),
                )
            )
        data = {
            "pixel_values_videos": np.concatenate(patches),
            "video_grid_thw": np.array(grids, np.int64),
            "video_metadata": metadata,
        }
        return BatchFeature(
            data, tensor_type=return_tensors, skip_tensor_conversion=["video_metadata"]
        )

    def _video(self, frames: Sequence[Any]) -> tuple[Any, list[int]]:
        even = [*frames, *frames[len(frames) - len(frames) % FRAMES :]]
        made = self.images(images=even, return_tensors="np")
        _, rows, columns = (int(extent) for extent in made["image_grid_thw"][0])
        size = self.images.patch_size
        shape = (len(even) // FRAMES, FRAMES, rows * columns, 3, FRAMES, size * size)
        # Every frame was doubled in time: take the first of each, and put two frames together.
        single = made["pixel_values"].reshape(shape)[:, :, :, :, 0]
        values = single.transpose(0, 2, 3, 1, 4).reshape(len(even) // FRAMES * rows * columns, -1)
        return values, [len(even) // FRAMES, rows, columns]


class NativeProcessor(Qwen3VLProcessor):
    """The stock Qwen3-VL processor with `FramesProcessor` for videos."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None
    ) -> None:
        self.frames = FramesProcessor(image_processor)
        build: Any = super().__init__
        build(image_processor, tokenizer, chat_template=chat_template)

    # What the stock class takes as a third part is made from the first, and never saved.
    @property
    def video_processor(self) -> FramesProcessor:
        """What turns frames into inputs."""
        return self.frames

    @video_processor.setter
    def video_processor(self, _: Any) -> None:
        """Ignored: the stock class passes None."""


class _NativeConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Stands for the processor's name in the registry of ``AutoProcessor``."""

    model_type = "lightkv_native"


_register: Any = AutoProcessor.register
_register(_NativeConfig, NativeProcessor, exist_ok=True)


def build_processor() -> NativeProcessor:
    """The processor of the shipped model."""
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH // MERGE,
        temporal_patch_size=FRAMES,
        merge_size=MERGE,
        min_pixels=LEAST_PIXELS,
        max_pixels=MOST_PIXELS,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    tokenizer = build_tokenizer(
        words.ALL_WORDS,
        {
            "image_token": words.IMAGE,
            "video_token": words.VIDEO,
            "vision_start_token": words.VISION_START,
            "vision_end_token": words.VISION_END,
        },
    )
    image = f"{words.VISION_START}{words.IMAGE}{words.VISION_END}"
    template = chat_template(image, words.VIDEO)
    return NativeProcessor(images, tokenizer, template)
