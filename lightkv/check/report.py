"""Tables of what checks found: for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lightkv.check.checks import CHECKS, Outcome

_PACKAGES = ("torch", "transformers", "nnsight")


@dataclass(frozen=True)
class Report:
    """Checks of one model under one attention kernel.

    Attributes:
        name: Of the model.
        title: What it is.
        kernel: Attention kernel.
        outcomes: Per batch ("one", "padded") what the checks found.
    """

    name: str
    title: str
    kernel: str
    outcomes: Mapping[str, Sequence[Outcome]]

    @property
    def every(self) -> list[Outcome]:
        """Outcomes of all batches."""
        return [outcome for outcomes in self.outcomes.values() for outcome in outcomes]

    @property
    def passed(self) -> bool:
        return all(outcome.passed for outcome in self.every)

    @property
    def worst(self) -> float:
        """Largest relative error of any check."""
        return max((outcome.error or 0.0 for outcome in self.every), default=0.0)

    def lines(self) -> list[str]:
        """One line a check, failures in full."""
        lines = []
        for batch, outcomes in self.outcomes.items():
            for outcome in outcomes:
                verdict = "ok  " if outcome.passed else "FAIL"
                lines.append(f"{verdict}  {outcome.name:<20}  {batch:<7}  {outcome.measured}")
        return lines

    def summary(self) -> str:
        """One line for the whole report."""
        good = sum(outcome.passed for outcome in self.every)
        verdict = "ok  " if self.passed else "FAIL"
        return (
            f"{verdict}  {self.name:<20}  {self.kernel:<6}  {good:>3} of {len(self.every)} checks"
            f"  worst error {self.worst:.1e}"
        )


def versions() -> str:
    """Versions of the libraries that the graph depends on."""
    return ", ".join(f"{package} {version(package)}" for package in _PACKAGES)


START, END = "<!-- compatibility -->", "<!-- /compatibility -->"


def write_compatibility(path: Path, reports: Sequence[Report]) -> None:
    """Write the table to a file: between its markers if it has them, else as a page of its own."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if START in text and END in text:
        before, rest = text.split(START, 1)
        table = "\n".join([START, "", *_table(reports), "", f"With {versions()}.", "", END])
        path.write_text(before + table + rest.split(END, 1)[1], encoding="utf-8")
    else:
        path.write_text(compatibility_page(reports), encoding="utf-8")


def _table(reports: Sequence[Report]) -> list[str]:
    """Lines of a markdown table, one row a model."""
    kernels = sorted({report.kernel for report in reports}, reverse=True)
    by_name: dict[str, dict[str, Report]] = {}
    for report in reports:
        by_name.setdefault(report.name, {})[report.kernel] = report
    head = ["model", "what it is", *kernels, "worst error"]
    rows = [
        [
            name,
            next(iter(by_kernel.values())).title,
            *(_cell(by_kernel.get(kernel)) for kernel in kernels),
            f"{max(report.worst for report in by_kernel.values()):.0e}",
        ]
        for name, by_kernel in by_name.items()
    ]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def compatibility_page(reports: Sequence[Report]) -> str:
    """The page of the documentation, in markdown."""
    lines = [
        "# Compatibility",
        "",
        f"Written by `lightkv check --all-tiny --write` with {versions()}.",
        "",
        "Each row is a model of that family with four decoder layers and random float32 weights,",
        "asked one prompt alone and several of different lengths as a padded batch. Errors are",
        "relative to the largest logit. The checks: " + ", ".join(CHECKS) + ".",
        "",
        *_table(reports),
        "",
        "What this does not show: checkpoints of real size, processors (some families' need",
        "torchvision), bfloat16, GPUs. `lightkv check MODEL` runs the same checks on a checkpoint",
        "on your machine, and `lightkv check --shape llava-1.5-7b --device cuda --dtype bfloat16`",
        "on random weights in the decoder dimensions of a preset, with time and peak memory. In",
        "half precision a check may differ by four times what the two attention kernels of the",
        "plain model differ by.",
        "",
        "`make test-oldest` runs the tests of the graph on the oldest supported nnsight, 0.8.0.",
        "",
    ]
    return "\n".join(lines)


def _cell(report: Report | None) -> str:
    if report is None:
        return "not run"
    failed = sorted({outcome.name for outcome in report.every if not outcome.passed})
    return f"fails: {', '.join(failed)}" if failed else f"all {len(report.every)} pass"
