"""The report: one HTML file with pictures, tables, verdicts and the run record, for any screen."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

from analysis.outputs import replacing, write_text
from figures.artefacts import artefacts
from figures.entries import FOLDER, Entry, all_verdicts, corrected, entry_of, papers
from figures.export import write_frame
from figures.models import EMBEDDED, ENCODER_FREE, NATIVE
from figures.origin import NONE_SHIP, replayed
from figures.runner import EXECUTED, Finished, complete_units, marker
from figures.verdicts import Outcome

TITLE: Final = "Do they hold up?"
VERDICTS: Final = "verdicts.csv"
"""Every claim with its verdict, beside the page."""

_WORDS: Final = {
    EMBEDDED: "the embedded model",
    NATIVE: "the embedded Qwen3-VL",
    ENCODER_FREE: "the embedded Fuyu",
}
"""How models are called."""

LEAD: Final = (
    "Figures and tables of LightKV (arXiv 2605.00789) and TGV-KV (arXiv 2606.03075), two ways to "
    "hold less of a vision-language model's KV cache, made again with the numbers printed there "
    "beside ours. Model and questions are others than the papers': compare orderings and shapes, "
    "not heights."
)


def write_report(
    made: Mapping[str, Finished],
    out: str | Path,
    *,
    results: str | Path | None = None,
    command: str = "",
) -> Path:
    """Write ``index.html`` with every artefact, ``verdicts.csv``, and all files beside it.

    Args:
        made: What was made just now, by artefact id. Artefacts that are not in it are taken from
            the latest complete run in ``results``, or are shown as not run.
        out: Folder of the report.
        results: Folder of all results.
        command: What the user typed.

    Raises:
        StoreError: It can't be written.
    """
    folder = Path(out)
    done = {**_earlier(results), **made}
    entries = corrected([entry_of(one, done.get(one.id)) for one in artefacts()])
    verdicts = all_verdicts(entries)
    write_frame(folder / VERDICTS, verdicts)
    for entry in entries:
        if entry.picture:
            _copy(done[entry.id].folder / entry.id, folder / FOLDER / entry.id)
    page = _template().render(
        title=TITLE,
        lead=LEAD,
        css=_read("report.css"),
        script=_read("report.js"),
        entries=entries,
        papers=papers(entries),
        outcomes=[outcome.value for outcome in Outcome],
        tested=int(verdicts["p"].notna().sum()),
        all_verdicts=VERDICTS,
        models=_models(entries),
        replayed=replayed(entry.rows for entry in entries),
        asked_here=_asked_here(entries),
        record=_run_record(entries, command),
        runs=_runs(done),
    )
    path = folder / "index.html"
    write_text(path, page)
    for finished in {f.folder: f for f in done.values() if f.error is None}.values():
        source = finished.folder / EXECUTED
        if source.is_file():
            name = str((marker(finished.folder) or {})["name"])
            _copy_file(source, folder / "notebooks" / f"{name}.ipynb")
    return path


def _earlier(results: str | Path | None) -> dict[str, Finished]:
    """The latest complete run of each artefact."""
    earlier: dict[str, Finished] = {}
    for folder in complete_units(results) if results is not None else []:
        done = marker(folder) or {}
        for one in done.get("artefacts", ()):
            earlier[one] = Finished(folder, float(done["seconds"]), reused=True)
    return earlier


def _models(entries: Sequence[Entry]) -> str:
    """Which models were asked, in words."""
    asked = (json.loads(entry.parameters).get("model") for entry in entries if entry.parameters)
    names = sorted({name for several in asked if several for name in str(several).split(", ")})
    return " and ".join(_WORDS.get(name, name) for name in names)


def _asked_here(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Artefacts that rows were to ship for and are not made of them, with the reason."""
    reasons = [(entry.id, str(entry.rows.get("why", ""))) for entry in entries]
    return [(one, why) for one, why in reasons if why not in ("", NONE_SHIP)]


def _run_record(entries: Sequence[Entry], command: str) -> list[tuple[str, str]]:
    """What all artefacts share, and what they differ in, spelled out."""
    records = [entry for entry in entries if entry.record]
    rows = [("command", command)] if command else []
    parameters = [json.loads(entry.parameters) for entry in records]
    for name in ("model", "device", "dtype", "seed"):
        values = {str(options[name]) for options in parameters if options.get(name) is not None}
        if values:
            rows.append((name, ", ".join(sorted(values))))
    rows.append(("code", ", ".join(sorted({entry.record["code"] for entry in records}))))
    for group in ("hardware", "versions"):
        merged: dict[str, set[str]] = {}
        for entry in records:
            for name, value in entry.record[group].items():
                merged.setdefault(name, set()).add(str(value))
        rows += [(name, ", ".join(sorted(values))) for name, values in merged.items()]
    times = sorted(entry.record["time"] for entry in records)
    return [*rows, ("results from", f"{times[0]} to {times[-1]}")] if times else rows


def _runs(finished: Mapping[str, Finished]) -> list[dict[str, str]]:
    """One row per notebook: how long it ran, and whether it ran this time."""
    rows = []
    for folder, run in {f.folder: f for f in finished.values()}.items():
        done = marker(folder) or {}
        rows.append(
            {
                "notebook": folder.name.rpartition("-")[0],
                "artefacts": ", ".join(one for one, f in finished.items() if f.folder == folder),
                "seconds": f"{run.seconds:.1f}",
                "finished": str(done.get("finished", "–")),
                "state": "failed" if run.error else "reused" if run.reused else "run",
            }
        )
    return rows


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )
    environment.filters["slug"] = lambda text: str(text).replace(" ", "-")
    return environment.from_string(_read("report.html.jinja"))


def _unbroken(value: Any) -> Any:
    """Text with "5 %" held together; anything else as it is."""
    return re.sub(r"(\d) %", "\\1\u00a0%", value) if type(value) is str else value


def _read(name: str) -> str:
    return (resources.files("figures") / "templates" / name).read_text(encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    """Copy an artefact's files, each as a whole."""
    for file in sorted(source.iterdir()):
        _copy_file(file, target / file.name)


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as content, replacing(target) as file:
        shutil.copyfileobj(content, file)
