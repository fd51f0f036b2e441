"""Wrong methods and hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from analysis.probing.probe import probe
from lightkv import TGVKV, VLM, LightKV
from lightkv.catalogue import compressor
from lightkv.errors import InvalidValueError, UnknownNameError
from lightkv.eviction.parts.decoding import EvictOne, HoldBudget
from lightkv.eviction.parts.rankings import ObservationWindow
from lightkv.merging.tome import ToMe
from lightkv.protocols import ask_under
from lightkv.pruning.fastv import FastV
from lightkv.session import Session
from tests.wrong_inputs.case import PICTURE, QUESTION, REQUEST, Wrong, wrong


def methods_passed() -> Iterator[Wrong]:
    """What is not a method, wherever a method is taken."""
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
