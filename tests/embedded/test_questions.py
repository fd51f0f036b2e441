"""Questions: deterministic, held out, and right about their picture."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from lightkv.embedded import QUESTION_KINDS, conversations, items, scenes
from lightkv.embedded import question_kinds as kinds
from lightkv.embedded.question_kinds import HELPERS
from lightkv.embedded.questions import SHORT, Stream
from lightkv.embedded.vocabulary import COLORS, PLURALS, REFUSAL, TOKEN
from lightkv.errors import UnknownNameError

ALL = QUESTION_KINDS + HELPERS


def _digest(image: object) -> str:
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


def test_kinds_are_the_documented_ones() -> None:
    assert QUESTION_KINDS == (
        "color",
        "shape_at",
        "count",
        "exist",
        "where",
        "read",
        "list",
        "caption",
    )


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_items_do_not_depend_on_count(kind: str) -> None:
    few, many = items(kind, 3), items(kind, 6)
    for a, b in zip(few, many[:3], strict=True):
        assert (a.question, a.answer, a.cells, a.index) == (b.question, b.answer, b.cells, b.index)
        assert _digest(a.image) == _digest(b.image)
    other = items(kind, 6, seed=1)
    assert {_digest(i.image) for i in many}.isdisjoint(_digest(i.image) for i in other)


def test_unknown_kind_is_a_clear_error() -> None:
    with pytest.raises(UnknownNameError, match="unknown question kind"):
        items("poetry", 1)


def test_items_are_held_out_from_training() -> None:
    """Streams are disjoint by their first key, so no training picture is a held-out one."""
    assert len({int(stream) for stream in Stream}) == len(Stream)
    held = {_digest(item.image) for kind in QUESTION_KINDS for item in items(kind, 5)}
    trained = set()
    for step in range(5):
        rng = np.random.default_rng((Stream.TRAINING, 0, 1, step))
        trained |= {_digest(image) for image in scenes.render(rng, scenes.sample(rng, 8))}
    assert held.isdisjoint(trained)


def _pictures(count: int) -> list[kinds.Picture]:
    drawn = scenes.sample(np.random.default_rng(11), count, numbers=(0, 3))
    return [kinds.picture_of(drawn, index) for index in range(count)]


@pytest.mark.parametrize("name", ALL)
def test_every_word_is_in_the_vocabulary(name: str) -> None:
    rng = np.random.default_rng(0)
    for picture in _pictures(60):
        question = kinds.ask(name, rng, picture)
        if question is not None:
            for word in f"{question.text} {question.answer}".split():
                assert word in TOKEN


def _expected(name: str, text: str, picture: kinds.Picture) -> str | None:
    """The answer worked out again from the text of the question alone."""
    words = text.split()
    shapes = picture.shapes
    match name:
        case "color":
            return next(s.color_name for s in shapes if s.name == words[-2])
        case "shape_at":
            return next(s.name for s in shapes if s.where == " ".join(words[-3:-1]))
        case "count" if words[2] in COLORS:
            return str(sum(s.color_name == words[2] for s in shapes))
        case "count":
            return str(sum(PLURALS[s.name] == words[2] for s in shapes))
        case "exist":
            there = any((s.color_name, s.name) == (words[3], words[4]) for s in shapes)
            return "yes" if there else "no"
        case "where":
            return next(s.where for s in shapes if (s.color_name, s.name) == (words[3], words[4]))
        case "read":
            return next(n.reading for n in picture.numbers if n.color_name == words[3])
        case "list":
            return " ".join(s.color_name for s in sorted(shapes, key=lambda s: s.cell))
        case "caption":
            things = picture.things
            return " , ".join(f"{t.where} {t.color_name} {t.name}" for t in things)
    return None


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_answers_follow_from_the_picture(kind: str) -> None:
    rng = np.random.default_rng(1)
    asked = 0
    for picture in _pictures(150):
        question = kinds.ask(kind, rng, picture)
        if question is not None:
            asked += 1
            assert question.answer == _expected(kind, question.text, picture)
    assert asked > 75


def test_exist_is_balanced_and_count_is_spread() -> None:
    exist = Counter(item.answer for item in items("exist", 300))
    assert 0.4 < exist["yes"] / 300 < 0.6
    count = Counter(item.answer for item in items("count", 300))
    assert max(count.values()) / 300 < 0.5
    assert set(count) >= {"0", "1", "2", "3"}


def test_read_has_one_and_two_numbers_equally_often() -> None:
    drawn = scenes.sample(np.random.default_rng(3), 400)
    two = ((drawn.kind == scenes.NUMBER).sum(1) == 2).mean()
    assert 0.42 < two < 0.58
    shown = items("read", 5, numbers=(3, 3))
    assert all(len(item.cells) == 4 for item in shown)


def test_cells_follow_the_question() -> None:
    for item in items("exist", 40):
        assert bool(item.cells) == (item.answer == "yes")
    for item in items("count", 40):
        assert bool(item.cells) == (item.answer != "0")
    for item in items("read", 20):
        rows = {row for row, _ in item.cells}
        assert len(item.cells) == 4 and len(rows) == 1
    for kind in ("color", "shape_at", "where", "list", "caption"):
        assert all(item.cells for item in items(kind, 10))


def test_color_of_the_pixels_is_the_answer() -> None:
    """The asked object's own pixels have the color the answer names."""
    palette = dict(zip(COLORS, scenes._PALETTE * 255, strict=True))
    right = 0
    asked = items("color", 60)
    for item in asked:
        pixels = np.asarray(item.image, float)
        patches = [
            pixels[8 * r : 8 * r + 8, 8 * c : 8 * c + 8].reshape(-1, 3) for r, c in item.cells
        ]
        inside = np.concatenate(patches)
        vivid = inside[np.argsort(inside.max(1))[-len(inside) // 4 :]].mean(0)
        nearest = min(palette, key=lambda name: float(np.abs(palette[name] - vivid).sum()))
        right += nearest == item.answer
    assert right / len(asked) > 0.9


def test_absent_and_unknown_are_refused() -> None:
    rng = np.random.default_rng(2)
    for name in ("absent", "unknown"):
        for picture in _pictures(50):
            question = kinds.ask(name, rng, picture)
            assert question is None or question.answer == REFUSAL


@pytest.mark.parametrize("turns", [2, 3])
def test_conversations_share_one_picture(turns: int) -> None:
    talks = conversations(5, turns=turns)
    for talk, again in zip(talks, conversations(7, turns=turns)[:5], strict=True):
        assert len(talk.turns) == turns
        assert all(turn.image is talk.image for turn in talk.turns)
        assert len({turn.question for turn in talk.turns}) == turns
        assert "caption" not in {turn.kind for turn in talk.turns}
        assert [t.question for t in talk.turns] == [t.question for t in again.turns]


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_earlier_questions_are_short_and_of_another_kind(kind: str) -> None:
    starts = {items(name, 1)[0].question.split()[0]: name for name in ("exist", "count", "where")}
    made = items(kind, 30)
    assert [item.earlier for item in items(kind, 40)[:30]] == [item.earlier for item in made]
    for item in made:
        assert item.earlier is not None
        first, second, *_ = item.earlier.split()
        asked = {"color": "color", "shape": "shape_at"}.get(second) or starts[first]
        assert asked in SHORT and asked != kind
