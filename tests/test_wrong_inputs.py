"""Wrong inputs through the public interface: every one ends in a typed error that helps.

A row is the way in, what a user might write, the error and a word of its message. Errors come
before the model runs: a forward pass fails the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lightkv
from analysis.probing import interventions as causes
from analysis.probing import patching
from analysis.probing.probe import expected_bytes, probe, probe_inputs
from analysis.tasks import task
from lightkv import TGVKV, VLM, LightKV, Request
from lightkv.catalogue import compressor
from lightkv.contract.interventions import Knockout, KVPatch
from lightkv.embedded import conversations, items
from lightkv.errors import (
    InputError,
    InvalidValueError,
    LightKVError,
    ModelError,
    UnknownNameError,
    UnsupportedError,
)
from lightkv.eviction.parts.decoding import EvictOne, HoldBudget
from lightkv.eviction.parts.rankings import ObservationWindow
from lightkv.merging.tome import ToMe
from lightkv.protocols import ask_under
from lightkv.pruning.fastv import FastV
from lightkv.session import Session

PICTURE = Image.new("RGB", (128, 128), "red")
QUESTION = "what color is the circle ?"
REQUEST = Request((PICTURE,), QUESTION)


@dataclass(frozen=True)
class Wrong:
    """One wrong input."""

    way: str
    do: Callable[[VLM], Any]
    error: type[LightKVError]
    word: str


def wrong(way: str, error: type[LightKVError], word: str, do: Callable[[VLM], Any]) -> Wrong:
    return Wrong(way, do, error, word)


def methods_passed() -> Iterator[Wrong]:
    """What is no method, wherever a method is taken."""
    values = {
        "a class": (TGVKV, InvalidValueError, "TGVKV"),
        "a number": (0.2, InvalidValueError, "0.2"),
        "a list": ([TGVKV()], InvalidValueError, "a method such as"),
        "an unknown name": ("tgvkw:retention=0.2", UnknownNameError, "tgvkv"),
        "an empty text": ("", UnknownNameError, "unknown method ''"),
        "a name without retention": ("tgvkv", InvalidValueError, "retention"),
        "a retention in words": ("tgvkv:retention=low", InvalidValueError, "a number"),
        "an option of another": ("h2o:retention=.5;layers=(1,)", InvalidValueError, "option"),
        "an option without a value": ("tgvkv:retention", InvalidValueError, "field=value"),
        "half a composition": ("lightkv|", UnknownNameError, "unknown method ''"),
        "an evictor first": ("h2o:retention=.5|lightkv", InvalidValueError, "reducers first"),
    }
    ways: dict[str, Callable[[VLM, Any], Any]] = {
        "ask": lambda vlm, method: vlm.ask(PICTURE, QUESTION, method),
        "compressed_by": lambda vlm, method: vlm.compressed_by(method),
        "session": lambda vlm, method: Session(vlm, method).ask([REQUEST]),
        "probe": lambda vlm, method: probe(vlm, PICTURE, QUESTION, "block_sum", compressor=method),
        "protocol": lambda vlm, method: ask_under("second-turn", vlm, [REQUEST], method),
    }
    for way, take in ways.items():
        for name, (value, error, word) in values.items():
            if way == "protocol":
                continue
            yield wrong(f"{way}: {name}", error, word, lambda vlm, t=take, v=value: t(vlm, v))
    yield wrong(
        "compressed_by: None", InvalidValueError, "None", lambda vlm: vlm.compressed_by(None)
    )
    yield wrong(
        "catalogue: a number", InvalidValueError, "a method", lambda vlm: compressor(3, vlm.facts)
    )


def hyperparameters() -> Iterator[Wrong]:
    """Values of a wrong type or out of range, which only asking may show."""
    refused: dict[str, tuple[Callable[[], Any], str]] = {
        "retention='0.2'": (lambda: TGVKV(retention="0.2"), "a number"),
        "retention=None": (lambda: TGVKV(retention=None), "a number"),
        "retention=True": (lambda: TGVKV(retention=True), "a number"),
        "retention=[0.2]": (lambda: TGVKV(retention=[0.2]), "a number"),
        "retention=0": (lambda: TGVKV(retention=0), "above 0"),
        "retention=2": (lambda: TGVKV(retention=2), "at most 1"),
        "retention=nan": (lambda: TGVKV(retention=float("nan")), "at most 1"),
        "TGVKV(0.2)": (lambda: TGVKV(0.2), "a Budget"),
        "protect_first=1.5": (lambda: TGVKV(protect_first=1.5), "a whole number"),
        "protect_first=-1": (lambda: TGVKV(protect_first=-1), "at least 0"),
        "protect_last=True": (lambda: TGVKV(protect_last=True), "a whole number"),
        "entries=64.0": (lambda: TGVKV(retention=1.0, entries=64.0), "a whole number"),
        "redistribute='no'": (lambda: TGVKV(redistribute="no"), "True or False"),
        "positions='moved'": (lambda: TGVKV(positions="moved"), "'keep'"),
        "decode='grow'": (lambda: TGVKV(decode="grow"), "a DecodePolicy"),
        "decode=a class": (lambda: TGVKV(decode=EvictOne), "a DecodePolicy"),
        "merge='anchor'": (lambda: TGVKV(merge="anchor"), "an AnchorMerge"),
        "ranking=None": (lambda: TGVKV(ranking=None), "a Ranking"),
        "window=2.5": (lambda: TGVKV(ranking=ObservationWindow(2.5)), "a whole number"),
        "kernel=4": (lambda: TGVKV(ranking=ObservationWindow(8, 4)), "odd"),
        "pooling='median'": (lambda: ObservationWindow(8, 5, "median"), "'avg'"),
        "victim='newest'": (lambda: HoldBudget("newest"), "'oldest'"),
        "recent_share='0.5'": (lambda: HoldBudget(recent_share="0.5"), "a number"),
        "layers='3'": (lambda: LightKV("3", (2,), (0.5,)), "a tuple"),
        "layers=3": (lambda: LightKV(3, (2,), (0.5,)), "a tuple"),
        "layers=(1.0,)": (lambda: LightKV((1.0,), (2,), (0.5,)), "a whole number"),
        "layers=(7,)": (lambda: LightKV((7,), (2,), (0.5,)), "between 0 and 6"),
        "layers=(3, 3)": (lambda: LightKV((3, 3), (2, 2), (0.5, 0.5)), "ascending"),
        "layers=()": (lambda: LightKV((), (), ()), "at least one"),
        "windows=(2.5,)": (lambda: LightKV((1,), (2.5,), (0.5,)), "a whole number"),
        "windows=(0,)": (lambda: LightKV((1,), (0,), (0.5,)), "at least 1"),
        "ratios='half'": (lambda: LightKV((1,), (2,), "half"), "a tuple"),
        "ratios=(0.7,)": (lambda: LightKV((1,), (2,), (0.7,)), "from 0 to 0.5"),
        "ratios of two": (lambda: LightKV((1,), (2,), (0.5, 0.5)), "1 numbers"),
        "guidance='none'": (lambda: LightKV((1,), (2,), (0.5,), guidance="none"), "'prompt'"),
        "masked=1": (lambda: LightKV((1,), (2,), (0.5,), masked=1), "True or False"),
        "ToMe weighting": (lambda: ToMe((1,), (0.5,), weighting="mean"), "'size'"),
        "FastV layer='2'": (lambda: FastV(layer="2"), "a whole number"),
        "FastV removed=1.5": (lambda: FastV(removed=1.5), "removed"),
    }
    for name, (make, word) in refused.items():
        yield wrong(
            f"ask: {name}",
            InvalidValueError,
            word,
            lambda vlm, make=make: vlm.ask(PICTURE, QUESTION, make()),
        )


def questions() -> Iterator[Wrong]:
    """Pictures, questions and turns that can't be asked."""
    turn = ("what color is the circle ?", "red")
    asked: dict[str, tuple[Any, Any, Any, str]] = {
        "no picture": (None, QUESTION, (), "NoneType"),
        "a picture that is a number": (3, QUESTION, (), "int"),
        "a missing file": ("no-such-file.png", QUESTION, (), "no image file"),
        "a folder": (".", QUESTION, (), "can't be read"),
        "a file that is no picture": (__file__, QUESTION, (), "can't be read"),
        "a grey array": (np.zeros((8, 8), np.uint8), QUESTION, (), "(H, W, 3)"),
        "a float array": (np.zeros((8, 8, 3)), QUESTION, (), "uint8"),
        "an array without pixels": (np.zeros((0, 8, 3), np.uint8), QUESTION, (), "(0, 8, 3)"),
        "a tensor": (torch.zeros(3, 8, 8), QUESTION, (), "Tensor"),
        "a list with None": ([PICTURE, None], QUESTION, (), "NoneType"),
        "an empty question": (PICTURE, "", (), "empty"),
        "a blank question": (PICTURE, " \n", (), "empty"),
        "no question": (PICTURE, None, (), "NoneType"),
        "a list of questions": (PICTURE, [QUESTION], (), "list"),
        "bytes": (PICTURE, b"what ?", (), "bytes"),
        "the mark of a picture": (PICTURE, "what is in <image> ?", (), "<image>"),
        "a mark in an earlier question": (PICTURE, QUESTION, (("<image> ?", "red"),), "<image>"),
        "a mark in an earlier answer": (PICTURE, QUESTION, ((QUESTION, "<image>"),), "<image>"),
        "a history in words": (PICTURE, QUESTION, "red", "(question, answer) pairs"),
        "a history of one pair": (PICTURE, QUESTION, turn, "turn 0"),
        "a turn of three": (PICTURE, QUESTION, ((*turn, "why"),), "turn 0"),
        "an answer that is a number": (PICTURE, QUESTION, ((QUESTION, 3),), "answer 0"),
        "an empty earlier question": (PICTURE, QUESTION, (("", "red"),), "question 0"),
        "a question of 5,000 words": (PICTURE, "red " * 5000, (), "trained to 1,024"),
    }
    for name, (image, question, history, word) in asked.items():
        yield wrong(
            f"ask: {name}",
            InputError,
            word,
            lambda vlm, i=image, q=question, h=history: vlm.ask(i, q, history=h),
        )
    several: dict[str, tuple[Any, str]] = {
        "nothing": ([], "no request"),
        "one request": (REQUEST, "a list of Request"),
        "a text": (QUESTION, "a list of Request"),
        "None": (None, "a list of Request"),
        "a list of texts": ([QUESTION], "request 0"),
        "a pair": ([(PICTURE, QUESTION)], "request 0"),
        "images that are no tuple": ([Request(PICTURE, QUESTION)], "(image,)"),
        "an empty system sentence": ([Request((), QUESTION, (), " ")], "system"),
        "a system sentence that is a number": ([Request((), QUESTION, (), 3)], "system"),
    }
    for name, (requests, word) in several.items():
        yield wrong(
            f"ask_many: {name}",
            InputError,
            word,
            lambda vlm, r=requests: vlm.ask_many(r),
        )
        yield wrong(
            f"session: {name}",
            InputError,
            word,
            lambda vlm, r=requests: Session(vlm).ask(r),
        )
    yield wrong(
        "session: read without a picture",
        InputError,
        "needs an image",
        lambda vlm: Session(vlm).read([Request((), QUESTION)]),
    )
    yield wrong(
        "ask: a method that needs a picture",
        InputError,
        "vision token",
        lambda vlm: vlm.ask([], QUESTION, TGVKV()),
    )


