"""Tiny models and prompts for the probing tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from analysis.probing.quantities import QUANTITIES
from lightkv.vlm import VLM
from tests.tiny import prompt, stack

ROWS = [prompt(1, 5), prompt(1, 9, seed=2), prompt(2, 4, seed=3)]
BATCH = stack(ROWS)
EVERYTHING = list(QUANTITIES)


def eager(vlm: VLM, inputs: dict[str, Tensor]) -> Any:
    """Attentions and hidden states of the model under its eager kernel."""
    kernel = vlm.model.config._attn_implementation
    vlm.model.set_attn_implementation("eager")
    with torch.no_grad():
        output = vlm.model(**inputs, output_attentions=True, output_hidden_states=True)
    vlm.model.set_attn_implementation(kernel)
    return output
