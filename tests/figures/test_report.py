"""The report: one file with every artefact, verdicts first, nothing from outside."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from figures.artefacts import artefact, artefacts, ids
from figures.export import publish
from figures.report import write_report
from figures.runner import EXECUTED, MARKER, UNITS, Finished
from figures.style import canvas
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
    found = Page(page)
    inside = {link.removeprefix("#") for link in found.links if link.startswith("#")}
    assert inside <= found.anchors
    assert all(link.startswith(("#", "data:")) for link in found.links)
    assert not re.search(r"url\(|@import|<script|https?://", page)
    assert len(page) < 15e6


def test_every_artefact_is_there_with_its_claims(page: str) -> None:
    found, words = Page(page), html.unescape(page).replace("\u00a0", " ")
    assert set(ids()) <= found.anchors
    assert len(found.alts) == len(ids()) - 1
    assert all(found.alts)
    for one in artefacts():
        if one.id != "T-T4":
            assert all(words.count(claim.sentence) == 2 for claim in one.claims)


def test_verdicts_come_first(page: str) -> None:
    assert page.index("All verdicts") < page.index('id="contents"') < page.index('id="X-1"')
    assert "does not hold" in page
    assert "not testable here" in page


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
    assert "max-width: 40rem" in page


def test_without_results_everything_is_not_run(tmp_path: Path) -> None:
    text = write_report({}, tmp_path, results=tmp_path / "none").read_text(encoding="utf-8")
    assert text.count("Not run yet") == len(ids())