def options() -> Iterator[Wrong]:
    """Arguments and settings of asking."""
    for name, value in {"2.5": 2.5, "'3'": "3", "0": 0, "True": True, "None": None}.items():
        yield wrong(
            f"ask: max_new_tokens={name}",
            InvalidValueError,
            "max_new_tokens",
            lambda vlm, v=value: vlm.ask(PICTURE, QUESTION, max_new_tokens=v),
        )
    for name, value in {"1.5": 1.5, "'0'": "0", "None": None, "True": True}.items():
        yield wrong(
            f"ask: seed={name}",
            InvalidValueError,
            "seed",
            lambda vlm, v=value: vlm.ask(PICTURE, QUESTION, TGVKV(), seed=v),
        )
    generate: dict[str, tuple[type[LightKVError], str, dict[str, Any]]] = {
        "an unknown setting": (UnknownNameError, "max_new_tokens", {"max_tokens": 3}),
        "keep_run='yes'": (InvalidValueError, "keep_run", {"keep_run": "yes"}),
        "observers=one": (InvalidValueError, "observers", {"observers": object()}),
        "observers=[a text]": (InvalidValueError, "observers", {"observers": ["watch"]}),
        "interventions=one": (
            InvalidValueError,
            "interventions",
            {"interventions": Knockout((1,))},
        ),
        "interventions=[a text]": (
            InvalidValueError,
            "interventions",
            {"interventions": ["text"]},
        ),
        "beams that are no number": (InvalidValueError, "num_beams", {"num_beams": "2"}),
        "no cache": (UnsupportedError, "use_cache", {"use_cache": False}),
    }
    for name, (error, word, keywords) in generate.items():
        yield wrong(
            f"generate: {name}",
            error,
            word,
            lambda vlm, g=keywords: vlm.generate(vlm.encode([REQUEST]), TGVKV(), **g),
        )
    for name, value in {"None": None, "a text": QUESTION, "a tensor": torch.zeros(1, 3)}.items():
        yield wrong(
            f"generate: inputs that are {name}",
            InputError,
            "the processor returned",
            lambda vlm, v=value: vlm.generate(v),
        )
    yield wrong(
        "a protocol that is none",
        UnknownNameError,
        "question-first",
        lambda vlm: ask_under("question-last", vlm, [REQUEST]),
    )
    yield wrong(
        "a protocol that is a list",
        UnknownNameError,
        "question-first",
        lambda vlm: ask_under(["question-first"], vlm, [REQUEST]),
    )
    yield wrong(
        "a second turn without a first",
        InputError,
        "earlier turn",
        lambda vlm: ask_under("second-turn", vlm, [REQUEST]),
    )
    yield wrong(
        "a session without a model", InvalidValueError, "a VLM", lambda vlm: Session("embedded")
    )


