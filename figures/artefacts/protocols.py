"""X-6: every method at every retention, under the three protocols of evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.scoring.beside import EQUAL, at_equal, beside
from analysis.scoring.intervals import mean
from figures.artefacts.agreement import ranks_agree
from figures.artefacts.protocols_shared import PROTOCOLS, VANILLA, draw, plotted, retentions_of
from figures.artefacts.shared import evictable, here, pick, printed, setting
from figures.compound import worst_of
from figures.contract import Artefact, Claim
from figures.tables import percent
from figures.verdicts import Verdict, better, untestable
from lightkv.prompting import QUESTION_FIRST, SECOND_TURN

if TYPE_CHECKING:
    import pandas as pd

COMPARED: Final = ("streamingllm", "snapkv", "h2o", "elasticcache", "prefixkv")
"""What TGV-KV is compared with in its Table 2."""

CONTROL: Final = "downsample"
BESIDE: Final = {
    "loyalty": "answers of the full cache, %",
    "lead_entries": "over downsample at equal entries, points",
    "lead_tokens": "over downsample at equal tokens, points",
    "hard": "where downsample is wrong, %",
}
"""What the table says of question first beside the full cache and the control."""

PRINTED: Final = {"tgvkv": "tgv-kv"}
MODEL: Final = "llava-1.5-7b"


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a method and retention, mean over tasks with interval; ChartQA as printed beside."""
    import pandas as pd

    from figures import paper

    numbers = paper.numbers("T-T2")
    at = setting(numbers, "retention").str.rstrip("%").replace("", "nan").astype(float) / 100
    compared = _beside(pick(frame, protocol=QUESTION_FIRST))
    titles = {name: title for name, title in BESIDE.items() if compared[name].notna().any()}
    rows = []
    for (method, share), answers in frame.groupby(
        ["method", "retention"], dropna=False, sort=False
    ):
        retention = float(str(share))
        first = pick(answers, protocol=QUESTION_FIRST)
        held = (first if len(first) else answers).groupby("task")["kv_share"].mean().mean()
        row: dict[tuple[str, str], object] = {
            ("method", ""): method,
            ("retention, %", ""): percent(retention),
            ("KV held, %", ""): percent(float(held)),
        }
        for protocol in PROTOCOLS:
            score = mean(pick(answers, protocol=protocol))
            row[here(frame), f"{protocol}, %"] = percent(score.value, score.low, score.high)
        label = _label(method, retention)
        for name, title in titles.items():
            bounds = [f"{name}{end}" for end in ("", "_low", "_high")]
            known = compared.loc[label, bounds] if label in compared.index else [np.nan] * 3
            row[here(frame), title] = percent(*known)
        name = PRINTED.get(str(method), str(method))
        near = numbers if method == VANILLA else numbers[(at - retention).abs() < 1e-6]
        row["paper (LLaVA-1.5-7B)", "ChartQA, %"] = printed(
            near, model=MODEL, method=name, benchmark="chartqa"
        )
        rows.append(row)
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0]))


def _beside(rows: pd.DataFrame) -> pd.DataFrame:
    """By method and retention, what :func:`analysis.scoring.beside.beside` says of all tasks."""
    pairs = zip(rows["method"], rows["retention"], strict=True)
    labelled = rows.assign(method=[_label(*pair) for pair in pairs])
    control = CONTROL if CONTROL in set(rows["method"]) else None
    return beside(labelled, control, VANILLA, by=("protocol",)).set_index("method")


def _label(method: object, retention: float) -> str:
    return str(method) if retention != retention else f"{method} {100 * retention:g} %"


def _at(frame: pd.DataFrame, protocol: str, method: str, retention: float) -> pd.DataFrame:
    rows = _of(frame, protocol, method)
    return rows[(rows["retention"] - retention).abs() < 1e-6]


def _of(frame: pd.DataFrame, protocol: str, method: str) -> pd.DataFrame:
    """Rows of tasks that respond: under the papers' protocol those of several words."""
    rows = pick(frame, protocol=protocol, method=method)
    return evictable(rows) if protocol == QUESTION_FIRST else rows


def judge_best(frame: pd.DataFrame) -> Verdict:
    """Does TGV-KV beat what the paper compares it with, at every retention?"""
    known = set(frame["method"])
    if "tgvkv" not in known:
        return untestable("TGV-KV was not run")
    return worst_of(
        better(
            _at(frame, QUESTION_FIRST, "tgvkv", retention),
            _at(frame, QUESTION_FIRST, other, retention),
            f"TGV-KV over {other} at {100 * retention:g} %, tasks of several words",
            whole=_of(frame, QUESTION_FIRST, VANILLA),
        )
        for retention in retentions_of(frame)
        for other in COMPARED
        if other in known
    )


