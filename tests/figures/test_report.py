"""The report: one file with every artefact, verdicts first, nothing from outside."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from figures import entries
from figures.artefacts import artefact, artefacts, ids
from figures.entries import entry_of
from figures.export import publish
from figures.report import write_report
from figures.runner import EXECUTED, MARKER, UNITS, Finished
from figures.style import canvas
from figures.verdicts import Outcome
from tests.figures.frames import frame_of

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects headings, links and pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.alts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.links += [str(named[name]) for name in ("href", "src") if name in named]
        self.anchors |= {str(named["id"])} if "id" in named else set()
        if tag == "img":
            self.alts.append(named.get("alt") or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Complete units of every artefact but T-T4, made from constructed frames."""
    folder = tmp_path_factory.mktemp("results")
    for one in ids():
        if one == "T-T4":
            continue
        unit = folder / UNITS / f"{one}-0123"
        drawing, _ = canvas(height=0.5)
        settings = {"model": "embedded", "device": "cpu", "dtype": None, "seed": 0}
        frame = frame_of(artefact(one))
        publish(artefact(one), frame, unit, parameters=settings, drawing=drawing)
        (unit / EXECUTED).write_text("{}")
        done = {"name": one, "artefacts": [one], "seconds": 2.5, "finished": "2026-01-01T00:00:00"}
        (unit / MARKER).write_text(json.dumps(done))
    return folder


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report")
    failed = {"T-T4": Finished(results / UNITS / "speed-4567", 3.0, error="ValueError: <broken>")}
    path = write_report(failed, out, results=results, command="lightkv reproduce")
    assert path == out / "index.html"
    assert (out / "artefacts" / "T-T5" / "T-T5.pdf").is_file()
    assert (out / "notebooks" / "T-T5.ipynb").is_file()
    return path.read_text(encoding="utf-8")


def test_it_is_one_well_formed_file(page: str) -> None:
    parsed = Page(page)
    inside = {link.removeprefix("#") for link in parsed.links if link.startswith("#")}
    assert inside <= parsed.anchors
    beside = [link for link in parsed.links if not link.startswith(("#", "data:"))]
    assert all(
        re.fullmatch(r"verdicts\.csv|artefacts/[LTX]-[FT]?\d+/[\w.-]+", link) for link in beside
    )
    assert not re.search(r"url\(|@import|<script |https?://", page)
    assert len(page) < 15e6


def test_every_artefact_is_there_with_its_claims(page: str) -> None:
    parsed, words = Page(page), html.unescape(page).replace("\u00a0", " ")
    assert set(ids()) <= parsed.anchors
    assert len(parsed.alts) == len(ids()) - 1
    assert all(parsed.alts)
    for one in artefacts():
        if one.id != "T-T4":
            times = [2 + claim.main for claim in one.claims]
            assert [words.count(claim.sentence) for claim in one.claims] == times


def test_the_answer_comes_first_then_verdicts_by_paper_then_artefacts(page: str) -> None:
    places = [
        page.index(text)
        for text in (
            'id="answer"',
            'aria-label="LightKV"',
            'aria-label="TGV-KV"',
            'id="verdicts"',
            "<caption>LightKV</caption>",
            "<caption>TGV-KV</caption>",
            '<article class="artefact" id="L-F1"',
            '<article class="artefact" id="T-F1"',
            '<article class="artefact" id="X-1"',
        )
    ]
    assert places == sorted(places)
    answer = page[places[1] : places[2]]
    assert "claims judged on the embedded model" in answer
    numbers = re.findall(r"<strong>(\d+)</strong> (hold|holds|do not hold|does not hold)\b", answer)
    assert {words for _, words in numbers} >= {"do not hold"}
    assert all(
        (int(count) == 1) == (words in ("holds", "does not hold")) for count, words in numbers
    )
    assert "LightKV halves the KV cache of the vision tokens." in answer


def test_every_outcome_can_be_shown_alone_without_a_script(page: str) -> None:
    for outcome in Outcome:
        slug = outcome.value.replace(" ", "-")
        assert f'name="show" value="{slug}"' in page
        hidden = f'#verdicts:has(input[value="{slug}"]:checked) tbody tr:not(.{slug})'
        assert hidden in page
    assert 'class="search" hidden' in page, "search needs the script, which shows it"


