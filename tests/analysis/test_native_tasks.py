"""The questions of the native-resolution model as tasks, asked of one with random weights."""

from __future__ import annotations

import pytest

from analysis.asking.evaluation import evaluate
from analysis.probing.grounding import grid_numbers, grounding
from analysis.studies.probing import ask
from analysis.tasks import task
from analysis.tasks.native import NativeKind
from lightkv import TGVKV, VLM, LightKV
from lightkv.catalogue import resolved
from lightkv.contract.compressor import Compressor
from lightkv.embedded.qwen.items import KINDS, native_items, sort_of
from lightkv.embedded.vocabulary import CODE_WORDS, TOKEN
from lightkv.errors import InputError, InvalidValueError, UnknownNameError
from lightkv.prompting import SECOND_TURN
from lightkv.protocols import PROTOCOLS
from tests.closeness import assert_close
from tests.tiny import tiny_qwen

VIDEO = ("order", "moves", "changes")
NEW = ("legend", "order", "moves", "changes", "compare")


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_qwen()


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_the_held_out_ones_and_answers_fit(kind: str) -> None:
    named = task(f"embedded-qwen:{kind}")
    assert named.name == f"embedded-qwen/{kind}"
    assert named.metric == ("coco_rouge_l" if kind == "caption" else "exact")
    asked, wanted = named.items(12, seed=3), native_items(kind, 12, seed=3)
    for item, source in zip(asked, wanted, strict=True):
        assert (item.question, item.answers) == (source.question, (source.answer,))
        assert (item.identity, item.cells) == (f"3/{source.index}", source.cells)
        assert item.images == source.images
        assert item.videos == ((source.frames,) if sort_of(kind) == "video" else ())
        # One word is one token, and the end of the answer takes another.
        assert len(source.answer.split()) < named.max_new_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_facts_say_how_long_and_how_led_a_question_is(vlm: VLM, kind: str) -> None:
    tokenizer = vlm.processor.tokenizer
    asked, wanted = task(f"embedded-qwen:{kind}").items(40, seed=3), native_items(kind, 40, seed=3)
    for item, source in zip(asked, wanted, strict=True):
        assert item.facts["tokens"] == len(tokenizer.tokenize(item.question))
        led = {} if kind not in VIDEO else {"hint": source.hint, "paraphrased": source.paraphrased}
        assert {name: item.facts[name] for name in item.facts if name != "tokens"} == led
    if kind in VIDEO:
        assert {item.facts["hint"] for item in asked} == {"none", "right", "wrong"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_earlier_question_is_another_that_can_be_asked_alone(kind: str) -> None:
    for item in native_items(kind, 12):
        assert item.earlier and item.earlier not in item.question
        assert all(word in TOKEN for word in item.earlier.split())
        assert not {"hint", "someone", "maybe", *CODE_WORDS} & set(item.earlier.split())
    turn = task(f"embedded-qwen:{kind}").items(1, 0)[0].request(SECOND_TURN)
    assert turn.history == ((native_items(kind, 1)[0].earlier, ""),)


def test_wrong_names_and_counts_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="order"):
        task("embedded-qwen:ordr")
    with pytest.raises(UnknownNameError, match=r"question kind of embedded-qwen:KIND"):
        task("embedded-qwen")
    for samples in (0, None):
        with pytest.raises(InvalidValueError, match="samples"):
            task("embedded-qwen:order").items(samples, 0)


def test_new_kinds_are_evaluated_under_every_protocol(vlm: VLM) -> None:
    frame = evaluate(
        vlm,
        [NativeKind(kind) for kind in NEW],
        {"full": None, "SnapKV": resolved("snapkv:retention=0.5", vlm.facts)},
        protocols=tuple(PROTOCOLS),
        samples=1,
        progress=False,
    )
    assert len(frame) == len(NEW) * 2 * len(PROTOCOLS)
    assert set(frame["task"]) == {f"embedded-qwen/{kind}" for kind in NEW}
    assert frame[frame["method"] == "SnapKV"]["achieved_retention"].between(0.48, 0.52).all()
    videos = frame["task"].isin([f"embedded-qwen/{kind}" for kind in VIDEO])
    assert (frame["fact_hint"].notna() == videos).all() and frame["fact_tokens"].notna().all()


@pytest.mark.parametrize(
    "method", [LightKV((0, 1), (2, 1), (0.5, 0.5)), TGVKV(retention=0.5)], ids=["merge", "evict"]
)
def test_both_papers_methods_read_videos_and_pairs(vlm: VLM, method: Compressor) -> None:
    tasks = [NativeKind("order"), NativeKind("compare")]
    frame = evaluate(vlm, tasks, {"it": method}, samples=2, progress=False)
    assert len(frame) == 4 and (frame["achieved_retention"] < 1).all()


def test_cells_lie_on_the_grids_of_the_prompt(vlm: VLM) -> None:
    for kind in ("compare", "moves", "legend"):
        item = next(i for i in NativeKind(kind).items(8, 0) if i.cells)
        layout = vlm.layout(vlm.encode([item.request()]))
        grids = grid_numbers(layout.image[0].numpy(), layout.frame[0].numpy()).tolist()
        places = set(zip(grids, layout.row[0].tolist(), layout.col[0].tolist(), strict=True))
        assert item.cells <= places


@pytest.mark.parametrize("kind", ["compare", "moves"])
def test_grounding_looks_at_the_cells_of_every_picture_and_step(vlm: VLM, kind: str) -> None:
    (asked,) = ask([f"embedded-qwen:{kind}"], 4, 0)
    data = asked.probe(vlm, "column_sum", [1])
    even = data["column_sum"].sel(source="text") * 0 + 1
    frame = grounding(even, data, [item.cells for item in asked.items])
    for sample, share in zip(frame["sample"], frame["share"], strict=True):
        vision = int((data.key_kind.values[int(sample)] == "vision").sum())
        assert share == pytest.approx(len(asked.items[int(sample)].cells) / vision)
    assert (frame["auc"] == 0.5).all()
    assert_close(frame["chance"], frame["share"])


def test_items_without_cells_can_not_be_grounded(vlm: VLM) -> None:
    (asked,) = ask(["embedded-qwen:color"], 1, 0)
    data = asked.probe(vlm, "column_sum", [1])
    with pytest.raises(InputError, match="no question is about known cells"):
        grounding(data["column_sum"].sel(source="text"), data, [frozenset()])
