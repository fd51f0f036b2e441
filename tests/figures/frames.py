"""Small constructed frames with the columns that the studies return."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from figures.contract import Artefact
from figures.making import study_of
from lightkv import Request
from lightkv.contract.compressor import Compressor
from tests.analysis.fake import FakeVLM
from tests.figures.probing_frames import FRAMES as PROBING
from tests.figures.step_frames import FRAMES as STEPS

QUESTIONS = 120
TASKS = ("embedded/read", "embedded/caption")


def scored(
    method: str, score: float, *, task: str = TASKS[0], questions: int = QUESTIONS, **more: object
) -> pd.DataFrame:
    """Rows of one method on one task: the first ``score`` share of the questions is right."""
    right = np.arange(questions) < round(score * questions)
    return pd.DataFrame(
        {
            "model": "embedded",
            "method": method,
            "task": task,
            "seed": 0,
            "item": range(questions),
            "metric": "exact",
            "score": right.astype(float),
            "kv_bytes": 1000,
            "kv_share": 1.0,
            "token_share": 1.0,
            "requested_retention": float("nan"),
            "seconds": 0.1,
            **more,
        }
    )


def ablation(
    scores: dict[tuple[bool, bool, bool], float] | None = None, questions: int = QUESTIONS
) -> pd.DataFrame:
    """``scores`` by (TVB, TWR, TPR) at both retentions; 0.6 where not given."""
    parts = []
    for task in TASKS:
        full = {"tvb": None, "twr": None, "tpr": None, "retention": 1.0}
        parts.append(scored("vanilla", 0.9, task=task, questions=questions, **full))
        for on in itertools.product((False, True), repeat=3):
            for retention in (0.2, 0.05):
                label = "tvb{:d}-twr{:d}-tpr{:d}".format(*on)
                named = {"tvb": on[0], "twr": on[1], "tpr": on[2], "retention": retention}
                score = (scores or {}).get(on, 0.6)
                parts.append(scored(label, score, task=task, questions=questions, **named))
    return pd.concat(parts, ignore_index=True)


PILOT = {
    "a": ("uniform", "VV", "TT", "TV"),
    "b": ("observation-window", "self-attention", "VV+TT", "TV+TT"),
    "c": ("vision", "text"),
}


def pilot(scores: dict[tuple[str, str], float] | None = None) -> pd.DataFrame:
    """``scores`` by (block, variant); 0.6 where not given."""
    parts = []
    for task in TASKS:
        parts.append(scored("vanilla", 0.9, task=task, block="", variant="vanilla", retention=1.0))
        for block, variants in PILOT.items():
            for variant, retention in itertools.product(variants, (0.5, 0.2, 0.05)):
                score = (scores or {}).get((block, variant), 0.6)
                named = {"block": block, "variant": variant, "retention": retention}
                parts.append(scored(variant, score, task=task, **named))
    return pd.concat(parts, ignore_index=True)


def layer_sweep(
    scores: tuple[float, ...] = (0.3, 0.5, 0.7, 0.8), task: str = TASKS[0]
) -> pd.DataFrame:
    """Scores by layer 0, 2, 4, ... and the full cache's at 0.9."""
    parts = [scored("vanilla", 0.9, task=task, layer=float("nan"))]
    parts += [scored(f"layer {2 * n}", s, task=task, layer=2.0 * n) for n, s in enumerate(scores)]
    return pd.concat(parts, ignore_index=True)


def window_sweep(
    shallow: tuple[float, ...] = (0.3, 0.6, 0.5), deep: tuple[float, ...] = (0.8, 0.8, 0.8)
) -> pd.DataFrame:
    """Scores of 1, 2 and 4 windows after layers 1 and 6."""
    parts = [scored("vanilla", 0.9, layer=float("nan"), windows=float("nan"))]
    for layer, scores in ((1.0, shallow), (6.0, deep)):
        parts += [
            scored(f"{layer} {w}", s, layer=layer, windows=float(w), kv_share=0.6)
            for w, s in zip((1, 2, 4), scores, strict=True)
        ]
    return pd.concat(parts, ignore_index=True)


def retention_sweep(light: float = 0.9, tgv: float = 0.7, random: float = 0.2) -> pd.DataFrame:
    """Two tasks under four methods."""
    parts = []
    for task in TASKS:
        parts.append(scored("vanilla", 0.9, task=task, family="vanilla", setting="full"))
        named = {"family": "lightkv", "setting": "55 %", "kv_share": 0.6, "token_share": 0.55}
        parts.append(scored("lightkv", light, task=task, **named))
        for family, score in (("tgvkv", tgv), ("random", random)):
            for share in (0.5, 0.05):
                named = {"family": family, "setting": f"{100 * share:g} %"}
                numbers = {"kv_share": share, "requested_retention": share}
                parts.append(scored(f"{family} {share}", score, task=task, **named, **numbers))
    return pd.concat(parts, ignore_index=True)


