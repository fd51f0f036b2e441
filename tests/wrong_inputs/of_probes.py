"""Wrong probes and interventions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from analysis.probing import interventions as causes
from analysis.probing import patching
from analysis.probing.probe import expected_bytes, probe, probe_inputs
from lightkv.contract.interventions import Knockout, KVPatch
from lightkv.errors import InputError, InvalidValueError, LightKVError, UnknownNameError
from tests.wrong_inputs.case import PICTURE, QUESTION, REQUEST, Wrong, wrong


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