def loading() -> Iterator[Wrong]:
    """What can't be loaded."""
    loads: dict[str, tuple[type[LightKVError], str, dict[str, Any]]] = {
        "a number": (InvalidValueError, "name_or_path", {"name_or_path": 3}),
        "an empty text": (InvalidValueError, "name_or_path", {"name_or_path": ""}),
        "a missing folder": (ModelError, "./no-such-folder", {"name_or_path": "./no-such-folder"}),
        "a file": (ModelError, "not a folder", {"name_or_path": __file__}),
        "device=None": (InvalidValueError, "device", {"device": None}),
        "device='toaster'": (InvalidValueError, "device", {"device": "toaster"}),
        "device=1.5": (InvalidValueError, "device", {"device": 1.5}),
        "dtype='int3'": (InvalidValueError, "float32", {"dtype": "int3"}),
        "dtype=16": (InvalidValueError, "float32", {"dtype": 16}),
        "dtype=[]": (InvalidValueError, "float32", {"dtype": []}),
        "dtype=int64": (InvalidValueError, "float32", {"dtype": torch.int64}),
        "attention='flash'": (InvalidValueError, "sdpa", {"attention": "flash"}),
        "attention=None": (InvalidValueError, "sdpa", {"attention": None}),
        "an unknown option": (InvalidValueError, "divice", {"divice": "cpu"}),
        "system=3": (InvalidValueError, "system", {"system": 3}),
    }
    for name, (error, word, options) in loads.items():
        yield wrong(f"load: {name}", error, word, lambda vlm, g=options: lightkv.load(**g))


