"""The methods that TGV-KV and LightKV are compared with, each a composition in one line.

The first four and the last entry are protected in all of them, as TGV-KV compares them, unless the
method says otherwise; heads share their entries unless the method is about heads.
"""

from __future__ import annotations

from dataclasses import replace

from lightkv.eviction.adaptive import (
    CumulativeMass,
    EntropyVariance,
    Profile,
    Pyramid,
    PyramidForm,
    StrengthSkewness,
)
from lightkv.eviction.elites import EliteText
from lightkv.eviction.evictor import Evicting
from lightkv.eviction.parts.anchors import NearestAnchor, PivotMerge
from lightkv.eviction.parts.budgets import Uniform
from lightkv.eviction.parts.decoding import FixedSlot, HoldBudget
from lightkv.eviction.parts.heads import AcrossHeads
from lightkv.eviction.parts.rankings import (
    KeyNorm,
    ObservationWindow,
    Pooling,
    Random,
    Recency,
    SelfAttention,
)
from lightkv.eviction.parts.selections import (
    BudgetLeWindow,
    ByScore,
    TextFirst,
    VisionOnly,
    WindowFirst,
    WithRecent,
)
from lightkv.eviction.parts.windows import WindowIndicator
from lightkv.eviction.registry import register
from lightkv.eviction.released import SortedIndexAsRank


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
def streamingllm(retention: float, sinks: int = 4, capacity: int | None = None) -> Evicting:
    """StreamingLLM: the first entries and the most recent ones, a sliding window in decode."""
    decode = HoldBudget("oldest", protect_first=sinks, capacity=capacity)
    return Evicting(Uniform(), Recency(), ByScore(), retention, decode=decode, protect_first=sinks)


@register("streamingllm-reindexed")
def streamingllm_reindexed(
    retention: float, sinks: int = 4, capacity: int | None = None
) -> Evicting:
    """StreamingLLM as its own code runs it: entries sit at their place in the cache."""
    return replace(streamingllm(retention, sinks, capacity), positions="reindex")


@register("h2o")
def h2o(retention: float, per_head: bool = False) -> Evicting:
    """H2O without a recent window, as TGV-KV compares it: accumulated attention alone."""
    decode = HoldBudget("score")
    return Evicting(Uniform(), SelfAttention(per_head), ByScore(), retention, decode=decode)


@register("h2o-recent")
def h2o_recent(retention: float, per_head: bool = False) -> Evicting:
    """H2O: half of the budget for accumulated attention, half for the most recent entries."""
    decode = HoldBudget("score", protect_first=0, recent_share=0.5)
    selection = WithRecent(ByScore(), 0.5)
    return Evicting(
        Uniform(), SelfAttention(per_head), selection, retention, decode=decode, protect_first=0
    )


@register("snapkv")
def snapkv(
    retention: float,
    window: int = 64,
    kernel: int = 5,
    pooling: Pooling = "avg",
    per_head: bool = False,
    budget_le_window: BudgetLeWindow = "truncate_window",
) -> Evicting:
    """SnapKV: attention from the last queries, pooled; the window itself is kept."""
    ranking = ObservationWindow(window, kernel, pooling, per_head)
    return Evicting(Uniform(), ranking, WindowFirst(window, budget_le_window), retention)


@register("snapkv-window-only")
def snapkv_window_only(retention: float, window: int = 64) -> Evicting:
    """SnapKV that keeps its whole window even beyond the budget, and nothing else for sure."""
    ranking, selection = ObservationWindow(window), WindowFirst(window, "window_only")
    return Evicting(Uniform(), ranking, selection, retention, protect_first=0, protect_last=0)


@register("pyramidkv")
def pyramidkv(
    retention: float, window: int = 64, beta: float = 20.0, form: PyramidForm = "linear"
) -> Evicting:
    """PyramidKV: SnapKV with budgets that fall with depth."""
    budget = Pyramid(beta, window, form)
    return Evicting(budget, ObservationWindow(window), WindowFirst(window), retention)


@register("prefixkv")
def prefixkv(retention: float, shares: tuple[float, ...] | None = None) -> Evicting:
    """PrefixKV: each layer keeps the same share of its attention mass; online, or by a profile."""
    budget = CumulativeMass() if shares is None else Profile(shares)
    return Evicting(budget, SelfAttention(), ByScore(), retention, decode=FixedSlot())


@register("elasticcache")
def elasticcache(retention: float) -> Evicting:
    """ElasticCache: evicted entries are averaged into the nearest kept one."""
    return Evicting(
        Uniform(),
        SelfAttention(),
        ByScore(),
        retention,
        decode=FixedSlot(),
        merge=NearestAnchor(),
        protect_first=0,
        protect_last=0,
    )


@register("elasticcache-released")
def elasticcache_released(retention: float) -> Evicting:
    """ElasticCache as released: what is kept has little to do with the scores."""
    return Evicting(
        Uniform(),
        SelfAttention(),
        SortedIndexAsRank(),
        retention,
        decode=FixedSlot(),
        merge=NearestAnchor(spare_protected=True, lost_offset=1),
        protect_first=1,
    )


@register("aircache")
def aircache(retention: float, alpha: float = 0.9) -> Evicting:
    """AirCache: vision entries by key text tokens; the ratio counts vision entries."""
    return Evicting(StrengthSkewness(), EliteText(alpha), VisionOnly(), retention)


@register("look-m")
def look_m(retention: float, recent: float = 0.5, keep_all_text: bool = False) -> Evicting:
    """LOOK-M: text first, a recent window, the rest merged into kept entries by likeness."""
    rule = VisionOnly(ratio_of="all") if keep_all_text else TextFirst()
    selection = WithRecent(rule, recent)
    ranking = SelfAttention(per_head=True)
    return Evicting(Uniform(), ranking, selection, retention, merge=PivotMerge())


@register("cake")
def cake(
    retention: float, window: int = 32, gamma: float = 200.0, tau1: float = 1.0, tau2: float = 1.0
) -> Evicting:
    """CAKE: budgets by entropy and variance of attention, entries by mean and variance."""
    budget, ranking = EntropyVariance(window, tau1, tau2), WindowIndicator(window, gamma)
    decode = HoldBudget("attention", recent=window)
    return Evicting(budget, ranking, WindowFirst(window), retention, decode=decode)


@register("ada-kv")
def ada_kv(retention: float, window: int = 32, floor: float = 0.2) -> Evicting:
    """Ada-KV: SnapKV's scores, with the heads of a layer competing for its budget."""
    ranking = ObservationWindow(window, 7, "max", per_head=True)
    return Evicting(Uniform(), ranking, AcrossHeads(window, floor), retention)


@register("key-norm")
def key_norm(retention: float) -> Evicting:
    """Keys of small norm are kept."""
    return Evicting(Uniform(), KeyNorm(), ByScore(), retention)
