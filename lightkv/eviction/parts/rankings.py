"""Which entries of a layer matter: one score per entry, higher is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightkv.contract.layout import TokenLayout
from lightkv.contract.types import Checked
from lightkv.contract.view import EntriesView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.eviction.parts.protection import ends, no_position

TextScope = Literal["question", "text", "all"]
Pooling = Literal["avg", "max", "none"]

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Ranking(Checked, ABC):
    """Scores the entries of one layer."""

    needs_attention: ClassVar[bool] = True
    needs_vision: ClassVar[bool] = False
    needs_question: ClassVar[bool] = False
    needs_entries: ClassVar[bool] = False

    def check(self, facts: ModelFacts) -> None:
        """Validate the hyperparameters; raises :class:`InvalidValueError`."""

    def queries(self, layout: TokenLayout) -> Tensor | None:
        """(B, N) bool: queries whose attention :meth:`score` reads, None for all of them.

        A ranking that names its queries is shown several layers at once, one after the other in
        the rows of the view, if its evictor's budget names its own too. It then may not depend on
        ``view.layer``, and it gets keys and values only where :attr:`needs_entries` says so;
        ``view.generators`` are those of each layer's rows.
        """
        return None

    @abstractmethod
    def score(self, view: EntriesView) -> Tensor:
        """(B, N) float32, or (B, H_kv, N) if heads keep different entries; padding is ignored."""

    def claims(self, view: EntriesView) -> Tensor | None:
        """(B, H_kv, N) float32 by which heads compete for the budget; None for the score."""
        return None


def text_queries(layout: TokenLayout, scope: TextScope) -> Tensor:
    """(B, N) bool: queries whose attention ranks text entries.

    "question" is the paper's text, "text" adds the system text and separators, "all" adds the
    vision tokens as the released code does.  An entry of the question is seen by later question
    tokens only, so with one image the scope matters for the system text alone.
    """
    return {"question": layout.question, "text": layout.text, "all": layout.real}[scope]


def group_heads(scores: Tensor, view: EntriesView) -> Tensor:
    """(B, H, N) of query heads to (B, H_kv, N): mean over the heads that share a KV head."""
    batch, heads, length = scores.shape
    group = view.read_attention().group
    return scores.view(batch, heads // group, group, length).mean(2)


@dataclass(frozen=True)
class SelfAttention(Ranking):
    """Attention collected from all queries (H2O's score; "attention sum" of TGV-KV, Table 5).

    Attributes:
        per_head: Score each KV head on its own instead of the mean over all heads.
    """

    per_head: bool = False

    def score(self, view: EntriesView) -> Tensor:
        attention, real = view.read_attention(), view.layout.real
        if not self.per_head:
            return attention.column_sums(real)
        return group_heads(attention.column_sums(real, per_head=True), view)


@dataclass(frozen=True)
class ObservationWindow(Ranking):
    """Attention from the last queries, pooled along the sequence (SnapKV, arXiv 2404.14469).

    Attributes:
        window: Number of last queries.
        kernel: Odd width of the pooling.
        pooling: "avg" (zeros beyond the ends count), "max" or "none".
        per_head: Score each KV head on its own. Heads of a group are averaged before pooling.
    """

    window: int = 64
    kernel: int = 5
    pooling: Pooling = "avg"
    per_head: bool = False

    def check(self, facts: ModelFacts) -> None:
        check_window(self.window)
        check_kernel(self.kernel)

    def queries(self, layout: TokenLayout) -> Tensor:
        return ends(layout, 0, self.window)

    def score(self, view: EntriesView) -> Tensor:
        window = ends(view.layout, 0, self.window)
        sums = view.read_attention().column_sums(window, per_head=self.per_head)
        scores = group_heads(sums, view) if self.per_head else sums
        return pool_outside(scores, view, window, self.kernel, self.pooling)


def check_window(window: int, least: int = 1) -> None:
    """Raise :class:`InvalidValueError` unless the window has enough queries."""
    if window < least:
        raise InvalidValueError("window", window, f"at least {least}")


def check_kernel(kernel: int) -> None:
    """Raise :class:`InvalidValueError` for an even kernel."""
    if kernel < 1 or kernel % 2 == 0:
        raise InvalidValueError("kernel", kernel, "an odd number of at least 1")


def pool_outside(
    scores: Tensor, view: EntriesView, window: Tensor, kernel: int, pooling: Pooling
) -> Tensor:
    """Pool scores (B, N) or (B, H_kv, N) of the entries before the window; zero elsewhere.

    The window is kept by the selection and must not leak into its neighbours.
    """
    outside = view.layout.real & ~window
    grouped = scores if scores.dim() == 3 else scores[:, None]
    grouped = grouped * outside[:, None]
    return (pool(grouped, kernel, pooling) * outside[:, None]).view(scores.shape)


def pool(scores: Tensor, kernel: int, pooling: Pooling) -> Tensor:
    """Pool (B, H, N), not negative, along the last axis; beyond the ends there are zeros."""
    if pooling == "avg":
        return F.avg_pool1d(scores, kernel, 1, kernel // 2, count_include_pad=True)
    if pooling == "max":
        return F.max_pool1d(scores, kernel, 1, kernel // 2)
    return scores


@dataclass(frozen=True)
class Random(Ranking):
    """Uniform random scores, a fresh draw per layer and prompt.

    The draw belongs to the prompt and the token's place in it, so every question loses other
    places, and none depends on padding or on the other rows of a batch.
    """

    needs_attention: ClassVar[bool] = False

    def queries(self, layout: TokenLayout) -> Tensor:
        return no_position(layout)

    def score(self, view: EntriesView) -> Tensor:
        layout = view.layout
        position = layout.host.position.clamp_min(0)
        counts = (position.amax(1) + 1).tolist()
        draws = [
            torch.rand(count, generator=generator, dtype=torch.float64)
            for count, generator in zip(counts, view.generators(), strict=True)
        ]
        drawn = torch.nn.utils.rnn.pad_sequence(draws, batch_first=True).float()
        return drawn.gather(1, position).to(layout.kind.device)
