"""Peak memory of a call, in bytes that torch's allocators hold."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ALLOCATOR = "bytes that torch's CPU allocator holds, from its profiler's events"
CUDA = "torch.cuda.max_memory_allocated"


def memory_kind(device: torch.device) -> str:
    """What :func:`peak_rise` counts on a device, in words."""
    return CUDA if device.type == "cuda" else ALLOCATOR


def peak_rise(call: Callable[[], object], device: torch.device) -> int:
    """Highest number of bytes held at once during a call, beyond those held before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - int(before)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        return _highest(json.loads(trace.read_text()))


def _highest(trace: dict[str, Any]) -> int:
    """Highest running total of a trace's allocations and releases."""
    events = [event for event in trace["traceEvents"] if event.get("name") == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: float(event["ts"])):
        held += int(event["args"]["Bytes"])
        highest = max(highest, held)
    return highest
