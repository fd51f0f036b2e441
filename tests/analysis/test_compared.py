"""Tables of methods: which settings stand for a share, and what the studies ask."""

from __future__ import annotations

from typing import Any

import pytest

from analysis import studies
from analysis.scoring.captions import CAPTION_METRICS, caption_scores
from analysis.studies import compared, shares
from lightkv import LightKV
from lightkv.contract.compressor import Compressor
from lightkv.cost.presets import MergeSchedule
from lightkv.cost.token_counts import token_layer_fraction
from lightkv.errors import InvalidValueError, ModelError
from lightkv.pruning.cdpruner import CDPruner
from tests.analysis.fake import FakeVLM
from tests.analysis.test_studies import asked


def of(name: str, share: float = 0.55, depth: int = 8) -> Any:
    return shares.at_token_share(name, share, depth)


def test_mergers_have_lightkvs_stages() -> None:
    light, tome = of("lightkv"), of("tome")
    assert light.layers == tome.layers == (2, 4, 5) and light.windows == (4, 2, 1)
    assert light.ratios == tome.ratios == (0.5, 0.5, 0.5)
    lower = of("lightkv", 0.4)
    assert lower.layers == of("pitome", 0.4).layers == of("tofu", 0.4).layers != light.layers


@pytest.mark.parametrize("share", [0.55, 0.4, 0.3])
def test_fastv_processes_the_share(share: float) -> None:
    fastv = of("fastv", share)
    # Layers 0 .. K - 1 see everything.
    schedule = MergeSchedule((fastv.layer,), (1,), (fastv.removed,))
    assert token_layer_fraction(8, schedule) == pytest.approx(share, abs=1e-4)
    assert fastv.layer == 1 and of("fastv", 0.55, 32).layer == 2


def test_others_keep_the_share() -> None:
    assert of("hired").kept == 0.55
    assert of("tome-cache").ratio == 0.45 and of("tome-cache", 0.3).ratio == 0.5
    assert of("random", 0.3).retention == 0.3


def test_what_a_shallow_model_cannot_reach_is_left_out() -> None:
    assert not shares.reachable("lightkv", 0.2, 8) and shares.reachable("lightkv", 0.2, 32)
    assert shares.reachable("fastv", 0.2, 8)
    frame, _ = asked(studies.prefill_methods, methods=("lightkv", "fastv"), shares=(0.3, 0.2))
    cells = frame.drop_duplicates("method")[["compared", "share"]].to_numpy().tolist()
    assert cells == [["vanilla", 1.0], ["lightkv", 0.3], ["fastv", 0.3], ["fastv", 0.2]]


def test_pruners_leave_the_share_of_the_tokens() -> None:
    assert shares.pruned("divprune", 1 / 9, 256) == of_name("divprune", kept=1 / 9)
    assert shares.pruned("vispruner", 1 / 9, 256) == of_name("vispruner", tokens=28)
    # As published 54 to 10; at least one is merged.
    zipped: Any = shares.pruned("visionzip", 0.25, 256)
    assert (zipped.dominant, zipped.contextual) == (54, 10)
    least: Any = shares.pruned("visionzip", 0.0125, 160)
    assert (least.dominant, least.contextual) == (1, 1)


def of_name(name: str, **options: Any) -> Compressor:
    from lightkv.catalogue import method

    return method(name, **options)


def test_costs_of_the_papers_models() -> None:
    flops, memory = shares.method_cost("llava-1.5-13b", "vanilla", 1.0) or (0, 0)
    assert (round(flops, 1), round(memory, 2)) == (19.4, 0.55)
    _, half = shares.method_cost("llava-1.5-13b", "random", 0.5) or (0, 0)
    assert half < 0.6 * memory
    light, merged = shares.method_cost("llava-1.5-13b", "lightkv", 0.55) or (0, 0)
    assert light < flops and round(merged, 2) == 0.37
    early, _ = shares.method_cost("llava-1.5-13b", "lightkv", 0.4) or (0, 0)
    assert early < light
    fewer, _ = shares.method_cost("llava-1.5-13b", "hired", 0.55) or (0, 0)
    dropped, _ = shares.method_cost("llava-1.5-13b", "fastv", 0.55) or (0, 0)
    assert fewer < flops and dropped < flops
    assert shares.method_cost("no-such-model", "vanilla", 1.0) is None


def test_evictors_at_every_budget() -> None:
    frame, vlm = asked(studies.evictors_compared)
    cells = frame.drop_duplicates("method")
    assert cells["compared"].tolist() == ["vanilla", *compared.EVICTORS * 4]
    assert cells["retention"].unique().tolist() == [1.0, 0.5, 0.2, 0.1, 0.05]
    assert vlm.asked == 2 * 25


def test_window_schedules_at_the_papers_layers() -> None:
    frame, vlm = asked(studies.window_schedules, windows=((4, 2, 1), (2, 2, 1)))
    assert frame["windows"].unique().tolist() == ["", "4,2,1", "2,2,1"]
    assert studies.study("window_schedules").parameters["windows"] == ((4, 2, 1), (6, 4, 2))
    assert vlm.asked == 6


def test_pruning_and_eviction_at_equal_size() -> None:
    frame, _ = asked(studies.pruning_against_eviction, kept=(288,))
    cells = frame.drop_duplicates("method")[["compared", "kept"]].to_numpy().tolist()
    assert cells == [["vanilla", 576]] + [[name, 288] for name in (*compared.PRUNERS, "tgvkv")]


def test_a_pruner_that_the_model_refuses_is_left_out() -> None:
    def say(request: Any, compressor: Compressor | None) -> str:
        if compressor is not None and isinstance(compressor, CDPruner):
            raise ModelError("no text tower")
        return "yes"

    frame = studies.pruning_against_eviction(
        FakeVLM(say), tasks=("embedded/exist",), kept=(288,), samples=2, progress=False
    )
    assert sorted(frame["compared"].unique()) == sorted(
        {"vanilla", "tgvkv", *compared.PRUNERS} - {"cdpruner"}
    )


def test_an_unreachable_share_names_the_least() -> None:
    with pytest.raises(InvalidValueError, match=r"is 0\.2; allowed: at least 0\.297 with 8"):
        of("lightkv", 0.2)
    assert isinstance(of("lightkv", 0.3), LightKV)


def test_caption_scores() -> None:
    texts = ["a red ring on the left", "two blue squares below a star", "a green cross"]
    perfect = caption_scores(texts, [[text] for text in texts])
    assert tuple(perfect) == CAPTION_METRICS
    assert all(perfect[name] == pytest.approx(1) for name in ("bleu1", "bleu3", "rouge_l"))
    # BLEU-1 of a corpus: three of four words and one of one are right, not the mean of both.
    mixed = caption_scores(["a b c x", "d"], [["a b c y"], ["d"]])
    assert mixed["bleu1"] == pytest.approx(4 / 5)
    # Shorter than the closest reference: brevity penalty of 2 words against 4.
    short = caption_scores(["a b", "c d"], [["a b c d"], ["c d"]])
    assert short["bleu1"] == pytest.approx(2.718281828 ** (1 - 6 / 4), abs=1e-6)
    # ROUGE-L with beta 1.2: half of the reference, all of the answer.
    assert caption_scores(["A b!"], [["a b c d"]])["rouge_l"] == pytest.approx(2.44 * 0.5 / 1.94)
