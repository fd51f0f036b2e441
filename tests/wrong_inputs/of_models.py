"""Wrong models, settings and options of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

import lightkv
from lightkv import TGVKV
from lightkv.contract.interventions import Knockout
from lightkv.errors import (
    InputError,
    InvalidValueError,
    LightKVError,
    ModelError,
    UnknownNameError,
    UnsupportedError,
)
from lightkv.protocols import ask_under
from lightkv.session import Session
from tests.wrong_inputs.case import PICTURE, QUESTION, REQUEST, Wrong, wrong


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
        "beams that are not a number": (InvalidValueError, "num_beams", {"num_beams": "2"}),
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
