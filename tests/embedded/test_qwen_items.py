"""Items of the native-resolution model: answers are right, hints are what they say, cells fit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lightkv.embedded import scenes
from lightkv.embedded import vocabulary as words
from lightkv.embedded.canvas import SQUARE, Canvas
from lightkv.embedded.question_kinds import picture_of
from lightkv.embedded.qwen.items import KINDS, native_items, sort_of
from lightkv.embedded.qwen.legends import DEFINITIONS, LEGENDS, draw_definitions, draw_legend
from lightkv.embedded.qwen.pairs import PAIRS, Pair, share_a_shape
from lightkv.embedded.qwen.video_kinds import VIDEOS, hinted, name
from lightkv.embedded.qwen.videos import STORIES, Video, sample_videos
from lightkv.embedded.registry import Question
from lightkv.errors import InvalidValueError, UnknownNameError

CANVAS = Canvas(8, 13)


def test_the_square_canvas_is_what_it_was() -> None:
    assert SQUARE.row_edges.tolist() == [0, 5, 11, 16]
    assert (SQUARE.cells, SQUARE.width, SQUARE.patches) == (9, 128, 256)
    assert SQUARE.place(0) == "top left" and SQUARE.place(5) == "middle right"


def test_short_sides_have_two_bands() -> None:
    canvas = Canvas(11, 12)
    assert canvas.row_edges.tolist() == [0, 6, 11] and canvas.column_edges.tolist() == [0, 4, 8, 12]
    assert [canvas.place(cell) for cell in range(6)] == [
        "top left",
        "top center",
        "top right",
        "bottom left",
        "bottom center",
        "bottom right",
    ]
    assert np.bincount(canvas.cell_of_patch.ravel()).tolist() == [24, 24, 24, 20, 20, 20]


@pytest.mark.parametrize("canvas", [Canvas(8, 8), Canvas(8, 24), Canvas(12, 9), Canvas(24, 24)])
def test_objects_stay_inside_their_cell_on_every_canvas(canvas: Canvas) -> None:
    drawn = scenes.sample(np.random.default_rng(0), 40, numbers=(0, 3), canvas=canvas)
    pixels = scenes.render(np.random.default_rng(1), drawn)
    assert pixels.shape == (40, canvas.height, canvas.width, 3)
    owner, place = scenes.coverage(drawn)
    shown = owner >= 0
    cells = np.broadcast_to(canvas.cell_of_patch, owner.shape)
    assert (owner[shown] == cells[shown]).all()
    assert ((place > 0).sum((1, 2)) == 4 * (drawn.kind == scenes.NUMBER).sum(1)).all()
    objects = (drawn.kind != scenes.EMPTY).sum(1)
    assert (objects >= 3).all() and (objects <= canvas.cells).all()


def _videos(seed: int, count: int = 120, steps: int = 4) -> list[Video]:
    return sample_videos(np.random.default_rng(seed), count, CANVAS, steps)[1]


def _shown(video: Video, step: int) -> dict[str, str]:
    """Where each thing of a step stands."""
    return {name(shape): shape.where for shape in video.steps[step].shapes}


def test_every_story_is_told() -> None:
    assert {video.story for video in _videos(0)} == set(STORIES)


def test_order_is_the_order_of_appearance() -> None:
    for video in (v for v in _videos(1) if v.story == "order"):
        seen: list[str] = []
        for step in range(4):
            fresh = [thing for thing in _shown(video, step) if thing not in seen]
            assert len(fresh) <= 1
            assert set(seen) <= set(_shown(video, step))
            seen += fresh
        assert seen == [name(thing) for thing in video.subjects]
        for number in range(20):
            question = VIDEOS.ask("order", np.random.default_rng(number), video)
            assert question is not None
            text, answer = question.text.split(" . ")[-1], seen.index(question.answer)
            if " after the " in text:
                assert name(video.subjects[answer - 1]) in text and answer > 0
            elif " before the " in text:
                assert name(video.subjects[answer + 1]) in text
            else:
                assert answer == (0 if "first" in text else len(seen) - 1)


def test_what_moves_ends_elsewhere_and_the_rest_stays() -> None:
    for video in (v for v in _videos(2) if v.story == "moves"):
        before, after = _shown(video, 0), _shown(video, 3)
        moved = [thing for thing in before if before[thing] != after[thing]]
        assert moved == [name(video.subjects[0])]
        question = VIDEOS.ask("moves", np.random.default_rng(0), video)
        start = VIDEOS.ask("starts", np.random.default_rng(0), video)
        mover = VIDEOS.ask("mover", np.random.default_rng(0), video)
        assert question is not None and question.answer == after[moved[0]]
        assert start is not None and start.answer == before[moved[0]]
        assert mover is not None and mover.answer == moved[0]


def test_one_thing_changes() -> None:
    seen = Counter()
    for video in (v for v in _videos(3) if v.story == "changes"):
        before, after = _shown(video, 0), _shown(video, 3)
        gone, new = set(before) - set(after), set(after) - set(before)
        question = VIDEOS.ask("changes", np.random.default_rng(0), video)
        assert question is not None
        seen[video.change] += 1
        if video.change == "appears":
            assert not gone and question.answer == f"{new.pop()} appears"
        elif video.change == "vanishes":
            assert not new and question.answer == f"{gone.pop()} vanishes"
        else:
            (old,), (other,) = gone, new
            assert before[old] == after[other] and old.split()[1] == other.split()[1]
            assert question.answer == f"{old} turns {other.split()[0]}"
    assert set(seen) == {"turns", "appears", "vanishes"}


def test_hints_are_what_they_say() -> None:
    question = Question("what moves ?", "red ring")
    rng = np.random.default_rng(0)
    assert hinted(rng, question, ["blue cross"], "none") == question
    right = hinted(rng, question, ["blue cross"], "right")
    wrong = hinted(rng, question, ["blue cross"], "wrong")
    assert (right.hint, wrong.hint) == ("right", "wrong")
    assert "red ring" in right.text and "blue cross" in wrong.text
    assert right.text.endswith("what moves ?") and wrong.answer == "red ring"
    assert hinted(rng, question, []).hint == "none"
    drawn = Counter(hinted(rng, question, ["blue cross"]).hint for _ in range(2000))
    assert abs(drawn["none"] - 1000) < 120 and abs(drawn["right"] - 500) < 100


@pytest.mark.parametrize(
    ("kind", "first"), [("order", " comes "), ("moves", " go ?"), ("changes", "what changes ?")]
)
def test_a_question_is_paraphrased_if_it_is_not_worded_in_the_first_way(
    kind: str, first: str
) -> None:
    asked = native_items(kind, 30)
    assert {item.paraphrased for item in asked} == {True, False}
    assert all(item.paraphrased == (first not in item.question) for item in asked)


def test_legends_define_what_they_ask_about() -> None:
    drawn = scenes.sample(np.random.default_rng(4), 60, canvas=CANVAS)
    answers = Counter()
    for index in range(60):
        picture = picture_of(drawn, index)
        legend = draw_legend(np.random.default_rng(index), picture, 12)
        count = len(legend.words)
        assert 2 <= count <= 12 and len(set(legend.words)) == len(set(legend.pairs)) == count
        assert len(legend.passage.split()) == 7 * count
        meaning = dict(zip(legend.words, legend.pairs, strict=True))
        where: dict[tuple[int, int], list[str]] = {}
        for shape in picture.shapes:
            where.setdefault((shape.kind, shape.color), []).append(shape.where)
        for number in range(6):
            seed = 6 * index + number
            question = LEGENDS.ask("legend", np.random.default_rng(seed), legend)
            if question is None:
                continue
            last = question.text.split()[-2]
            if question.text.startswith("where"):
                assert where[meaning[last]] == [question.answer]
            elif question.text.startswith("is there"):
                assert question.answer == ("yes" if meaning[last] in where else "no")
                answers[question.answer] += 1
            else:
                assert " ".join(question.text.split()[-3:-1]) in where[meaning[question.answer]]
        word = LEGENDS.ask("legend_word", np.random.default_rng(0), legend)
        assert word is not None
        kind, color = meaning[word.text.split()[-2]]
        assert word.answer == f"{words.COLORS[color]} {words.SHAPES[kind]}"
    assert answers["yes"] and answers["no"]


def test_pairs_are_compared() -> None:
    rng = np.random.default_rng(5)
    first = scenes.sample(rng, 80, canvas=CANVAS)
    second = share_a_shape(rng, first, scenes.sample(rng, 80, canvas=Canvas(12, 8)))
    answers = Counter()
    for index in range(80):
        pair = Pair(picture_of(first, index), picture_of(second, index))
        things = [[name(shape) for shape in picture.shapes] for picture in pair.both]
        assert set(things[0]) & set(things[1])
        question = PAIRS.ask("compare", np.random.default_rng(index), pair)
        assert question is not None
        answers[question.answer] += 1
        told = question.text.removesuffix(" ?").split()
        if told[2] == "shows":
            there = [" ".join(told[-2:]) in shown for shown in things]
            expected = {(1, 1): "both", (1, 0): "first", (0, 1): "second", (0, 0): "none"}
            assert question.answer == expected[int(there[0]), int(there[1])]
        else:
            counts = [sum(_is_of(told[4:], thing) for thing in shown) for shown in things]
            difference = int(np.sign(counts[1] - counts[0]))
            assert question.answer == {0: "same", -1: "first", 1: "second"}[difference]
    assert set(answers) == {"first", "second", "both", "none", "same"}


def _is_of(told: list[str], thing: str) -> bool:
    color, shape = thing.split()
    return color == told[0] if told[-1] == "shapes" else words.PLURALS[shape] == told[0]


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_held_out_and_complete(kind: str) -> None:
    asked = native_items(kind, 6)
    again = native_items(kind, 3)
    for item, same in zip(asked, again, strict=False):
        assert (item.question, item.answer, item.cells) == (same.question, same.answer, same.cells)
        assert [np.asarray(i).tobytes() for i in item.images] == [
            np.asarray(i).tobytes() for i in same.images
        ]
    assert len({item.question + item.answer for item in asked}) > 1
    for item in asked:
        assert all(word in words.TOKEN for word in f"{item.question} {item.answer}".split())
        seen = item.frames[::2] or item.images
        assert len(seen) == {"video": len(seen), "pair": 2}.get(sort_of(kind), 1)
        assert bool(item.frames) == (sort_of(kind) == "video")
        assert not item.frames or 4 <= len(item.frames) <= 12
        for grid, row, column in item.cells:
            assert 0 <= row < seen[grid].height // 8 and 0 <= column < seen[grid].width // 8
        tokens = sum(image.width * image.height for image in seen) // 64
        assert 64 <= tokens <= 576
    assert native_items(kind, 1, seed=1)[0].question != asked[0].question or kind in (
        "list",
        "caption",
    )


def test_cells_are_those_of_the_objects() -> None:
    """Only there do the frames of a video in which one thing appears differ."""
    item = next(i for i in native_items("changes", 20) if i.answer.endswith("appears"))
    steps = [np.asarray(frame).astype(int) for frame in item.frames[::2]]
    changed = np.abs(steps[-1] - steps[0]).max(-1) > 60
    share = changed.reshape(len(changed) // 8, 8, -1, 8).mean((1, 3))
    last = {(row, column) for grid, row, column in item.cells if grid == len(steps) - 1}
    assert {(int(r), int(c)) for r, c in np.argwhere(share > 0.3)} <= last
    assert last and not any(grid == 0 for grid, _, _ in item.cells)


def test_unknown_kinds_and_wrong_counts_are_refused() -> None:
    with pytest.raises(UnknownNameError):
        native_items("colour", 1)
    with pytest.raises(InvalidValueError):
        native_items("color", -1)
    with pytest.raises(InvalidValueError):
        native_items("color", 1, seed=-1)


def test_definitions_without_a_picture_are_answered_by_the_passage() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        definitions = draw_definitions(rng, 10)
        told = dict(zip(definitions.words, definitions.pairs, strict=True))
        assert 2 <= len(told) == len(set(told.values())) <= 10
        meaning = DEFINITIONS.ask("meaning", rng, definitions)
        code_word = DEFINITIONS.ask("code_word", rng, definitions)
        assert meaning is not None and code_word is not None
        word = meaning.text.removeprefix("what is a ").removesuffix(" ?")
        assert f"a {word} is a {meaning.answer}" in definitions.passage
        thing = code_word.text.removeprefix("what is ").removesuffix(" ?")
        assert f"a {code_word.answer} is {thing}" in definitions.passage
