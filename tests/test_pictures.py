"""A method that makes pictures smaller before the processor, on a model whose grid follows them."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from lightkv import VLM, Request
from lightkv.check.tiny import ZOO
from lightkv.check.tiny.model import stack
from lightkv.check.tiny.parts import END, IMAGE, PATCH, START
from lightkv.errors import InputError, InvalidValueError, UnsupportedError
from lightkv.families import FAMILIES
from lightkv.pictures import SAVED
from lightkv.protocols import ask_under
from lightkv.pruning import Downsample, UniformGrid
from lightkv.session import Session

SMALLEST = 4  # merged patches of a picture


class QwenLike:
    """As Qwen's processor: the grid follows the picture. Words become ids by their length."""

    tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda token: f"<{token}>")

    def apply_chat_template(self, messages: list[dict[str, Any]], **_: Any) -> str:
        parts = [part for message in messages for part in message["content"]]
        return " ".join("<pic>" if part["type"] == "image" else part["text"] for part in parts)

    def decode(self, ids: Any, **_: Any) -> str:
        return " ".join(map(str, ids))

    def __call__(self, text: list[str], images: list[list[Image.Image]], **_: Any) -> Any:
        rows = []
        for prompt, pictures in zip(text, images, strict=True):
            row: list[int] = [3, 4, 5]
            grids, pixels, waiting = [], [], iter(pictures)
            for word in prompt.split():
                if word != "<pic>":
                    row.append(int(word) if word.isdigit() else 10 + len(word))
                    continue
                picture = next(waiting)
                cols, high = (max(2, 2 * round(side / (2 * PATCH))) for side in picture.size)
                grid = (1, high, cols)
                count = high * cols // 4
                if count < SMALLEST:
                    grid, count = (1, 4, 4), SMALLEST
                tone = float(sum(picture.resize((1, 1)).getpixel((0, 0)))) / 765  # type: ignore[arg-type]
                pixels.append(torch.full((grid[1] * grid[2], 3 * 2 * PATCH * PATCH), tone))
                grids.append(grid)
                row += [START, *[IMAGE] * count, END]
            ids = torch.tensor([row])
            rows.append(
                {
                    "input_ids": ids,
                    "attention_mask": torch.ones_like(ids),
                    "mm_token_type_ids": (ids == IMAGE).int(),
                    "pixel_values": torch.cat(pixels),
                    "image_grid_thw": torch.tensor(grids),
                }
            )
        return stack(rows)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    model = ZOO["qwen2_5_vl"].build()
    model.processor = QwenLike()
    return model


def picture(cols: int, rows: int, color: str = "red") -> Image.Image:
    """A picture of so many vision tokens per side."""
    return Image.new("RGB", (2 * PATCH * cols, 2 * PATCH * rows), color)


WIDE = Request((picture(8, 6),), "what is in the picture ?")
TALL = Request((picture(4, 12, "blue"), picture(6, 6, "green")), "and in which one is more of it ?")


def test_a_quarter_of_the_pixels_is_a_quarter_of_the_tokens(vlm: VLM) -> None:
    method = Downsample(kept=0.25)
    whole, small = vlm.encode([WIDE, TALL]), vlm.encode([WIDE, TALL], method)
    counts = [vlm.layout(batch).vision.sum(1).tolist() for batch in (whole, small)]
    assert counts == [[48, 48 + 36], [12, 12 + 9]]
    assert small[SAVED].tolist() == [36, 63]
    assert SAVED not in whole
    assert SAVED not in vlm.model_inputs(small)
    generation = vlm.generate(small, method, max_new_tokens=2, do_sample=False)
    for row, record in enumerate(generation.records):
        length = int(whole["attention_mask"][row].sum())
        assert set(record.prefill_lengths) == {length - (36, 63)[row]}
        assert record.achieved_retention == pytest.approx(1 - (36, 63)[row] / length)
        assert record.method == str(method)


