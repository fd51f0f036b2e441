"""Constructed frames of times, memory and cost."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def decode_latency(
    context: int = 275,
    device: str = "cpu",
    step: float = 2.0,
    throughput: float = 300.0,
    held: float = 0.05,
    *,
    recorded: bool = False,
    last: float = 0.0,
) -> pd.DataFrame:
    """Full cache at 4 ms and 200 tokens/s; 5 % at ``step`` and ``throughput``, in five rounds.

    In the last round steps at 5 % take ``last`` more. ``recorded`` rows are of LLaVA-1.5-7B.
    """
    rows = []
    for retention, ms, rate in (
        (1.0, 4.0, 200.0),
        (0.5, 3.9, 210.0),
        (0.1, 3.8, 220.0),
        (0.05, step, throughput),
    ):
        for repeat in range(5):
            later = last if retention == 0.05 and repeat == 4 else 0.0
            rows.append(
                {
                    "model": "llava-1.5-7b" if recorded else "embedded",
                    "machine": "GPU" if recorded else "x86_64, 1 threads",
                    "device": device,
                    "retention": retention,
                    "context": context,
                    "piece": "one",
                    "repeat": repeat,
                    "step_ms": (ms + later) * (1 + 0.01 * repeat),
                    "throughput": rate * (1 + 0.01 * repeat),
                    "kv_share": held if retention == 0.05 else retention,
                    "recorded": recorded,
                }
            )
    return pd.DataFrame(rows)


def beside_record(context: int = 640, device: str = "cuda", **record: float) -> pd.DataFrame:
    """The usual measurement here, and one that is recorded."""
    of_gpu = decode_latency(context, device, recorded=True, **record)
    return pd.concat([decode_latency(), of_gpu], ignore_index=True)


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
            "piece": model,
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
