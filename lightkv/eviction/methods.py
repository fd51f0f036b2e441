"""Every evictor by name: a budget, a ranking and a retention rule, in one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lightkv.compressor import Compressor
from lightkv.errors import UnknownNameError
from lightkv.eviction.budgets import Budget, TextText, TextVision, Uniform, VisionVision
from lightkv.eviction.decoding import EvictOne, HoldBudget
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.rankings import (
    CrossPlusText,
    KeyNorm,
    ObservationWindow,
    Random,
    Ranking,
    Recency,
    SelfAttention,
    TextWeighted,
    VisionPlusText,
)
from lightkv.eviction.released import ReleasedTextVision, ReleasedTGVKV
from lightkv.eviction.retention import (
    ByScore,
    Selection,
    TextFirst,
    VisionFirst,
    VisionOnly,
    WindowFirst,
)

Factory = TypeVar("Factory", bound=Callable[..., Compressor])

METHODS: dict[str, Callable[..., Compressor]] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Enter a factory ``(retention, **options) -> Compressor`` under a name."""

    def enter(factory: Factory) -> Factory:
        METHODS[name] = factory
        return factory

    return enter


def method(name: str, retention: float, **options: object) -> Compressor:
    """Build a registered method.

    Raises:
        UnknownNameError: If there is no method of that name.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name](retention, **options)


def methods() -> dict[str, str]:
    """Registered names with their descriptions."""
    return {name: (factory.__doc__ or "").splitlines()[0] for name, factory in METHODS.items()}


@dataclass(frozen=True)
class TGVKV(Evicting):
    """TGV-KV (Liu et al., ICML 2026, arXiv 2606.03075): budgets, ranking and retention by text.

    The default is the paper; :meth:`released` is the published code.
    """

    budget: Budget = TextVision()  # noqa: RUF009
    ranking: Ranking = TextWeighted()  # noqa: RUF009
    selection: Selection = TextFirst()  # noqa: RUF009
    retention: float = 0.05

    @staticmethod
    def released(
        retention: float = 0.05, *, protect_first: int = 4, protect_last: int = 1
    ) -> Evicting:
        """The published code, case by case: its ranking, arithmetic and decoding."""
        return ReleasedTGVKV(
            ReleasedTextVision(),
            TextWeighted(text_scope="all", normalise=False),
            TextFirst(),
            retention,
            decode=EvictOne(protect_first),
            protect_first=protect_first,
            protect_last=protect_last,
            redistribute=False,
        )


@register("tgvkv")
def tgvkv(retention: float) -> Evicting:
    """TGV-KV as in the paper: text-vision budgets, text-weighted ranking, text kept first."""
    return TGVKV(retention=retention)


@register("tgvkv-released")
def tgvkv_released(retention: float) -> Evicting:
    """TGV-KV as in the released code, which also evicts one entry per decode step."""
    return TGVKV.released(retention)


@register("tgvkv-vision-only")
def tgvkv_vision_only(retention: float) -> Evicting:
    """TGV-KV on vision entries alone: all text stays, the ratio counts vision entries."""
    return Evicting(TextVision(), TextWeighted(), VisionOnly(), retention)


def _ablation(tvb: bool, twr: bool, tpr: bool) -> Callable[[float], Evicting]:
    budget: Budget = TextVision() if tvb else Uniform()
    ranking: Ranking = TextWeighted() if twr else SelfAttention()
    selection: Selection = TextFirst() if tpr else ByScore()

    def build(retention: float) -> Evicting:
        return Evicting(budget, ranking, selection, retention)

    on = [n for n, used in (("TVB", tvb), ("TWR", twr), ("TPR", tpr)) if used]
    build.__doc__ = f"Ablation of TGV-KV: {' + '.join(on) or 'no part'} (Table 5)."
    return build


for _tvb in (False, True):
    for _twr in (False, True):
        for _tpr in (False, True):
            register(f"tvb{_tvb:d}-twr{_twr:d}-tpr{_tpr:d}")(_ablation(_tvb, _twr, _tpr))


@register("budget-uniform")
def budget_uniform(retention: float) -> Evicting:
    """Uniform budget under the TV+TT ranking (Table 1 a)."""
    return Evicting(Uniform(), CrossPlusText(), ByScore(), retention)


@register("budget-vv")
def budget_vv(retention: float) -> Evicting:
    """Budgets by vision-vision attention under the TV+TT ranking (Table 1 a)."""
    return Evicting(VisionVision(), CrossPlusText(), ByScore(), retention)


@register("budget-tt")
def budget_tt(retention: float) -> Evicting:
    """Budgets by text-text attention under the TV+TT ranking (Table 1 a)."""
    return Evicting(TextText(), CrossPlusText(), ByScore(), retention)


@register("budget-tv")
def budget_tv(retention: float) -> Evicting:
    """Budgets by text-vision attention under the TV+TT ranking (Table 1 a)."""
    return Evicting(TextVision(), CrossPlusText(), ByScore(), retention)


@register("rank-window")
def rank_window(retention: float) -> Evicting:
    """Ranking by an observation window under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), ObservationWindow(64), WindowFirst(64), retention)