def knockouts() -> Iterator[Wrong]:
    """Interventions and what measures them."""
    cuts: dict[str, tuple[Callable[[], Any], str]] = {
        "layers='3'": (lambda: Knockout("3"), "a tuple"),
        "layers=3": (lambda: Knockout(3), "a tuple"),
        "layers=('3',)": (lambda: Knockout(("3",)), "a whole number"),
        "layers=(2.5,)": (lambda: Knockout((2.5,)), "a whole number"),
        "layers=()": (lambda: Knockout(()), "at least one"),
        "layers=(8,)": (lambda: Knockout((8,)), "from 0 to 7"),
        "layers=(-1,)": (lambda: Knockout((-1,)), "from 0 to 7"),
        "source='words'": (lambda: Knockout((1,), "words"), "'text'"),
        "target=None": (lambda: Knockout((1,), "text", None), "'vision'"),
        "keys of no donor": (lambda: KVPatch((1,), None, None, None), "a mapping"),
    }
    for name, (make, word) in cuts.items():
        yield wrong(
            f"knock-out: {name}",
            InvalidValueError,
            word,
            lambda vlm, make=make: vlm.generate(vlm.encode([REQUEST]), interventions=[make()]),
        )
    yield wrong(
        "answers: a text",
        InputError,
        "a list of texts",
        lambda vlm: causes.answer_tokens(vlm, "red"),
    )
    yield wrong(
        "answers: a number", InputError, "answer 0", lambda vlm: causes.answer_tokens(vlm, [3])
    )
    yield wrong(
        "answers: an empty one",
        InputError,
        "no tokens",
        lambda vlm: causes.answer_tokens(vlm, [""]),
    )
    yield wrong(
        "score: fewer answers",
        InputError,
        "1 questions",
        lambda vlm: causes.score_answers(vlm, [REQUEST], []),
    )
    yield wrong(
        "score: answers in words",
        InputError,
        "answer_tokens",
        lambda vlm: causes.score_answers(vlm, [REQUEST], ["red"]),
    )
    answers = [(5, 2)]
    measured: dict[str, tuple[dict[str, Any], str]] = {
        "width=2.5": ({"width": 2.5}, "a whole number"),
        "width=0": ({"width": 0}, "at least 1"),
        "layers=[0.5]": ({"layers": [0.5]}, "a whole number"),
        "layers=[9]": ({"layers": [9]}, "from 0 to 7"),
        "layers='all'": ({"layers": "all"}, "a list or tuple"),
        "pairs of words": ({"pairs": [("words", "vision")]}, "'text'"),
        "pairs that are none": ({"pairs": ["text"]}, "pairs"),
        "no pairs": ({"pairs": []}, "pairs"),
    }
    for name, (options, word) in measured.items():
        yield wrong(
            f"knockouts: {name}",
            InvalidValueError,
            word,
            lambda vlm, g=options: causes.knockouts(vlm, [REQUEST], answers, **g),
        )
    yield wrong(
        "patches: fewer donors",
        InputError,
        "0 donors",
        lambda vlm: patching.patches(vlm, [REQUEST], [], answers, answers),
    )
    yield wrong(
        "patches: from_layers=[8]",
        InvalidValueError,
        "from 0 to 7",
        lambda vlm: patching.patches(vlm, [REQUEST], [REQUEST], answers, [(6, 2)], from_layers=[8]),
    )


