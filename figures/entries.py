"""What the report shows of each artefact, and what it says of each paper as a whole."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analysis.scoring.multiplicity import holm
from figures.contract import PAPERS, Artefact
from figures.export import PLOTTED, RECORD, TABLE
from figures.runner import Finished
from figures.tables import read, to_html
from figures.verdicts import ALPHA, Outcome

if TYPE_CHECKING:
    import pandas as pd

NOT_RUN: Final = "not run"
DONE: Final = "done"
FAILED: Final = "failed"
MISSING: Final = "not made here"

SHARP: Final = 350_000
"""Bytes up to which a drawing is shown as vectors; maps of thousands of cells go as pixels."""

CARRIED: Final = 200_000
"""Bytes up to which a file is part of the page; larger ones lie beside it."""

FOLDER: Final = "artefacts"
"""Folder beside the page that holds every artefact's files."""

_WORDS: Final = {
    "L": "LightKV merges vision tokens while the prompt is read.",
    "T": "TGV-KV evicts cache entries after the prompt was read.",
    "X": "Our own questions, across both papers.",
}


@dataclass(frozen=True)
class Entry:
    """One artefact as the template shows it; empty where it has not been made."""

    artefact: Artefact
    state: str = NOT_RUN
    error: str = ""
    picture: str = ""
    width: int = 0
    height: int = 0
    downloads: tuple[tuple[str, str], ...] = ()
    verdicts: tuple[dict[str, Any], ...] = ()
    table: str = ""
    parameters: str = ""
    rows: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Id of the artefact."""
        return self.artefact.id

    def __getattr__(self, name: str) -> Any:
        """Title, source and the like come from the artefact."""
        return getattr(self.artefact, name)


@dataclass(frozen=True)
class Paper:
    """What the first screen says of one paper.

    Attributes:
        letter: First letter of its artefacts' ids.
        name: The paper.
        words: What it is about.
        entries: Its artefacts.
        counts: Outcomes of all its claims, those that occur, with how many.
        main: Id and verdict of the claims that it rests on.
    """

    letter: str
    name: str
    words: str
    entries: tuple[Entry, ...]
    counts: tuple[tuple[str, int], ...]
    main: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def claims(self) -> int:
        """How many claims were judged."""
        return sum(count for _, count in self.counts)

    @property
    def made(self) -> int:
        """How many of its artefacts were made."""
        return sum(entry.state == DONE for entry in self.entries)


def papers(entries: Sequence[Entry]) -> list[Paper]:
    """The artefacts by paper, with what is to be said of each as a whole."""
    listed = []
    for letter, name in PAPERS.items():
        of_paper = tuple(entry for entry in entries if entry.id.startswith(letter))
        counts = Counter(one["outcome"] for entry in of_paper for one in entry.verdicts)
        main = tuple((e.id, one) for e in of_paper for one in e.verdicts if one.get("main"))
        occurring = tuple((o.value, counts[o.value]) for o in Outcome if counts[o.value])
        if of_paper:
            title = name if letter != "X" else "Across both papers"
            listed.append(Paper(letter, title, _WORDS[letter], of_paper, occurring, main))
    return listed


def corrected(entries: Sequence[Entry]) -> list[Entry]:
    """Entries whose verdicts also say whether they stay after Holm's correction over all claims.

    Each verdict gets ``p`` (two-sided), ``p_holm`` and ``stays``; all None where a claim needs no
    statistics, and ``stays`` where nothing is decided.
    """
    verdicts = [one for entry in entries for one in entry.verdicts]
    tested = [one for one in verdicts if one.get("p") is not None]
    adjusted = holm([one["p"] for one in tested])
    by_claim = {id(one): p for one, p in zip(tested, adjusted, strict=True)}

    def marked(one: dict[str, Any]) -> dict[str, Any]:
        p = by_claim.get(id(one))
        decided = one["outcome"] in (Outcome.HOLDS.value, Outcome.FAILS.value)
        stays = p <= 2 * ALPHA if p is not None and decided else None
        return {**one, "p": one.get("p"), "p_holm": p, "stays": stays}

    return [
        dataclasses.replace(entry, verdicts=tuple(marked(one) for one in entry.verdicts))
        for entry in entries
    ]


def all_verdicts(entries: Sequence[Entry]) -> pd.DataFrame:
    """Every claim with its verdict, one row each."""
    import pandas as pd

    columns = ("sentence", "source", "outcome", "p", "p_holm", "stays", "reason", "rule")
    rows = [
        {"artefact": entry.id, **{name: one[name] for name in columns}}
        for entry in entries
        for one in entry.verdicts
    ]
    return pd.DataFrame(rows, columns=["artefact", *columns])


def entry_of(artefact: Artefact, finished: Finished | None) -> Entry:
    """What was made of an artefact, from its files."""
    if finished is None:
        return Entry(artefact, MISSING if artefact.absent else NOT_RUN)
    folder = finished.folder / artefact.id
    if not (folder / RECORD).is_file():
        return Entry(artefact, FAILED, error=finished.error or f"{folder} is not there")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    png = (folder / f"{artefact.id}.png").read_bytes()
    svg = (folder / f"{artefact.id}.svg").read_bytes()
    sharp = len(svg) <= SHARP
    return Entry(
        artefact,
        DONE,
        picture=data_uri(svg, "image/svg+xml") if sharp else data_uri(png, "image/png"),
        width=int.from_bytes(png[16:20], "big") // 2,
        height=int.from_bytes(png[20:24], "big") // 2,
        downloads=_downloads(artefact, folder),
        verdicts=tuple(record["verdicts"]),
        table=to_html(read(folder / TABLE), f"{artefact.id}: ours beside the paper's"),
        parameters=json.dumps(record["parameters"], indent=2),
        rows=record.get("rows", {}),
        record=record["provenance"],
    )


def _downloads(artefact: Artefact, folder: Path) -> tuple[tuple[str, str], ...]:
    """Files to take along: in the page where they are small, so that it stays one file."""
    kinds = {"pdf": "application/pdf", "png": "image/png", "csv": "text/csv"}
    links = []
    for kind, mime in kinds.items():
        name = PLOTTED if kind == "csv" else f"{artefact.id}.{kind}"
        content = (folder / name).read_bytes()
        beside = f"{FOLDER}/{artefact.id}/{name}"
        carried = kind != "png" and len(content) <= CARRIED
        links.append((f"{artefact.id}.{kind}", data_uri(content, mime) if carried else beside))
    return tuple(links)


def data_uri(content: bytes, kind: str) -> str:
    """A file as a link that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
