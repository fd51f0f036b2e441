"""One verdict for a claim of several parts.

``lightkv simulate verdicts`` measures how often :func:`all_of` and :func:`any_of` err;
:func:`worst_of` has the outcomes of the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from analysis.scoring.multiplicity import holm
from figures.verdicts import ALPHA, Outcome, Verdict, untestable


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for a claim of several parts, equal ones counted once.

    It holds if all parts do. It does not hold if one part does not at its level by Holm (1979) over
    all parts that are tested, or one does not that needs no test.
    """
    parts = list(dict.fromkeys(verdicts))
    if not parts:
        return untestable("nothing was measured that this claim is about")
    if len(parts) == 1:
        return parts[0]
    sampled = [part for part in parts if part.p is not None]
    p_holds = max((part.p_holds for part in sampled if part.p_holds is not None), default=None)
    p_fails = min(holm([part.p_fails or 0.0 for part in sampled]), default=None)
    outcomes = {part.outcome for part in parts}
    untested = {part.outcome for part in parts if part.p is None}
    if Outcome.FAILS in untested or (
        p_fails is not None and p_fails <= ALPHA and Outcome.FAILS in outcomes
    ):
        outcome = Outcome.FAILS
    elif Outcome.UNTESTABLE in outcomes:
        outcome = Outcome.UNTESTABLE
    else:
        outcome = Outcome.HOLDS if outcomes == {Outcome.HOLDS} else Outcome.UNDECIDED
    if outcome in untested - {Outcome.HOLDS}:
        p_holds = p_fails = None
    needed = _needed(parts) if outcome is Outcome.UNDECIDED else None
    return Verdict(outcome, _reasons(parts, outcome), p_holds, p_fails, needed)


def _needed(parts: Sequence[Verdict]) -> float | None:
    """Questions that would decide all parts that are undecided, None where of one none is known."""
    undecided = [part for part in parts if part.outcome is Outcome.UNDECIDED]
    known = [part.needed for part in undecided if part.needed is not None]
    return max(known, default=None) if len(known) == len(undecided) else None


def reverse(one: Verdict) -> Verdict:
    """The verdict on the opposite claim."""
    opposite = {Outcome.HOLDS: Outcome.FAILS, Outcome.FAILS: Outcome.HOLDS}
    outcome = opposite.get(one.outcome, one.outcome)
    return replace(one, outcome=outcome, p_holds=one.p_fails, p_fails=one.p_holds)


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for a claim that one of several parts makes true: :func:`all_of`, reversed.

    It holds if one part does at its level by Holm over all, and does not hold if none does.
    """
    parts = list(verdicts)
    whole = reverse(all_of(map(reverse, parts)))
    return replace(whole, reason=_reasons(parts, whole.outcome))


def worst_of(verdicts: Iterable[Verdict]) -> Verdict:
    """As :func:`all_of`, but of many like parts the reason names the deciding ones only."""
    parts = list(dict.fromkeys(verdicts))
    whole = all_of(parts)
    if len(parts) < 2:
        return whole
    deciding = [part for part in parts if part.outcome is whole.outcome]
    if whole.outcome is Outcome.HOLDS or not deciding:
        reason = f"all {len(parts)} comparisons, for example {parts[0].reason}"
        if whole.outcome is not Outcome.HOLDS:
            reason = f"no one of {len(parts)} comparisons is sure among as many: {_worst(parts)}"
    else:
        # Of undecided parts the one that takes most questions, or of which no number is known.
        first = max(deciding, key=lambda part: math.inf if part.needed is None else part.needed)
        reason = f"{len(deciding)} of {len(parts)} comparisons: {first.reason}"
    return replace(whole, reason=reason)


def _worst(parts: Sequence[Verdict]) -> str:
    return min(parts, key=lambda part: 1.0 if part.p_fails is None else part.p_fails).reason


def _reasons(parts: Sequence[Verdict], outcome: Outcome) -> str:
    if all(part.outcome is outcome for part in parts):
        return "; ".join(part.reason for part in parts)
    return "; ".join(f"{part.reason} ({part.outcome.value})" for part in parts)
