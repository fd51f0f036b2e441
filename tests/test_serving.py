"""What methods ask of a server, found by running them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkv.catalogue import compressor
from lightkv.commands.listing import serving_table
from lightkv.contract.serving import FACTS, Serving, serving

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("h2o:retention=.2;decode=Grow", Serving(True, True, "all", "appends", False)),
        ("h2o:retention=.2", Serving(True, True, "all", "evicts by attention", False)),
        ("tgvkv:retention=.2", Serving(True, False, "question", "appends", False)),
        ("snapkv:retention=.2;window=7", Serving(True, True, "last 7", "appends", False)),
        ("snapkv:retention=.2;per_head=True", Serving(False, True, "last 64", "appends", False)),
        ("aircache:retention=.2", Serving(True, False, "some of the question", "appends", False)),
        ("budget-vv:retention=.2", Serving(True, False, "vision and question", "appends", False)),
        ("streamingllm-reindexed:retention=.2", Serving(True, True, "none", "evicts", True)),
        ("lightkv", Serving(True, True, "vision", "appends", False)),
        ("lightkv:guidance=size", Serving(True, True, "none", "appends", False)),
    ],
)
def test_what_a_method_asks_of_a_server(text: str, facts: Serving) -> None:
    assert serving(compressor(text, FACTS)) == facts


def test_the_page_shows_what_the_code_says() -> None:
    """``lightkv list serving`` prints the table that the page has to hold."""
    assert "\n".join(serving_table()) in PAGE.read_text(encoding="utf-8")
