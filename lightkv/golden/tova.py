"""Replay of reference cases of TOVA, as kvpress keeps."""

from __future__ import annotations

import torch

from lightkv.catalogue import method
from lightkv.contract.attention_sources import GivenAttention
from lightkv.golden.caches import Arrays, Case, compare_kept, evicting, last_rows, tensor, view


def replay(case: Case, arrays: Arrays) -> list[str]:
    """One line per departure from the reference, none if it is reproduced."""
    row = tensor(arrays["last_row"])  # (B, H, N)
    batch, _, length = row.shape
    keys = torch.zeros(batch, int(arrays["kv_heads"]), length, 1)
    layer = view(keys, GivenAttention(last_rows(row[:, :, None])))
    lines = []
    for removed in ("0.5", "0.8"):
        kept = tensor(arrays[f"kept_{removed}"])
        compressor = evicting(method("tova", entries=kept.shape[-1]), protect_last=0)
        retention = compressor.retain([compressor.observe(layer)])[0]
        lines += compare_kept(f"kept_{removed}", retention, kept)
    return lines
