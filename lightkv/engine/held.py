"""The cache after prefill: what an evictor leaves of it, and what happens to it while decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightkv.contract.compressor import Observation
from lightkv.contract.host import all_on_host, on_host
from lightkv.contract.layout import TokenLayout
from lightkv.contract.retention import Retention, verify
from lightkv.engine.cache import LayerEntries
from lightkv.engine.dropping import Dropping
from lightkv.engine.masks import as_mask, decode_mask, hide, static_mask
from lightkv.engine.plan import Plan, Quirks
from lightkv.engine.renumbering import Renumbering
from lightkv.engine.shortening import Processed


class HeldCache:
    """A model's cache and the bookkeeping of its entries, layer by layer.

    Args:
        plan: Who takes part in the run.
        layout: Layout of the prompts.
        processed: What each layer processed in the prefill.
        cache: The model's cache.
        quirks: What sets the model apart from a plain decoder.
        additive: Dtype of additive masks, None for boolean ones.
        renumbering: Where later tokens take other positions than their index, else None.
    """

    def __init__(
        self,
        plan: Plan,
        layout: TokenLayout,
        processed: Sequence[Processed],
        cache: Any,
        quirks: Quirks,
        additive: torch.dtype | None,
        *,
        renumbering: Renumbering | None = None,
    ) -> None:
        self.cache = cache
        self.entries = [LayerEntries(one.layout) for one in processed]
        self.changed = any(one.stage is not None for one in processed)
        self.continues = False
        self._plan = plan
        self._layout = layout
        self._quirks = quirks
        self._additive = additive
        self._processed = processed
        self._renumbering = renumbering
        self._dropping = Dropping(plan.decode_policy)
        self._seen = layout.prompt_lengths
        self._counted = np.array(layout.lengths, np.int64)  # the same, on the host
        self._joining: Tensor | None = None
        self._new = 1

    @property
    def entry_bytes(self) -> int:
        """Bytes of one key and its value in one head."""
        first = self.cache.layers[0].keys
        return 2 * int(first.shape[3]) * int(first.element_size())

    def retain(self, observations: Sequence[Observation], retentions: Sequence[Retention]) -> None:
        """Cut every layer's cache to what is retained.

        Raises:
            RetentionMismatchError: If a layer would keep another number of entries than requested;
                the cache is untouched then.
        """
        verify(retentions, [one.layout.lengths for one in self._processed])
        for layer, retention in enumerate(retentions):
            entries = self.entries[layer]
            entries.retention = retention
            if self._plan.decode_policy.needs_score:
                score = observations[layer].score
                entries.score = score[:, None] if score.dim() == 2 else score
            same_slots = retention.index.shape[-1] == entries.slots
            if not (same_slots and bool((on_host(retention.counts) == entries.counts).all())):
                self.changed = True
                entries.retain(self.cache.layers[layer], retention)
            if self._renumbering is not None:
                self._renumbering.place(entries, self.cache.layers[layer], layer)
        self._recount(retentions)

    def _recount(self, retentions: Sequence[Retention]) -> None:
        """Count again where an evictor may have kept padding."""
        kept = zip(self.entries, retentions, strict=True)
        unsure = [one for one, retention in kept if retention.held is None]
        if unsure and self._layout.padded:
            for one, counts in zip(
                unsure, all_on_host([one.valid.sum(-1) for one in unsure]), strict=True
            ):
                one.recount(on_host(counts))

    @property
    def is_plain(self) -> bool:
        """True if decode steps need no intervention: same masks as without compression."""
        if self.continues or self._plan.interventions or not self._plan.decode_policy.static:
            return False
        if not self.changed:
            return True
        if self._quirks.has_windows or self._renumbering is not None:
            return False
        # The model's own mask of a padded batch has the length, and the padding, of the full cache.
        if self._additive is not None or self._layout.padded:
            return False
        return not any(entries.ragged for entries in self.entries)

    def continue_with(self, tokens: Tensor) -> Tensor:
        """Announce new tokens that go on from this cache, instead of a new prompt.

        Args:
            tokens: (B, T) bool, False for padding, which comes first.

        Returns:
            (B, T) int64, their positions: those of the uncompressed conversation.
        """
        self._catch_up()
        self.continues = True
        self._joining = tokens
        return self._positions_of(tokens)

    def forget_since(self, lengths: Tensor) -> None:
        """Hide entries that are not part of the conversation: what a row generated past its end.

        Args:
            lengths: (B,) int64, tokens of each row that count.
        """
        self._catch_up()
        for entries in self.entries:
            entries.hide_since(lengths)
        self._seen, self._counted = lengths, on_host(lengths)
        self.changed = True

    def next_tokens(self, count: int) -> None:
        """Note that ``count`` new tokens are about to join the cache."""
        tokens, self._joining = self._joining, None
        if tokens is None:
            shape = self._layout.batch_size, count
            tokens = torch.ones(shape, dtype=torch.bool, device=self._seen.device)
            counts: NDArray[np.int64] = np.full(len(self._counted), count)
            joined: Tensor | int = count
        else:
            joined = tokens.sum(1)
            counts = on_host(joined)
        position = self._positions_of(tokens)
        for entries in self.entries:
            entries.join(position, tokens, counts)
        self._seen = self._seen + joined
        self._counted = self._counted + counts
        self._new = count

    def _positions_of(self, tokens: Tensor) -> Tensor:
        """(B, T) int64: places of new tokens (B, T) bool in their rows."""
        return (self._seen[:, None] + tokens.long().cumsum(1) - 1).clamp_min(0)

    def _catch_up(self) -> None:
        """Note tokens that joined the cache in steps that needed no intervention."""
        joined = int(self.cache.layers[0].keys.shape[2]) - self.entries[0].slots
        if joined > 0:
            self.next_tokens(joined)

    def inputs(self, layer: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a layer with the mask of the layer's own entries."""
        hidden = self._hidden_entries(layer)
        if not self.changed and not self.continues and hidden is None:
            return kwargs
        entries, heads = self.entries[layer], self._plan.facts.heads
        window = self._quirks.windows[layer]
        mask = decode_mask(entries, heads, self._additive, self._new, window)
        if mask is None and self._additive is not None:
            visible = torch.ones(1, 1, 1, entries.slots, dtype=torch.bool)
            mask = as_mask(visible.to(self._layout.kind.device), self._additive)
        if hidden is not None:
            mask = hide(mask, hidden)
        changed = {**kwargs, "attention_mask": mask}
        if self._renumbering is not None:
            of_index = kwargs["position_embeddings"]
            changed["position_embeddings"] = self._renumbering.embeddings(
                entries, self._new, self._processed[layer].shortfall, layer, of_index
            )
        return changed

    def static_mask(self, layer: int, size: int) -> Tensor:
        """What the next token sees of a layer's entries in a buffer of ``size`` slots.

        Returns:
            (B, 1 or H, 1, size), as the attention kernel wants it.
        """
        return static_mask(self.entries[layer], self._plan.facts.heads, self._additive, size)

    def _hidden_entries(self, layer: int) -> Tensor | None:
        """(B, 1 or H, T, K) bool: entries that interventions hide from the newest tokens T."""
        entries = self.entries[layer]
        hidden: Tensor | None = None
        for one in self._plan.intervening(layer):
            pairs = one.hides(self._layout)
            if pairs is not None and pairs.generated:
                unseen = pairs.entries(entries.position, self._layout, self._plan.facts.heads)
                hidden = unseen if hidden is None else hidden | unseen
        if hidden is None:
            return None
        return hidden[:, :, None].expand(-1, -1, self._new, -1)

    def evict(self, layer: int, attention: Tensor | None) -> None:
        """Let the decode policy drop entries, now that the newest token joined.

        Args:
            layer: 0-based.
            attention: (B, H, T, K) of the newest tokens, None unless the policy asked for it.
        """
        entries, cached = self.entries[layer], self.cache.layers[layer]
        if self._dropping.drop(layer, entries, cached, attention, self._seen, self._counted):
            self.changed = True
            if self._renumbering is not None:
                self._renumbering.place(entries, cached, layer)