def probes() -> Iterator[Wrong]:
    """What can't be probed."""
    calls: dict[str, tuple[type[LightKVError], str, dict[str, Any]]] = {
        "no questions": (InputError, "no question", {"questions": []}),
        "a question that is a number": (InputError, "question 0", {"questions": [3]}),
        "questions=None": (InputError, "NoneType", {"questions": None}),
        "a blank question": (InputError, "empty", {"questions": " "}),
        "fewer pictures": (
            InputError,
            "1 images for 2",
            {"images": [PICTURE], "questions": [QUESTION] * 2},
        ),
        "no picture": (InputError, "no image", {"images": [None]}),
        "an empty list of pictures": (InputError, "no image", {"images": [[]]}),
        "no quantities": (InvalidValueError, "at least one", {"quantities": []}),
        "an unknown quantity": (UnknownNameError, "block_sum", {"quantities": "block_sun"}),
        "a quantity that is a number": (UnknownNameError, "quantity", {"quantities": [3]}),
        "quantities=None": (InvalidValueError, "quantities", {"quantities": None}),
        "a quantity twice": (InvalidValueError, "once", {"quantities": ["block_sum"] * 2}),
        "layers=[.5]": (InvalidValueError, "a whole number", {"layers": [0.5]}),
        "layers='3'": (InvalidValueError, "layers", {"layers": "3"}),
        "layers=3": (InvalidValueError, "layers", {"layers": 3}),
        "layers=[True]": (InvalidValueError, "a whole number", {"layers": [True]}),
        "layers=[]": (InvalidValueError, "at least one", {"layers": []}),
        "layers=[1, 1]": (InvalidValueError, "once", {"layers": [1, 1]}),
        "layers=[8]": (InvalidValueError, "from 0 to 7", {"layers": [8]}),
        "layers=[-2]": (InvalidValueError, "from 0 to 7", {"layers": [-2]}),
        "layers=[-1] of attention": (InvalidValueError, "block_sum", {"layers": [-1]}),
        "heads='max'": (InvalidValueError, "'mean'", {"heads": "max"}),
        "heads=[2.5]": (InvalidValueError, "heads", {"heads": [2.5]}),
        "heads=[99]": (InvalidValueError, "heads", {"heads": [99]}),
        "heads=[]": (InvalidValueError, "heads", {"heads": []}),
        "batch_size=0": (InvalidValueError, "at least 1", {"batch_size": 0}),
        "batch_size=2.5": (InvalidValueError, "a whole number", {"batch_size": 2.5}),
        "interventions in words": (InvalidValueError, "Intervention", {"interventions": ["text"]}),
        "seed='0'": (InvalidValueError, "seed", {"seed": "0"}),
        "vlm in words": (InvalidValueError, "a VLM", {"vlm": "embedded"}),
    }
    usual: dict[str, Any] = {"images": PICTURE, "questions": QUESTION, "quantities": "block_sum"}
    for name, (error, word, keywords) in calls.items():
        yield wrong(
            f"probe: {name}",
            error,
            word,
            lambda vlm, g=keywords: probe(**{"vlm": vlm, **usual, **g}),
        )
    yield wrong(
        "probe_inputs: no batch",
        InputError,
        "no prompt",
        lambda vlm: probe_inputs(vlm, [], "block_sum"),
    )
    yield wrong(
        "probe_inputs: a batch without ids",
        InputError,
        "input_ids",
        lambda vlm: probe_inputs(vlm, [{}], "block_sum"),
    )
    yield wrong(
        "expected_bytes: length=-3",
        InvalidValueError,
        "length",
        lambda vlm: expected_bytes(vlm, "block_sum", -3),
    )