def merge_maps(
    grid: int = 16, windows: tuple[int, ...] = (4, 2, 1), pictures: int = 12
) -> pd.DataFrame:
    """Pairs of columns, then of rows, then of columns again become one token."""
    rows = []
    strides = ((1, 2), (2, 2), (2, 4), (4, 4))
    for item in range(pictures):
        for stage, count in enumerate(windows):
            down, across = strides[stage]
            for row, col in itertools.product(range(grid), repeat=2):
                rows.append(
                    {
                        "model": "embedded",
                        "task": TASKS[0],
                        "seed": 0,
                        "item": item,
                        "stage": stage + 1,
                        "layer": 2 * stage + 1,
                        "windows": count,
                        "row": row,
                        "col": col,
                        "target_row": row // down * down,
                        "target_col": col // across * across,
                    }
                )
    return pd.DataFrame(rows)


def kept_maps(
    shallow: int = 12, deep: int = 6, pictures: int = 12, whole_text: bool = True
) -> pd.DataFrame:
    """Two retentions of layers that keep the text and ``shallow`` or ``deep`` patches."""
    tight = _kept(shallow // 2, deep // 2, pictures, whole_text).assign(retention=0.03)
    return pd.concat([tight, _kept(shallow, deep, pictures, whole_text).assign(retention=0.1)])


def _kept(shallow: int, deep: int, pictures: int, whole_text: bool) -> pd.DataFrame:
    words = ["<s>", "a", "chat", ":", "what", "is", "the", "red", "number", "?"]
    rows = []
    for item, layer in itertools.product(range(pictures), range(8)):
        budget = shallow + item % 3 if layer < 4 else deep
        common = {"model": "embedded", "task": TASKS[0], "seed": 0, "item": item, "layer": layer}
        for place in range(256):
            cell = {"position": 4 + place, "kind": "vision", "row": place // 16, "col": place % 16}
            rows.append({**common, **cell, "token": "", "kept": place * 7 % 256 < budget})
        for place, word in enumerate(words):
            kind, position = ("system", place) if place < 4 else ("text", 256 + place)
            kept = whole_text or place != 6
            rows.append(
                {
                    **common,
                    "position": position,
                    "kind": kind,
                    "row": -1,
                    "col": -1,
                    "token": word,
                    "kept": kept,
                }
            )
    return pd.DataFrame(rows)


def decode_latency(
    context: int = 275,
    device: str = "cpu",
    step: float = 2.0,
    throughput: float = 300.0,
    held: float = 0.05,
) -> pd.DataFrame:
    """Full cache at 4 ms and 200 tokens/s; 5 % at ``step`` and ``throughput``."""
    rows = []
    for retention, ms, rate in (
        (1.0, 4.0, 200.0),
        (0.5, 3.9, 210.0),
        (0.1, 3.8, 220.0),
        (0.05, step, throughput),
    ):
        for repeat in range(5):
            rows.append(
                {
                    "model": "embedded",
                    "device": device,
                    "retention": retention,
                    "context": context,
                    "repeat": repeat,
                    "step_ms": ms + 0.1 * repeat,
                    "throughput": rate + repeat,
                    "kv_share": held if retention == 0.05 else retention,
                }
            )
    return pd.DataFrame(rows)


def memory_breakdown(left: float = 0.5, vision: float = 0.3) -> pd.DataFrame:
    """Two models; LightKV leaves ``left`` of the vision KV."""
    rows = []
    for model, title in (("llava-1.5-7b", "LLaVA-1.5-7B"), ("llava-next-7b", "LLaVA-NeXT-7B")):
        for method, share in (("vanilla", 1.0), ("lightkv", left)):
            gib = {"weights": 13.0, "rest": 0.2, "text KV": 0.05, "vision KV": vision * share}
            for part, value in gib.items():
                rows.append(
                    {"model": model, "title": title, "method": method, "part": part, "gib": value}
                )
    return pd.DataFrame(rows)


def schedule_cost(factor: float = 1.0, late: float = 1.0, wide: float = 1.0) -> pd.DataFrame:
    """The printed numbers times ``factor``; late schedules and wide windows times theirs."""
    rows = []
    printed = {"": (19.4, 0.55), "15,23,31": (12.6, 0.36), "17,24,31": (13.2, 0.38)}
    for layers, windows in (
        ("", ""),
        ("15,23,31", "4,2,1"),
        ("15,23,31", "6,4,2"),
        ("17,24,31", "4,2,1"),
        ("17,24,31", "6,4,2"),
    ):
        scale = (late if layers == "17,24,31" else 1.0) * (wide if windows == "6,4,2" else 1.0)
        scale *= factor if layers else 1.0
        flops, kv = printed[layers]
        rows.append(
            {
                "model": "llava-1.5-13b",
                "title": "LLaVA-1.5-13B",
                "layers": layers,
                "windows": windows,
                "flops": flops * scale,
                "kv": kv * scale,
            }
        )
    return pd.DataFrame(rows)


COMPARED = ("streamingllm", "snapkv", "h2o", "elasticcache", "prefixkv")
SHORT = ("embedded/exist", "embedded/where", "embedded/count")
EVICTORS = {
    "tgvkv": 0.9,
    "snapkv": 0.8,
    "prefixkv": 0.7,
    "h2o": 0.6,
    "elasticcache": 0.5,
    "streamingllm": 0.4,
    "random": 0.1,
}


def every_method(*, reversed_later: bool = False, **scores: float) -> pd.DataFrame:
    """Seven evictors and a merging method under three protocols; TGV-KV needs a question."""
    first = {**EVICTORS, **scores}
    later = dict(zip(first, reversed(first.values()), strict=True)) if reversed_later else first
    parts = []
    for protocol in ("question-first", "question-agnostic", "second-turn"):
        of_protocol = first if protocol == "question-first" else later
        for task in TASKS:
            for name in ("vanilla", "lightkv"):
                named = {"protocol": protocol, "retention": float("nan")}
                parts.append(scored(name, 0.95, task=task, **named))
            for (name, score), retention in itertools.product(of_protocol.items(), (0.5, 0.1)):
                if name == "tgvkv" and protocol == "question-agnostic":
                    continue
                named = {"protocol": protocol, "retention": retention, "kv_share": retention}
                parts.append(scored(name, score, task=task, **named))
    return pd.concat(parts, ignore_index=True)


def compared(
    column: str,
    settings: Sequence[float],
    scores: Mapping[str, float],
    *,
    whole: float = 1.0,
    tasks: Sequence[str] = TASKS,
    vanilla: float = 0.95,
) -> pd.DataFrame:
    """The full cache, and methods by name with their scores at every setting of a column."""
    parts = []
    for task in tasks:
        where = {"compared": "vanilla", column: whole, **_words(vanilla)}
        parts.append(scored("vanilla", vanilla, task=task, **where))
        for (name, score), at in itertools.product(scores.items(), settings):
            label = f"{name} {at}"
            where = {"compared": name, column: at, **_words(score)}
            parts.append(scored(label, score, task=task, kv_share=0.5, token_share=0.6, **where))
    return pd.concat(parts, ignore_index=True)


def _words(score: float) -> dict[str, object]:
    """Captions of which that share is word for word the reference."""
    captions = [f"top left red circle {n} , low blue ring" for n in range(QUESTIONS)]
    right = round(score * QUESTIONS)
    answers = [text if n < right else "nothing at all" for n, text in enumerate(captions)]
    words = [" ".join(["word"] * (4 + n % 6)) for n in range(QUESTIONS)]
    return {"answer": answers, "reference": [[text] for text in captions], "question": words}


PREFILL = {
    **{"lightkv": 0.9, "tome": 0.6, "pitome": 0.6, "tofu": 0.6, "fastv": 0.7, "hired": 0.5},
    **{"elasticcache": 0.3, "random": 0.2, "random-vision": 0.3, "tome-cache": 0.4},
}
VISION = ("embedded/exist", "embedded/caption")


def prefill_methods(
    shares: Sequence[float] = (0.55,),
    methods: Sequence[str] = tuple(PREFILL),
    **scores: float,
) -> pd.DataFrame:
    """Methods in prefill at some shares."""
    changed = {name.replace("_", "-"): score for name, score in scores.items()}
    known = {name: {**PREFILL, **changed}[name] for name in methods}
    return compared("share", shares, known, tasks=VISION)


def window_schedules(narrow: float = 0.9, wide: float = 0.9) -> pd.DataFrame:
    """Two window schedules on four tasks."""
    parts = []
    for task in VISION:
        parts.append(scored("vanilla", 0.9, task=task, windows=""))
        for windows, score in (("4,2,1", narrow), ("6,4,2", wide)):
            parts.append(scored(windows, score, task=task, windows=windows))
    return pd.concat(parts, ignore_index=True)


def evictors_compared(
    methods: Sequence[str] = (*COMPARED, "tgvkv"),
    retentions: Sequence[float] = (0.5, 0.2, 0.1, 0.05),
    tasks: Sequence[str] = TASKS,
    **scores: float,
) -> pd.DataFrame:
    """Evictors at some retentions."""
    changed = {name.replace("_", "-"): score for name, score in scores.items()}
    known = {
        name: {**EVICTORS, "tgvkv-vision-only": 0.9, "aircache": 0.5, **changed}[name]
        for name in methods
    }
    return compared("retention", retentions, known, tasks=tasks, vanilla=0.92)


def pruning_against_eviction(**scores: float) -> pd.DataFrame:
    """Four pruners and TGV-KV at three sizes."""
    known = {"divprune": 0.6, "visionzip": 0.5, "vispruner": 0.5, "cdpruner": 0.6, "tgvkv": 0.9}
    return compared("kept", (128, 64, 32), {**known, **scores}, whole=576, tasks=SHORT)


def request_times(
    models: Sequence[str] = ("llava-1.5-13b", "llava-next-13b"),
    methods: Sequence[str] = ("vanilla", "fastv", "pitome", "tofu", "tome", "lightkv"),
    *,
    light: float = 0.75,
    last: float = 0.0,
    tome: float = 0.74,
) -> pd.DataFrame:
    """Five rounds; LightKV takes ``light`` of the full cache's time, ``last`` more in the last."""
    shares = {"vanilla": 1.0, "lightkv": light, "tome": tome}
    rows = [
        {
            "model": model,
            "tokens": 576,
            "compared": name,
            "method": name,
            "repeat": repeat,
            "ttft_ms": 100 * (1 + 0.01 * repeat) * share,
            "latency_s": 3 * (1 + 0.01 * repeat) * share,
            "machine": "GPU",
        }
        for model in models
        for name in methods
        for repeat in range(5)
        for share in [shares.get(name, 0.8) + (last if name == "lightkv" and repeat == 4 else 0)]
    ]
    return pd.DataFrame(rows)


def released_choices(light: float = 0.9, tgv: float = 0.9, random: float = 0.6) -> pd.DataFrame:
    """The paper's variants at 0.9; the code's at ``light`` and ``tgv``, random guidance too."""
    scores = {
        ("vanilla", ""): 0.95,
        ("lightkv", "paper"): 0.9,
        ("lightkv", "guidance"): random,
        ("lightkv", "all"): light,
        ("tgvkv", "paper"): 0.9,
        ("tgvkv", "decoding"): 0.7,
        ("tgvkv", "all"): tgv,
    }
    parts = []
    for task, ((name, departure), score) in itertools.product(TASKS, scores.items()):
        where = {"compared": name, "departure": departure, "overlap": 0.5, **_words(score)}
        parts.append(scored(f"{name}, {departure}", score, task=task, kv_share=0.5, **where))
    return pd.concat(parts, ignore_index=True)


FRAMES = {
    "released_choices": released_choices,
    "retention_sweep": retention_sweep,
    "budget_ranking_retention_pilot": pilot,
    "decode_latency": decode_latency,
    "component_ablation": ablation,
    "kept_maps": kept_maps,
    "memory_breakdown": memory_breakdown,
    "merge_maps": merge_maps,
    "single_layer_sweep": layer_sweep,
    "window_sweep": window_sweep,
    "schedule_cost": schedule_cost,
    "every_method": every_method,
    "window_schedules": window_schedules,
    "pruning_against_eviction": pruning_against_eviction,
    **PROBING,
    **STEPS,
}
"""Constructed frames by study, where a claim is judged on numbers that no rule of thumb gives."""


BY_OPTIONS = {
    "prefill_methods": prefill_methods,
    "evictors_compared": evictors_compared,
    "request_times": request_times,
}
"""The same, from what an artefact's study is called with."""


def frame_of(one: Artefact) -> pd.DataFrame:
    """A small frame of an artefact: a constructed one, or what its study returns of a model that
    answers by rule, or the paper's numbers."""
    study = study_of(one)
    if study is None:
        return one.paper_numbers()  # type: ignore[return-value]
    if study.name in FRAMES:
        return FRAMES[study.name]()
    if study.name in BY_OPTIONS:
        return BY_OPTIONS[study.name](**one.options)
    if not study.needs_model:
        return study.run(**one.options)
    quiet = {"samples": 12, "progress": False}
    settings = {name: value for name, value in quiet.items() if name in study.parameters}
    return study.run(FakeVLM(_answer), **{**settings, **one.options})


def _answer(request: Request, compressor: Compressor | None) -> str:
    """Words that are right now and then: more often where nothing is compressed."""
    words = ("yes", "no", "red", "two") if compressor is None else ("yes", "red blue circle")
    return words[len(request.question) % len(words)]
