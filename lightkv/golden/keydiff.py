"""Replay of reference cases of KeyDiff, as kvpress scores and keeps."""

from __future__ import annotations

from lightkv.catalogue import method
from lightkv.golden.caches import (
    Arrays,
    Case,
    compare_kept,
    compare_numbers,
    evicting,
    tensor,
    view,
)


def replay(case: Case, arrays: Arrays) -> list[str]:
    """One line per departure from the reference, none if it is reproduced."""
    layer = view(tensor(arrays["keys"]))
    lines = []
    for removed in ("0.5", "0.8"):
        kept = tensor(arrays[f"kept_{removed}"])
        compressor = evicting(method("keydiff", entries=kept.shape[-1]), protect_last=0)
        seen = compressor.observe(layer)
        lines += compare_numbers("score", seen.score, arrays["score"])
        lines += compare_kept(f"kept_{removed}", compressor.retain([seen])[0], kept)
    return lines