def test_small_drawings_are_vectors_and_large_ones_pixels(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = Finished(results / UNITS / "T-T5-0123", 1.0)
    one = entry_of(artefact("T-T5"), finished)
    assert one.picture.startswith("data:image/svg+xml") and one.width > 700
    monkeypatch.setattr(entries, "SHARP", 10)
    monkeypatch.setattr(entries, "CARRIED", 10)
    large = entry_of(artefact("T-T5"), finished)
    assert large.picture.startswith("data:image/png")
    assert ("T-T5.csv", "artefacts/T-T5/plotted.csv") in large.downloads
    assert ("T-T5.png", "artefacts/T-T5/T-T5.png") in one.downloads


def judged(p: float | None, outcome: Outcome) -> dict[str, object]:
    words = dict.fromkeys(("sentence", "source", "reason", "rule"), f"of {p}")
    return {**words, "p": p, "outcome": outcome.value}


def test_a_verdict_stays_if_it_does_among_all_claims() -> None:
    first = (judged(0.01, Outcome.HOLDS), judged(0.02, Outcome.FAILS))
    second = (judged(0.8, Outcome.UNDECIDED), judged(None, Outcome.HOLDS))
    of = [
        entries.Entry(artefact(one), verdicts=claims)
        for one, claims in (("T-T5", first), ("T-T1", second))
    ]
    frame = entries.all_verdicts(entries.corrected(of))
    assert list(frame["artefact"]) == ["T-T5", "T-T5", "T-T1", "T-T1"]
    assert list(frame["p"])[:3] == [0.01, 0.02, 0.8] and frame["p"].isna()[3]
    assert list(frame["p_holm"])[:3] == pytest.approx([0.03, 0.04, 0.8])
    assert frame["p_holm"].isna()[3]
    assert list(frame["stays"])[:2] == [True, True] and frame["stays"].isna()[2:].all()
    # One more claim takes the second over the level: 2 * ALPHA.
    more = [*of, entries.Entry(artefact("T-T2"), verdicts=(judged(0.7, Outcome.UNDECIDED),))]
    assert list(entries.all_verdicts(entries.corrected(more))["stays"])[:2] == [True, False]


def test_every_claim_is_a_row_of_the_verdicts(results: Path, tmp_path: Path) -> None:
    write_report({}, tmp_path, results=results)
    frame = pd.read_csv(tmp_path / "verdicts.csv")
    made = [one for one in artefacts() if one.id != "T-T4"]
    claims = [(one.id, claim.sentence) for one in made for claim in one.claims]
    assert list(zip(frame["artefact"], frame["sentence"], strict=True)) == claims
    decided = frame["p"].notna() & frame["outcome"].isin([Outcome.HOLDS, Outcome.FAILS])
    assert (frame["stays"].notna() == decided).all()
    assert (frame["p_holm"] >= frame["p"])[frame["p"].notna()].all()


def test_a_failure_is_shown_and_escaped(page: str) -> None:
    assert "ValueError: &lt;broken&gt;" in page
    assert "could not be made" in page


def test_ours_stand_beside_the_papers(page: str) -> None:
    assert ">here (embedded model)</th>" in page
    assert ">paper (LLaVA-1.5-7B)</th>" in page


def test_run_record(page: str) -> None:
    record = page[page.index('id="run"') :]
    for name in (
        "command",
        "model",
        "seed",
        "code",
        "python",
        "torch",
        "cores",
        "lightkv reproduce",
    ):
        assert f">{name}<" in record
    assert "reused" in record and "failed" in record


def test_phone_and_dark(page: str) -> None:
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "max-width: 40rem" in page and "position: sticky" in page


def test_without_results_everything_is_not_run(tmp_path: Path) -> None:
    text = write_report({}, tmp_path, results=tmp_path / "none").read_text(encoding="utf-8")
    absent = [one for one in artefacts() if one.absent]
    assert text.count("Not run yet") == len(ids()) - len(absent)
    assert text.count("Missing: the weights of") == len(absent)
