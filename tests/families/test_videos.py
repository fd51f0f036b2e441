"""Videos through the public calls: a Qwen-like model with random weights reads lists of frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.probing.probe import probe
from lightkv import Request, Session
from lightkv.contract.layout import Grid
from lightkv.errors import InputError, UnsupportedError
from lightkv.protocols import PROTOCOLS
from lightkv.vlm import VLM
from tests.tiny import tiny_llava, tiny_qwen

QUESTION = "what comes first ?"


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_qwen()


def _frames(count: int, width: int = 96, height: int = 64, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 255, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((width, height), Image.Resampling.NEAREST) for one in drawn]


def _image(seed: int = 9) -> Image.Image:
    return _frames(1, 64, 64, seed)[0]


def _video(*frames: Any, question: str = QUESTION, **more: Any) -> Request:
    return Request((), question, videos=frames, **more)


def test_a_video_lies_on_one_grid_with_two_frames_a_step(vlm: VLM) -> None:
    layout = vlm.layout(vlm.encode([_video(_frames(6))]))
    assert layout.grids == ((Grid(3, 8, 12),),)
    assert int(layout.vision.sum()) == 3 * 8 * 12
    assert layout.frame[0][layout.vision[0]].unique().tolist() == [0, 1, 2]


def test_all_frames_are_read_and_an_odd_last_one_is_repeated(vlm: VLM) -> None:
    frames = _frames(5)
    odd = vlm.encode([_video(frames)])
    even = vlm.encode([_video([*frames, frames[-1]])])
    assert torch.equal(odd["pixel_values_videos"], even["pixel_values_videos"])
    last = vlm.encode([_video([*frames[:-1], _image().resize((96, 64))])])
    assert not torch.equal(odd["pixel_values_videos"], last["pixel_values_videos"])


def test_images_come_before_videos(vlm: VLM) -> None:
    request = Request((_image(),), QUESTION, videos=(_frames(4), _frames(2, 64, 64)))
    layout = vlm.layout(vlm.encode([request]))
    assert layout.grids == ((Grid(1, 8, 8), Grid(2, 8, 12), Grid(1, 8, 8)),)
    numbers = layout.image[0][layout.vision[0]]
    assert (numbers.diff() >= 0).all() and numbers.unique().tolist() == [0, 1, 2]


def test_rows_of_videos_images_and_text_answer_as_alone(vlm: VLM) -> None:
    requests = [
        _video(_frames(4)),
        Request((_image(),), QUESTION),
        _video(_frames(8, 64, 64, 3), question="what changes at the end ?"),
        Request((), QUESTION),
    ]
    together = vlm.ask_many(requests, max_new_tokens=4)
    alone = [vlm.ask_many([request], max_new_tokens=4)[0] for request in requests]
    assert [one.tokens for one in together] == [one.tokens for one in alone]


def test_ask_takes_frames_arrays_and_a_method(vlm: VLM) -> None:
    arrays = [np.asarray(frame) for frame in _frames(4)]
    full = vlm.ask([], QUESTION, videos=[arrays], max_new_tokens=4)
    assert full.tokens == vlm.ask_many([_video(_frames(4))], max_new_tokens=4)[0].tokens
    kept = vlm.ask([], QUESTION, "random:retention=0.3", videos=[arrays], max_new_tokens=4)
    assert kept.record.achieved_retention == pytest.approx(0.3, abs=0.01)
    (shown,) = kept.kept_map(1)
    assert shown.shape == (64, 96) and 0 < float(shown.mean()) < 1


def test_a_method_that_acts_on_pictures_shrinks_frames(vlm: VLM) -> None:
    frames = _frames(4, 160, 160)
    whole = vlm.layout(vlm.encode([_video(frames)]))
    small = vlm.layout(vlm.encode([_video(frames)], "downsample:kept=0.4"))
    assert int(small.vision.sum()) < 0.5 * int(whole.vision.sum())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_reads_videos(vlm: VLM, name: str) -> None:
    request = _video(_frames(4), history=(("what moves ?", "red ring"),))
    answers = PROTOCOLS[name].ask(vlm, [request], "snapkv:retention=0.5", 3, 0)
    assert answers[0].record.achieved_retention == pytest.approx(0.5, abs=0.02)


def test_a_session_takes_another_video_for_another(vlm: VLM) -> None:
    session = Session(vlm)
    first = _video(_frames(4))
    answer = session.ask([first], max_new_tokens=3)[0]
    turn = ((first.question, answer.text),)
    other = replace(first, history=turn, videos=(_frames(4, seed=5),))
    with pytest.raises(InputError, match="not those that this session has read"):
        session.ask([other], max_new_tokens=3)


def test_a_probe_takes_videos_and_says_which_frame_a_token_shows(vlm: VLM) -> None:
    questions = [QUESTION, "what moves ?"]
    data = probe(vlm, [[], [_image()]], questions, "column_sum", videos=[[_frames(4)], []])
    film = data.key_kind.values[0] == "vision"
    frames, counts = np.unique(data.key_frame.values[0, film], return_counts=True)
    assert frames.tolist() == [0, 1] and counts.tolist() == [96, 96]
    assert set(data.key_frame.values[1].tolist()) == {-1, 0}
    for videos in ([[_frames(4)]], 3):
        with pytest.raises(InputError, match="videos is not a list of 2 entries"):
            probe(vlm, [[], []], questions, "column_sum", videos=videos)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="question 1 has no image"):
        probe(vlm, [[], []], questions, "column_sum", videos=[[_frames(4)], []])


def test_models_of_other_families_refuse_videos() -> None:
    with pytest.raises(UnsupportedError, match=r"Qwen families.*frames as images"):
        tiny_llava().encode([_video(_frames(2))])


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (7, "videos is of type int"),
        ((_image(),), "video 0 is of type Image"),
        ((_frames(2), ()), "video 1 has no frame"),
        (([*_frames(1), _image()],), r"differ in size, \(64, 64\) and \(96, 64\)"),
        ((["nowhere.png"],), "no image file"),
    ],
)
def test_what_is_not_a_video_is_refused(vlm: VLM, videos: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        vlm.encode([Request((), QUESTION, videos=videos)])


def test_a_text_with_the_mark_of_a_video_is_refused(vlm: VLM) -> None:
    with pytest.raises(InputError, match="stands for a picture"):
        vlm.encode([_video(_frames(2), question="what is a <video> ?")])
