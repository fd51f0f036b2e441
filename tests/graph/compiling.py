"""Compiled decoding beside eager decoding, without a compiler.

What is compiled is traced and then run as it is, which takes seconds instead of minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightkv import VLM
from tests.closeness import assert_close

SETTINGS: dict[str, Any] = {
    "max_new_tokens": 6,
    "do_sample": False,
    "output_logits": True,
    "return_dict_in_generate": True,
}


@dataclass
class Traced:
    """A backend of torch.compile that runs what was traced as it is, and keeps it.

    Attributes:
        stands_for: The backend in whose place it stands.
        graphs: What was traced, in turn.
        tags: What told apart the programs that torch keeps on disk.
    """

    stands_for: str
    graphs: list[torch.fx.GraphModule] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.graphs.append(graph)
        self.tags.append(torch.compiler.config.cache_key_tag)
        return graph.forward


def both(vlm: VLM, inputs: dict[str, Tensor], **settings: Any) -> tuple[Any, Any]:
    """What eager decoding gives, and compiled."""
    asked = {**SETTINGS, **settings}
    return (
        vlm.generate(inputs, **asked).output,
        vlm.generate(inputs, decode="compiled", **asked).output,
    )


def assert_alike(eager: Any, ours: Any) -> None:
    assert torch.equal(ours.sequences, eager.sequences)
    assert_close(torch.stack(ours.logits), torch.stack(eager.logits))
    assert type(ours.past_key_values) is type(eager.past_key_values)
    for left, right in zip(ours.past_key_values.layers, eager.past_key_values.layers, strict=True):
        assert_close(left.keys, right.keys)
        assert_close(left.values, right.values)
