"""Answers and records are printed in a few lines, and as tables in notebooks."""

from __future__ import annotations

from typing import Any

import pytest

from lightkv import TGVKV, VLM, LightKV, Request
from lightkv.answers import Answer
from lightkv.embedded import items
from lightkv.engine.printing import RUNS, WIDTH
from lightkv.engine.record import RunRecord

ITEM = items("read", 1)[0]
REQUEST = Request((ITEM.image,), ITEM.question)


def asked(vlm: VLM, method: Any) -> Answer:
    return vlm.ask(ITEM.image, ITEM.question, method)


def lines(record: RunRecord) -> dict[str, str]:
    """What stands after each name."""
    named: dict[str, str] = {}
    for line in repr(record).splitlines():
        assert len(line) <= WIDTH
        start, rest = line[:10].strip(), line[11:].strip()
        if start:
            named[start] = rest
        else:
            named[list(named)[-1]] += f" {rest}"
    return named


def test_the_full_cache_in_five_lines(embedded: VLM) -> None:
    answer = asked(embedded, None)
    assert str(answer) == repr(answer) == f"answer     {answer.text!r}\n{answer.record}"
    size = f"{answer.record.kv_bytes:,}"
    assert lines(answer.record) == {
        "method": "none",
        "held": f"100.0% of the full cache, {size} of {size} bytes",
        "prompt": "274 tokens: 10 system, 256 vision, 8 text",
        "processed": "274 in layers 0 to 7",
        "entries": "274 in layers 0 to 7",
    }


def test_shares_and_layers_of_a_composition(embedded: VLM) -> None:
    method = LightKV((1, 3, 5), (4, 2, 1), (0.5, 0.5, 0.5)) | TGVKV(retention=0.5)
    record = asked(embedded, method).record
    named = lines(record)
    assert named["method"] == str(method)
    held = f"{record.achieved_retention:.1%} of the full cache (50.0% of the entries asked for)"
    assert named["held"].startswith(held)
    stretches = (
        "274 in layers 0 to 1, 146 in layers 2 to 3, 82 in layers 4 to 5, 50 in layers 6 to 7"
    )
    assert named["processed"] == stretches and stretches.count("in") == RUNS
    entries = " ".join(f"{layer.entries:g}" for layer in record.layers)
    assert named["entries"] == f"{entries} in layers 0 to 7"


def test_a_table_counts_entries_by_kind(embedded: VLM) -> None:
    record = asked(embedded, "tgvkv:retention=0.2").record
    table = record.table()
    kinds = ["system", "vision", "text"]
    assert list(table.columns) == ["processed", "entries", *kinds, "asked for"]
    assert table.index.tolist() == list(range(8)) and (table["text"] == 8).all()
    assert (table[kinds].sum(axis=1) == table["entries"]).all()
    layer = record.layers[3]
    vision = int(record.layout.vision[0][layer.kept].sum())
    assert table["vision"][3] == vision and table["asked for"][3] == layer.requested
    assert repr(layer) == f"LayerRecord(layer 3: 274 processed, {layer.entries:g} entries)"


def test_heads_that_differ_count_on_average(embedded: VLM) -> None:
    record = asked(embedded, "ada-kv:retention=0.3").record
    table = record.table()
    assert table["entries"].tolist() == [layer.entries for layer in record.layers]
    assert table[["system", "vision", "text"]].sum(axis=1).tolist() == pytest.approx(
        table["entries"].tolist()
    )
    assert "bytes of padding hide" in lines(record)["note"]


def test_a_notebook_shows_a_table(embedded: VLM) -> None:
    answer = asked(embedded, "tgvkv:retention=0.2")
    page = answer._repr_html_()
    assert page.startswith(f"<p>{answer.text}</p>") and page.count("<tr") == 10
    head = page[page.index("<pre>") : page.index("</pre>")]
    assert "20.0% of the full cache" in head and "processed" not in head
    assert "&#x27;question&#x27;" in head


def test_records_of_a_batch_follow_each_other(embedded: VLM) -> None:
    generation = embedded.generate(
        embedded.encode([REQUEST, REQUEST]), max_new_tokens=1, do_sample=False
    )
    one, two = generation.records
    assert repr(generation.records) == f"{one}\n\n{two}"
