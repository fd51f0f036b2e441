"""From kept entries to pixels: several pictures, tiles, merged tokens, heads that differ."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightkv import VLM, LightKV, Request, Session
from lightkv.check.tiny import ZOO
from lightkv.embedded import items
from lightkv.engine.record import RunRecord
from lightkv.errors import InvalidValueError, UnsupportedError
from lightkv.families.boxes import WHOLE, tiles
from lightkv.kept_map import PicturePlace, held_shares, kept_maps
from tests.graph.methods import KeepSome

ITEM = items("read", 1)[0]
EVERY_LAYER = range(8)


def record_of(name: str, row: int, method: Any) -> RunRecord:
    vlm = ZOO[name].build()
    inputs = ZOO[name].rows(vlm.model.config)[row]
    settings: dict[str, Any] = {"max_new_tokens": 1, "do_sample": False}
    return vlm.generate(inputs, method, **settings).records[0]


def by_hand(record: RunRecord, layer: int, segment: int) -> Tensor:
    """(rows, cols): share of the frames in which some kept position is the token of a cell."""
    layout = record.layout
    grid = layout.grids[0][segment]
    held = torch.zeros(grid.rows, grid.cols)
    kept = set(record.layers[layer].kept.flatten().tolist())
    for place in range(layout.length):
        row, col = int(layout.row[0, place]), int(layout.col[0, place])
        if int(layout.segment[0, place]) == segment and col < grid.cols:
            held[row, col] += float(place in kept)
    return held / grid.frames


def test_a_picture_of_the_embedded_model(embedded: VLM) -> None:
    answer = embedded.ask(ITEM.image, ITEM.question, "tgvkv:retention=0.2")
    for layer in (0, 3):
        (shares,) = answer.kept_map(layer)
        # 16 x 16 patches of 8 pixels.
        held = by_hand(answer.record, layer, 0)
        assert shares.shape == (128, 128)
        assert torch.equal(shares, held.repeat_interleave(8, 0).repeat_interleave(8, 1))
        kept = answer.record.layers[layer].kept
        assert float(shares.sum()) == 64 * int(answer.record.layout.vision[0][kept].sum())


def test_a_picture_of_another_size(embedded: VLM) -> None:
    wide = ITEM.image.resize((320, 96))
    (shares,) = embedded.ask(wide, ITEM.question, "random-vision:retention=0.5").kept_map(1)
    assert shares.shape == (96, 320) and not shares.isnan().any()
    # 16 x 16 cells of 6 x 20 pixels.
    cells = shares[3::6, 10::20]
    assert torch.equal(cells.repeat_interleave(6, 0).repeat_interleave(20, 1), shares)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "llava_onevision"])
def test_several_pictures(name: str) -> None:
    record = record_of(name, -1, "random-vision:retention=0.5")
    images = record.layout.image[0]
    assert int(images.max()) >= 1
    places = []
    for number in range(int(images.max()) + 1):
        (segment,) = record.layout.segment[0][images == number].unique().tolist()
        places.append(PicturePlace(40, 60, (segment,), (WHOLE,)))
    maps = kept_maps(record, 2, places)
    for place, shares in zip(places, maps, strict=True):
        held = by_hand(record, 2, place.segments[0])
        rows = ((torch.arange(40) + 0.5) / 40 * held.shape[0]).long()
        cols = ((torch.arange(60) + 0.5) / 60 * held.shape[1]).long()
        assert torch.equal(shares, held[rows][:, cols])
    # A small picture may lose all it has to chance, not all pictures.
    assert 0 < sum(float(shares.mean()) for shares in maps) < len(places)


@pytest.mark.parametrize("name", ["internvl", "idefics3", "llava_next"])
def test_tiles_and_the_whole_picture_are_averaged(name: str) -> None:
    record = record_of(name, 0, "random-vision:retention=0.5")
    segments = tuple(range(len(record.layout.grids[0])))
    assert len(segments) > 1
    boxes = [WHOLE, WHOLE] if name == "llava_next" else [*tiles(1, len(segments) - 1), WHOLE]
    (shares,) = kept_maps(record, 2, [PicturePlace(48, 96, segments, tuple(boxes))])
    for row, col in ((0, 0), (20, 70), (47, 95)):
        seen = []
        for segment, (left, top, right, bottom) in zip(segments, boxes, strict=True):
            held = by_hand(record, 2, segment)
            across, down = (col + 0.5) / 96, (row + 0.5) / 48
            if left <= across < right and top <= down < bottom:
                cell = (
                    int((down - top) / (bottom - top) * held.shape[0]),
                    int((across - left) / (right - left) * held.shape[1]),
                )
                seen.append(float(held[cell]))
        assert len(seen) == 2
        assert float(shares[row, col]) == pytest.approx(np.mean(seen))


def test_what_no_token_shows_is_nan() -> None:
    record = record_of("llava", 0, KeepSome())
    place = PicturePlace(40, 80, (0,), ((0.25, -0.5, 0.75, 1.0),))
    (shares,) = kept_maps(record, 2, [place])
    assert shares[:, :20].isnan().all() and shares[:, 60:].isnan().all()
    assert not shares[:, 20:60].isnan().any()
    held = by_hand(record, 2, 0)
    # A third of the rows lies above the picture, in its padding.
    assert torch.equal(shares[0, 20:60:10][:4], held[int(held.shape[0] * 0.51 / 1.5)][:4])


def test_a_merged_token_counts_as_the_one_it_went_into(embedded: VLM) -> None:
    method = LightKV((1, 3), (4, 2), (0.5, 0.5))
    record = embedded.ask(ITEM.image, ITEM.question, method).record
    for layer in EVERY_LAYER:
        assert (held_shares(record, layer) == 1).all()
    both = embedded.ask(ITEM.image, ITEM.question, method | KeepSome()).record
    shares = held_shares(both, 5)
    reduction = both.layers[5].provenance
    assert reduction is not None
    kept = set(both.layers[5].kept.tolist())
    stands = reduction.index[0][reduction.target[0]].tolist()
    assert shares.tolist() == [float(place in kept) for place in stands]
    assert 0 < shares.mean() < 1 and shares.sum() > len(kept)


def test_a_dropped_token_is_not_held(embedded: VLM) -> None:
    record = embedded.ask(ITEM.image, ITEM.question, "fastv:layer=1;removed=0.5").record
    assert (held_shares(record, 0) == 1).all()
    shares = held_shares(record, 5)
    assert shares.sum() == len(record.layers[5].kept) < record.layout.length


def test_heads_that_hold_others_count_by_their_share(embedded: VLM) -> None:
    record = embedded.ask(ITEM.image, ITEM.question, "ada-kv:retention=0.3").record
    shares = held_shares(record, 4)
    kept = record.layers[4].kept
    assert kept.shape[0] == 4 and set(shares.tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert float(shares.sum()) == pytest.approx(record.layers[4].entries)


def test_sessions_know_their_pictures(embedded: VLM) -> None:
    session = Session(embedded, "random-vision:retention=0.5")
    request = Request((ITEM.image,), ITEM.question)
    session.read([request])
    (answer,) = session.ask([request])
    (shares,) = answer.kept_map(2)
    assert shares.shape == (128, 128) and 0 < shares.mean() < 1


@pytest.mark.parametrize("layer", [8, -1, 1.5])
def test_layers_that_are_none(embedded: VLM, layer: Any) -> None:
    answer = embedded.ask(ITEM.image, ITEM.question)
    with pytest.raises(InvalidValueError, match="from 0 to 7"):
        answer.kept_map(layer)


def test_answers_that_do_not_say_which_picture(embedded: VLM) -> None:
    answer = embedded.ask(ITEM.image, ITEM.question)
    bare = embedded.answer(answer.tokens, answer.record)
    assert bare == answer
    with pytest.raises(UnsupportedError, match=r"vlm\.ask_many"):
        bare.kept_map(0)
    request = Request((ITEM.image, Image.new("RGB", (8, 8))), ITEM.question)
    other = embedded.answer(answer.tokens, answer.record, request)
    with pytest.raises(UnsupportedError, match="1 pictures for 2"):
        dataclasses.replace(other).kept_map(0)