@register("rank-self")
def rank_self(retention: float) -> Evicting:
    """Ranking by accumulated self-attention under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), SelfAttention(), ByScore(), retention)


@register("rank-vv-tt")
def rank_vv_tt(retention: float) -> Evicting:
    """Ranking by attention within each modality under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), VisionPlusText(), ByScore(), retention)


@register("rank-tv-tt")
def rank_tv_tt(retention: float) -> Evicting:
    """Ranking by attention from the question under a uniform budget (Table 1 b)."""
    return Evicting(Uniform(), CrossPlusText(), ByScore(), retention)


@register("evict-vision-first")
def evict_vision_first(retention: float) -> Evicting:
    """Vision leaves before text, at random within each (Table 1 c)."""
    return Evicting(Uniform(), Random(), TextFirst(), retention)


@register("evict-text-first")
def evict_text_first(retention: float) -> Evicting:
    """Text leaves before vision, at random within each (Table 1 c)."""
    return Evicting(Uniform(), Random(), VisionFirst(), retention)


@register("random")
def random(retention: float) -> Evicting:
    """A random subset of all entries (Rand in LightKV's tables)."""
    return Evicting(Uniform(), Random(), ByScore(), retention, protect_first=0, protect_last=0)


@register("random-vision")
def random_vision(retention: float) -> Evicting:
    """A random subset of the vision entries, all text kept (ImgRand in LightKV's tables)."""
    selection = VisionOnly(ratio_of="all")
    return Evicting(Uniform(), Random(), selection, retention, protect_first=0, protect_last=0)


@register("streamingllm")
def streamingllm(retention: float, sinks: int = 4) -> Evicting:
    """StreamingLLM: the first entries and the most recent ones, a sliding window in decode."""
    decode = HoldBudget("oldest", protect_first=sinks)
    return Evicting(Uniform(), Recency(), ByScore(), retention, decode=decode, protect_first=sinks)


@register("h2o")
def h2o(retention: float) -> Evicting:
    """H2O without a recent window, as TGV-KV compares it: accumulated attention alone."""
    decode = HoldBudget("score")
    return Evicting(Uniform(), SelfAttention(), ByScore(), retention, decode=decode)


@register("snapkv")
def snapkv(retention: float, window: int = 64) -> Evicting:
    """SnapKV: attention from the last queries, pooled; the window itself is kept."""
    return Evicting(Uniform(), ObservationWindow(window), WindowFirst(window), retention)


@register("key-norm")
def key_norm(retention: float) -> Evicting:
    """Keys of small norm are kept."""
    return Evicting(Uniform(), KeyNorm(), ByScore(), retention)
