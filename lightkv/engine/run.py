"""The state of one run: its prefill, then the cache that it left.

A run is created for one call of ``generate`` and thrown away after its records were read, so no two
samples share state.  It knows the contracts of :mod:`lightkv.contract.compressor`, and no method;
:mod:`lightkv.engine.passes` says what it is asked when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightkv.contract.layout import TokenLayout
from lightkv.contract.rotary import Rotary
from lightkv.contract.view import VisionFeatures
from lightkv.engine.held import HeldCache
from lightkv.engine.plan import Plan, Quirks
from lightkv.engine.prefill import FinalNorm, Prefill
from lightkv.engine.record import RunRecords
from lightkv.engine.renumbering import Renumbering
from lightkv.engine.returned import checked_retentions
from lightkv.engine.shortening import LayerAdditions, Shortening
from lightkv.errors import UnsupportedError


class Run:
    """One call of ``generate`` for B rows.

    Args:
        plan: Who takes part.
        layout: Layout of the padded prompts, (B, N).
        seed: For methods that draw at random.
        identities: Gives per row a number that tells its prompt from others, for the same.
        quirks: What sets the model apart from a plain decoder.
        text_rotary: See :class:`~lightkv.engine.shortening.Shortening`.
        renumbering: See :class:`~lightkv.engine.held.HeldCache`.
        final_norm: The norm after the model's last layer, if it has one.
        saved: (B,) int64, tokens that each prompt lacks because its pictures were made smaller.
    """

    def __init__(
        self,
        plan: Plan,
        layout: TokenLayout,
        *,
        seed: int = 0,
        identities: Callable[[], Sequence[int]] | None = None,
        quirks: Quirks | None = None,
        text_rotary: Rotary | None = None,
        renumbering: Renumbering | None = None,
        final_norm: FinalNorm | None = None,
        saved: Tensor | None = None,
    ) -> None:
        self.plan = plan
        self.layout = layout
        self.seed = seed
        self._identities = identities
        self.quirks = Quirks((None,) * plan.facts.layers) if quirks is None else quirks
        self.vision: VisionFeatures | None = None
        self._final_norm = final_norm
        self._saved = saved
        self._text_rotary = text_rotary
        self._renumbering = renumbering
        self._additions: LayerAdditions | None = None
        self._additive: torch.dtype | None = None
        self._prefill: Prefill | None = None
        self._held: HeldCache | None = None
        self._records: RunRecords | None = None

    def enter(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of the decoder, where it adds something that has to be cut."""
        self._additions = LayerAdditions(kwargs, self.plan.first_stage)
        return self._additions.decoder_inputs(kwargs)

    def begin(self, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Start at the input of the first layer.

        Args:
            hidden: (B, N, D) input embeddings.
            kwargs: The first layer's keyword arguments.

        Raises:
            UnsupportedError: If the cache or the batch is of a kind that would be silently wrong.
        """
        cache = kwargs.get("past_key_values")
        if cache is None:
            raise UnsupportedError("compression needs the KV cache: set use_cache=True")
        rows, length = hidden.shape[:2]
        if length != self.layout.length or rows % self.layout.batch_size:
            raise UnsupportedError(
                f"the model processes {rows} x {length} tokens at once, the prompt has "
                f"{self.layout.batch_size} x {self.layout.length}: chunked prefill and a "
                "conversation continued on an old cache can't be compressed"
            )
        vision, identities = self.vision, self._identities
        if rows != self.layout.batch_size:
            # Beam search and several returned sequences lay rows out side by side.
            times = rows // self.layout.batch_size
            prompts = range(self.layout.batch_size)
            self.layout = self.layout.rows([row for row in prompts for _ in range(times)])
            vision = None if vision is None else vision.repeated(times)
            if self._saved is not None:
                self._saved = self._saved.repeat_interleave(times)
            if identities is not None:
                identities = partial(_each, identities, times)
        self.layout = self.layout.to(hidden.device)
        self._additive = hidden.dtype if self.quirks.additive_masks else None
        self._prefill = Prefill(
            self.plan,
            Shortening(self.layout, self._additive, self._text_rotary),
            hidden,
            cache,
            seed=self.seed,
            identities=identities,
            vision=vision,
            final_norm=self._final_norm,
            additions=self._additions,
        )

    def finish(self) -> None:
        """After the last layer: cut every layer's cache to what is retained."""
        prefill, evictor = self.prefill, self.plan.evictor
        held = HeldCache(
            self.plan,
            self.layout,
            prefill.processed(),
            prefill.cache,
            self.quirks,
            self._additive,
            renumbering=self._renumbering,
        )
        if evictor is not None:
            observations = prefill.observations()
            retentions = evictor.retain(observations)
            layers, rows = self.plan.facts.layers, self.layout.batch_size
            held.retain(observations, checked_retentions(evictor, retentions, layers, rows))
        self._records = RunRecords(
            self.plan.method,
            self.plan.facts,
            self.layout,
            prefill.processed(),
            [entries.snapshot() for entries in held.entries],
            entry_bytes=held.entry_bytes,
            evicted=evictor is not None,
            saved=self._saved,
        )
        self._prefill, self._held = None, held

    @property
    def prefilled(self) -> bool:
        """True once the prompt is in the cache."""
        return self._held is not None

    @property
    def prefill(self) -> Prefill:
        """The prefill under way.

        Raises:
            UnsupportedError: If the first layer has not been reached, or the last has been left.
        """
        if self._prefill is None:
            raise UnsupportedError("this run is not reading its prompt now")
        return self._prefill

    @property
    def held(self) -> HeldCache:
        """The cache after prefill.

        Raises:
            UnsupportedError: If the run has not read its prompt yet.
        """
        if self._held is None:
            raise UnsupportedError("this run has not read its prompt yet")
        return self._held

    def records(self) -> RunRecords:
        """One record per row, of the state after prefill.

        Raises:
            UnsupportedError: If the run has not read its prompt yet.
        """
        if self._records is None:
            raise UnsupportedError("this run has not read its prompt yet")
        return self._records


def _each(identities: Callable[[], Sequence[int]], times: int) -> list[int]:
    """Every row's identity as often as its row is run."""
    return [one for one in identities() for _ in range(times)]
