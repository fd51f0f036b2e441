"""Rows that ship take the place of asking, and a drawn sample of them is asked again.

What ships is a store like any other, made beforehand with numbers of questions fixed in advance. A
study that finds all of its cells there gets their rows; some of the same questions are asked here
and now, and compared answer by answer. A cell whose code has changed is not among them, so its
study asks for itself.

**How many are asked again.** Of each cell (a method on a task under a protocol) at least five
divided by the number of its tasks, and at least its share of 299 among all rows that ship. If one
row in a hundred is wrong, wherever those rows are, all of them are missed with a probability of at
most 0.99^299 = 4.95 %: with a share c of a cell's rows wrong, n of them drawn miss with at most
(1 - c)^n, and over cells the exponents add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from analysis.asking.rows import LABELS, Configuration

if TYPE_CHECKING:
    import pandas as pd

    from analysis.asking.jobs import Job
    from analysis.asking.store import Store

WRONG: Final = 0.01
"""Share of wrong rows that is to be noticed ..."""

NOTICED: Final = 0.95
"""... with this probability."""

PER_METHOD: Final = 5
"""Rows of a method under a protocol that are asked again at least: staleness comes by method."""

NEAR_TIE: Final = 0.01
"""Lead of the first choice over the second, in logits, below which another machine may differ.

Instruction sets moved the leads of 720 answers by at most 0.0014 (``docs/reproducing.md``)."""

EQUAL: Final = "equal"
DIFFERS: Final = "differs"
TIED: Final = "near-tie"

CHANGED: Final = "the code that answers has changed since the rows were made"
ABSENT: Final = "no rows ship for some of its cells"

REFUSED: Final = "a method of these rows is refused here"

_UNMATCHED: Final = (*LABELS, "versions")
"""Fields in which rows that ship may differ from what is asked: the sample shows if they matter."""

_SAID: Final = ("answer", "generated_tokens")
_SIZES: Final = ("kv_bytes", "full_kv_bytes", "token_layers", "full_token_layers")


class NotShippedError(Exception):
    """Rows that a study needs don't ship.

    Attributes:
        reason: Why, in words.
        jobs: What the study asks.
    """

    def __init__(self, reason: str, jobs: Sequence[Job]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.jobs = tuple(jobs)


@dataclass(frozen=True)
class Compared:
    """A question that was asked again.

    Attributes:
        key, item: Of the row that ships.
        protocol, task, parameters: Of its cell.
        shipped, here: The answers.
        gap: How sure the one that ships was (:class:`~analysis.asking.decisions.Decision`); None
            where that was not stored, or no other token could have followed.
        state: "equal", "differs" or "near-tie".
    """

    key: str
    item: int
    protocol: str
    task: str
    parameters: str
    shipped: str
    here: str
    gap: float | None
    state: str


class Shipped:
    """Rows that ship.

    Args:
        store: The rows, in memory; scores of their answers by a new metric are added there.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @cached_property
    def _keys(self) -> dict[tuple[Any, ...], str]:
        return {_matched(one): key for key, one in self.store.configurations().items()}

    @cached_property
    def _any_code(self) -> frozenset[tuple[Any, ...]]:
        several = self.store.configurations().values()
        return frozenset(_matched(one, "revision") for one in several)

    @cached_property
    def items(self) -> dict[str, frozenset[int]]:
        """Questions that are answered, by key of the configuration."""
        return {key: self.store.finished(key) for key in self._keys.values()}

    @property
    def size(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.items.values()))

    def key_of(self, job: Job) -> str | None:
        """Key of the configuration that answers all of a job's questions, None if there is none."""
        key = self._keys.get(_matched(job.configuration))
        if key is None or any(item.index not in self.items[key] for item in job.items):
            return None
        return key

    def lacking(self, jobs: Iterable[Job]) -> str:
        """Why some jobs are not answered here, in words."""
        unlike = [
            one.configuration for one in jobs if _matched(one.configuration) not in self._keys
        ]
        stale = (_matched(one, "revision") in self._any_code for one in unlike)
        return CHANGED if any(stale) else ABSENT


@dataclass
class Replay:
    """What one study takes from the rows that ship, and how the questions asked again compare.

    Attributes:
        shipped: The rows.
        seed: Of the draw.
        used: Rows taken, by key of their configuration.
        compared: Questions that were asked again.
    """

    shipped: Shipped
    seed: int = 0
    used: dict[str, int] = field(default_factory=dict)
    compared: list[Compared] = field(default_factory=list)

    def drawn(self, job: Job, key: str, tasks: int) -> frozenset[int]:
        """Questions of a job that are asked again.

        Args:
            job: The job.
            key: Of the configuration that ships.
            tasks: How many tasks its method is asked under its protocol.
        """
        items = sorted(item.index for item in job.items)
        count = sample_size(len(self.shipped.items[key]), self.shipped.size, tasks)
        generator = np.random.default_rng([self.seed, int(key, 16)])
        return frozenset(generator.permutation(items)[:count].tolist())

    def compare(self, job: Job, key: str, items: frozenset[int], fresh: pd.DataFrame) -> None:
        """Compare questions that were asked again with the rows that ship.

        Args:
            job: The job that they belong to.
            key: Of the configuration that ships.
            items: Which.
            fresh: Rows of the job that were made here.
        """
        store, gaps = self.shipped.store, self.shipped.store.gaps(key)
        old, new = _by_item(store.rows({key})), _by_item(fresh)
        for item in sorted(items):
            one, other = old[item], new[item]
            gap = gaps.get(item)
            if gap is not None and not math.isfinite(gap):
                gap = None
            state = EQUAL
            if any(one[name] != other[name] for name in _SIZES):
                state = DIFFERS
            elif any(one[name] != other[name] for name in _SAID):
                state = TIED if gap is not None and gap < NEAR_TIE else DIFFERS
            where = job.configuration
            self.compared.append(
                Compared(
                    key=key,
                    item=item,
                    protocol=where.protocol,
                    task=where.task,
                    parameters=where.parameters,
                    shipped=str(one["answer"]),
                    here=str(other["answer"]),
                    gap=gap,
                    state=state,
                )
            )
        self.used[key] = max(self.used.get(key, 0), len(job.items))


def sample_size(of_cell: int, of_all: int, tasks: int) -> int:
    """How many of a cell's rows are asked again, see the head of this module.

    Args:
        of_cell: Rows of the cell.
        of_all: Rows of all cells.
        tasks: How many cells share its method and protocol.
    """
    whole = math.log(1 - NOTICED) / math.log(1 - WRONG)
    return min(of_cell, max(math.ceil(PER_METHOD / tasks), math.ceil(whole * of_cell / of_all)))


def _by_item(rows: pd.DataFrame) -> dict[int, dict[str, Any]]:
    """What was said, and how much was held, once an item."""
    compared = rows[["item", *_SAID, *_SIZES]].drop_duplicates("item")
    return {int(one["item"]): one for one in compared.to_dict("records")}  # type: ignore[misc]


def _matched(one: Configuration, *apart: str) -> tuple[Any, ...]:
    return tuple(value for name, value in asdict(one).items() if name not in (*_UNMATCHED, *apart))