def judge_random(frame: pd.DataFrame) -> Verdict:
    """Do the compared evictors beat random eviction under every protocol, at 10 %?"""
    retentions = retentions_of(frame)
    if not retentions:
        return untestable("no method with a retention was run")
    retention = min(retentions, key=lambda one: abs(one - 0.1))
    return worst_of(
        better(
            _at(frame, protocol, method, retention),
            _at(frame, protocol, "random", retention),
            f"{method} over random at {100 * retention:g} %, {protocol}",
            whole=_of(frame, protocol, VANILLA),
        )
        for protocol in PROTOCOLS
        for method in (*COMPARED, "tgvkv")
        if len(_at(frame, protocol, method, retention))
    )


def judge_control(frame: pd.DataFrame) -> Verdict:
    """Do the compared evictors beat a picture of lower resolution that holds as many entries?"""
    whole = _of(frame, QUESTION_FIRST, VANILLA)
    control = _of(frame, QUESTION_FIRST, CONTROL)
    if not len(control):
        return untestable(f"{CONTROL} was not run")
    curve = [*(rows for _, rows in control.groupby("retention")), whole]
    verdicts = []
    for retention in retentions_of(frame):
        for method in (*COMPARED, "tgvkv"):
            rows = _at(frame, QUESTION_FIRST, method, retention)
            beside_it = at_equal(rows, curve, EQUAL["entries"]) if len(rows) else None
            if beside_it is not None:
                what = f"{method} over {CONTROL} at {100 * retention:g} %, equal entries"
                verdicts.append(better(rows, beside_it, what, whole=whole))
    if not verdicts:
        return untestable(f"{CONTROL} holds more than every evictor at its smallest")
    return worst_of(verdicts)


def judge_agreement(frame: pd.DataFrame) -> Verdict:
    """Do evictors rank under the papers' protocol as they do when a second question is asked?"""
    return worst_of(_agreement(frame, retention, SECOND_TURN) for retention in retentions_of(frame))


def _agreement(frame: pd.DataFrame, retention: float, other: str) -> Verdict:
    """Whether methods rank alike at one retention."""
    rows = frame[(frame["retention"] - retention).abs() < 1e-6]
    first, later = (pick(rows, protocol=name) for name in (QUESTION_FIRST, other))
    return ranks_agree(first, later, f"methods at {100 * retention:g} %")


EVERY_METHOD: Final = Artefact(
    id="X-6",
    title="Every method under three protocols",
    source="our own, across both papers",
    shows="Not in the papers: they ask one question per image, with the question in the prompt "
    "that is compressed. TGV-KV's Table 2 is beside it.",
    study="every_method",
    seconds=20,
    plotted=plotted,
    draw=draw,
    table=table,
    claims=(
        Claim(
            "TGV-KV beats the methods it is compared with at every retention.",
            "TGV-KV, Table 2",
            judge_best,
            "question first: paired difference above 0, each method and retention, tasks with "
            "answers of several words",
            main=True,
        ),
        Claim(
            "The compared evictors beat random eviction.",
            "both papers, implied by their choice of baselines",
            judge_random,
            "paired difference above 0 at 10 %, each method and protocol, question first on tasks "
            "with answers of several words",
        ),
        Claim(
            "The compared evictors beat a picture of lower resolution that holds as many entries.",
            "both papers, implied: a smaller picture costs nothing to make",
            judge_control,
            "paired difference from downsample above 0, each method and retention at which "
            "downsample holds as little, question first on tasks with answers of several words",
        ),
        Claim(
            "A single turn ranks evictors as a second turn does.",
            "our own, on the papers' protocol",
            judge_agreement,
            "Spearman's rank correlation of mean scores at least 0.8 at each retention; does not "
            "hold below 0",
        ),
    ),
    caption="Mean score over all tasks in percent. Grey: not applicable, or the method needs a "
    "question that was not read yet. Column 'own': methods without a retention, at their defaults.",
    explanation="Question first is the papers' protocol: the question is compressed with the "
    "image, and the first word of an answer comes from the prefill, before anything is evicted. "
    "Question agnostic compresses the image before the question is read. Second turn asks about "
    "an image whose cache was compressed for another question. Pruners act in prefill: for them "
    "retention is a share of the vision tokens, and layers before their stage hold everything; "
    "the table says what each held.",
    alt="Three heat maps, one a protocol: methods in rows, retentions in columns, mean score in "
    "each cell.",
    paper="T-T2",
)