def test_answers_are_those_about_the_smaller_picture(vlm: VLM) -> None:
    method = Downsample(kept=0.25)
    ours = vlm.ask_many([WIDE, TALL], method, max_new_tokens=4)
    reduced = [
        Request((picture(4, 3),), WIDE.question),
        Request((picture(2, 6, "blue"), picture(3, 3, "green")), TALL.question),
    ]
    plain = vlm.ask_many(reduced, max_new_tokens=4)
    assert [answer.tokens for answer in ours] == [answer.tokens for answer in plain]
    both = vlm.ask_many([WIDE], "downsample:kept=0.5 | random:retention=0.5", max_new_tokens=2)[0]
    prompt = int(vlm.encode([WIDE])["attention_mask"].sum())
    assert both.record.achieved_retention < 0.5 * (1 - 20 / prompt)


def test_a_share_of_the_prompt_counts_its_text(vlm: VLM) -> None:
    method = Downsample(kept=0.5, of="prompt")
    record = vlm.ask_many([WIDE], method, max_new_tokens=1)[0].record
    assert record.achieved_retention == pytest.approx(0.5, abs=0.05)
    with pytest.raises(InvalidValueError, match="share of text"):
        vlm.encode([WIDE], Downsample(kept=0.1, of="prompt"))


def test_inputs_and_method_have_to_agree(vlm: VLM) -> None:
    method = Downsample()
    with pytest.raises(InputError, match=re.escape("vlm.encode(requests, compressor)")):
        vlm.generate(vlm.encode([WIDE]), method, max_new_tokens=1)
    for other in (None, UniformGrid()):
        with pytest.raises(InputError, match="made smaller"):
            vlm.generate(vlm.encode([WIDE], method), other, max_new_tokens=1)
    with pytest.raises(UnsupportedError, match="smallest"):
        vlm.encode([Request((picture(2, 2),), "what ?")], method)
    with pytest.raises(InvalidValueError, match="positions"):
        vlm.ask_many([WIDE], Downsample(positions="keep"))


@pytest.mark.parametrize("protocol", ["question-first", "question-agnostic", "second-turn"])
@pytest.mark.parametrize("of", ["vision", "prompt"])
def test_every_protocol_asks_about_the_smaller_picture(vlm: VLM, protocol: str, of: str) -> None:
    request = Request(WIDE.images, "and what else ?", ((WIDE.question, "nothing"),))
    method = Downsample(kept=0.5, of=of)  # type: ignore[arg-type]
    (answer,) = ask_under(protocol, vlm, [request], method, max_new_tokens=3)
    assert answer.record.achieved_retention < 0.75
    assert len(answer.tokens) == 3


def test_a_session_goes_on_with_the_pictures_that_it_has_read(vlm: VLM) -> None:
    session = Session(vlm, Downsample(kept=0.5, of="prompt"))
    (first,) = session.ask([WIDE], max_new_tokens=2)
    later = Request(WIDE.images, "now a much longer question than the first one was ?")
    talk = ((WIDE.question, first.text),)
    (second,) = session.ask([Request(later.images, later.question, talk)], max_new_tokens=2)
    assert second.record.achieved_retention == first.record.achieved_retention


def test_rows_are_repeated_with_what_they_save(vlm: VLM) -> None:
    method = Downsample()
    inputs = vlm.encode([WIDE], method)
    settings = {"max_new_tokens": 2, "do_sample": False, "num_beams": 2, "num_return_sequences": 2}
    records = vlm.generate(inputs, method, **settings).records
    alone = vlm.generate(inputs, method, max_new_tokens=2, do_sample=False).records
    assert [r.achieved_retention for r in records] == [alone[0].achieved_retention] * 2


def test_only_grids_that_follow_the_picture_are_said_to() -> None:
    following = {n for f in FAMILIES if f.grid_follows_picture for n in f.model_types}
    assert following == {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "fuyu"}
    fixed = ZOO["llava"].build()
    assert fixed.picture_shares([WIDE], Downsample()) is None
