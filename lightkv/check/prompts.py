"""Prompts for the tiny models: random words and pixels, pictures as each family writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightkv.check.configs import BREAK, END, IMAGE, PATCH, START, TILE, VIDEO
from lightkv.families.llava import tile_side
from lightkv.families.llava_next import tiled
from lightkv.families.llava_onevision import tiled_to_limit

Row = dict[str, Tensor]
#: A picture of a kind ("wide", "tall", "video") in a row of so many: ids (n,) and its tensors.
Painter = Callable[[Any, str, int, torch.Generator], tuple[Tensor, Row]]

_SIZES = {"wide": (40, 52), "tall": (90, 30)}
_EXTENTS = {"wide": (1, 4, 8), "tall": (1, 8, 6), "video": (3, 4, 4)}
_MARK, _NAME = 148, 140


def rows_of(name: str) -> Callable[[Any], list[Row]]:
    """The prompts of a zoo entry."""
    paint = _PAINTERS[name]
    more = _MORE.get(name, (("wide", "tall"),))

    def rows(config: Any) -> list[Row]:
        plan = [(("wide",), 5), (("tall",), 9), *((kinds, 3) for kinds in more)]
        return [
            write(config, paint, kinds, question, seed)
            for seed, (kinds, question) in enumerate(plan)
        ]

    return rows


def painted(name: str, config: Any, pictures: int) -> Row:
    """One row about several pictures of a zoo entry."""
    return write(config, _PAINTERS[name], ("wide",) * pictures, 64, 0)


def write(config: Any, paint: Painter, kinds: Sequence[str], question: int, seed: int) -> Row:
    """One row: three words, pictures with two words behind each, a question."""
    generator = torch.Generator().manual_seed(seed)

    def words(count: int) -> Tensor:
        return torch.randint(3, 130, (count,), generator=generator)

    parts, tensors = [words(3)], []
    for kind in kinds:
        ids, extra = paint(config, kind, len(kinds), generator)
        parts += [ids, words(2)]
        tensors.append(extra)
    ids = torch.cat([*parts, words(question)])[None]
    row = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for key in {key for extra in tensors for key in extra}:
        row[key] = _join([extra[key] for extra in tensors if key in extra])
    if config.model_type in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        row["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    if config.model_type == "gemma3":
        row["token_type_ids"] = (ids == IMAGE).long()
    if config.model_type == "llava_onevision" and "pixel_values" in row:
        row["batch_num_images"] = torch.tensor([len(kinds)])
    if config.model_type in ("idefics3", "smolvlm", "fuyu"):
        row["pixel_values"] = row["pixel_values"][None]
    return row


def stack(rows: Sequence[Row]) -> Row:
    """Left-pad rows to a batch; pictures follow each other as the models expect them."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    batch: Row = {}
    for key in {key for row in rows for key in row}:
        values = [row[key] for row in rows if key in row]
        if rows[0].get(key) is not None and rows[0][key].shape == rows[0]["input_ids"].shape:
            pad = torch.nn.functional.pad
            values = [pad(value, (longest - value.shape[1], 0), value=0) for value in values]
        patches = key == "pixel_values" and values[0].dim() == 3
        batch[key] = torch.cat(values, 1) if patches else _join(values)
    return batch