def pictures() -> Iterator[Wrong]:
    """Generated questions and tasks."""
    made: dict[str, tuple[type[LightKVError], str, Callable[[], Any]]] = {
        "items: an unknown kind": (UnknownNameError, "color", lambda: items("colour", 1)),
        "items: a kind that is a number": (UnknownNameError, "color", lambda: items(3, 1)),
        "items: -1": (InvalidValueError, "at least 0", lambda: items("read", -1)),
        "items: 1.5": (InvalidValueError, "a whole number", lambda: items("read", 1.5)),
        "items: seed=-1": (InvalidValueError, "seed", lambda: items("read", 1, seed=-1)),
        "items: seed='0'": (InvalidValueError, "seed", lambda: items("read", 1, seed="0")),
        "items: numbers=(2, 1)": (
            InvalidValueError,
            "numbers",
            lambda: items("read", 1, numbers=(2, 1)),
        ),
        "items: numbers=2": (InvalidValueError, "numbers", lambda: items("read", 1, numbers=2)),
        "conversations: -1": (InvalidValueError, "at least 0", lambda: conversations(-1)),
        "conversations: no turns": (InvalidValueError, "turns", lambda: conversations(1, turns=0)),
        "conversations: 13 turns": (
            InvalidValueError,
            "turns",
            lambda: conversations(1, turns=13),
        ),
        "task: an unknown one": (UnknownNameError, "embedded", lambda: task("embeded:read")),
        "task: an unknown kind": (UnknownNameError, "read", lambda: task("embedded:reed")),
    }
    for name, (error, word, make) in made.items():
        yield wrong(name, error, word, lambda vlm, make=make: make())


TABLE = [
    *methods_passed(),
    *hyperparameters(),
    *questions(),
    *options(),
    *loading(),
    *knockouts(),
    *probes(),
    *pictures(),
]


@pytest.fixture(scope="module")
def guarded(embedded: VLM) -> Iterator[VLM]:
    """A model that must not run."""

    def run(*_: Any) -> None:
        pytest.fail("the model ran")

    handle = embedded.model.register_forward_pre_hook(run)
    yield embedded
    handle.remove()


def test_the_table_is_large() -> None:
    assert len(TABLE) > 200
    assert len({one.way for one in TABLE}) == len(TABLE)


@pytest.mark.parametrize("one", TABLE, ids=lambda one: one.way)
def test_a_wrong_input_ends_in_words(guarded: VLM, one: Wrong) -> None:
    with pytest.raises(LightKVError) as caught:
        one.do(guarded)
    assert type(caught.value) is one.error
    assert one.word in str(caught.value)
    assert len(str(caught.value)) < 1500