def _join(values: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first dimension, the others zero-padded to the largest."""
    largest = [max(sizes) for sizes in zip(*(v.shape[1:] for v in values), strict=True)]
    padded = []
    for value in values:
        missing = [
            n for size, big in zip(value.shape[1:], largest, strict=True) for n in (big - size, 0)
        ]
        padded.append(torch.nn.functional.pad(value, missing[::-1]))
    return torch.cat(padded)


def _pixels(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _llava(config: Any, _: str, __: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    ids = torch.full((tile_side(config) ** 2,), IMAGE)
    return ids, {"pixel_values": _pixels(generator, 1, 3, TILE, TILE)}


def _tiles(config: Any, size: tuple[int, int]) -> int:
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution(size, config.image_grid_pinpoints)
    return 1 + int(height // TILE) * int(width // TILE)


def _llava_next(config: Any, kind: str, _: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    size = _SIZES[kind]
    ids = torch.full((tiled(config, size).tokens,), IMAGE)
    pixels = _pixels(generator, 1, _tiles(config, size), 3, TILE, TILE)
    return ids, {"pixel_values": pixels, "image_sizes": torch.tensor([size])}


def _onevision(
    config: Any, kind: str, images: int, generator: torch.Generator
) -> tuple[Tensor, Row]:
    side = tile_side(config)
    if kind == "video":
        pooled = -(-side // 2)
        ids = torch.full((3 * pooled**2 + 1,), VIDEO)
        return ids, {"pixel_values_videos": _pixels(generator, 1, 3, 3, TILE, TILE)}
    size = _SIZES[kind]
    single = images == 1
    tokens = tiled_to_limit(config, size).tokens if single else side**2 + 1
    tiles = _tiles(config, size) if single else 1
    pixels = _pixels(generator, 1, tiles, 3, TILE, TILE)
    return torch.full((tokens,), IMAGE), {
        "pixel_values": pixels,
        "image_sizes": torch.tensor([size]),
    }


def _qwen(config: Any, kind: str, _: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    frames, rows, cols = _EXTENTS[kind]
    pixels = _pixels(generator, frames * rows * cols, 3 * 2 * PATCH * PATCH)
    extent = torch.tensor([[frames, rows, cols]])
    tokens = rows * cols // 4
    start, end = torch.tensor([START]), torch.tensor([END])
    if kind != "video":
        ids = torch.cat([start, torch.full((frames * tokens,), IMAGE), end])
        return ids, {"pixel_values": pixels, "image_grid_thw": extent}
    if config.model_type == "qwen3_vl":
        # Time stamp and markers around every frame.
        frame = torch.cat([torch.tensor([_NAME]), start, torch.full((tokens,), VIDEO), end])
        ids = frame.repeat(frames)
    else:
        ids = torch.cat([start, torch.full((frames * tokens,), VIDEO), end])
    return ids, {"pixel_values_videos": pixels, "video_grid_thw": extent}


def _internvl(config: Any, kind: str, _: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    tiles = 3 if kind == "wide" else 1
    picture = torch.full((tiles * config.image_seq_length,), IMAGE)
    ids = torch.cat([torch.tensor([START]), picture, torch.tensor([END])])
    return ids, {"pixel_values": _pixels(generator, tiles, 3, TILE, TILE)}


def _gemma3(config: Any, _: str, __: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    picture = torch.full((config.mm_tokens_per_image,), IMAGE)
    ids = torch.cat([torch.tensor([START]), picture, torch.tensor([END])])
    return ids, {"pixel_values": _pixels(generator, 1, 3, TILE, TILE)}


def _idefics(config: Any, kind: str, _: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    """Tiles as the processor writes them: marker and name before each, a break behind each row."""
    tile = torch.full((16,), IMAGE)
    mark, whole = torch.tensor([_MARK]), torch.tensor([_NAME])
    parts: list[Tensor] = []
    rows, cols = (1, 2) if kind == "wide" else (0, 0)
    for row in range(rows):
        for col in range(cols):
            parts += [mark, torch.tensor([_NAME + 1 + row * cols + col]), tile]
        parts.append(torch.tensor([BREAK]))
    if rows:
        parts.append(torch.tensor([BREAK]))
    ids = torch.cat([*parts, mark, whole, tile, mark])
    return ids, {"pixel_values": _pixels(generator, rows * cols + 1, 3, TILE, TILE)}


def _fuyu(config: Any, kind: str, _: int, generator: torch.Generator) -> tuple[Tensor, Row]:
    rows, cols = (3, 5) if kind == "wide" else (4, 3)
    line = torch.cat([torch.full((cols,), IMAGE), torch.tensor([BREAK])])
    ids = torch.cat([line.repeat(rows), torch.tensor([config.bos_token_id])])
    return ids, {"pixel_values": _pixels(generator, rows * cols, 3 * PATCH * PATCH)}


# Pictures of the rows behind the first two; two pictures where nothing is said.
_MORE: dict[str, Sequence[Sequence[str]]] = {
    "llava_onevision": (("video",), ("wide", "tall")),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), (("wide", "video"),)),
}
_PAINTERS: dict[str, Painter] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_next_mistral": _llava_next,
    "llava_onevision": _onevision,
    "qwen2_vl": _qwen,
    "qwen2_5_vl": _qwen,
    "qwen3_vl": _qwen,
    "internvl": _internvl,
    "gemma3": _gemma3,
    "idefics3": _idefics,
    "smolvlm": _idefics,
    "fuyu": _fuyu,
}
