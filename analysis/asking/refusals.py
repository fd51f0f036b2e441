"""What happens to methods that can't be used on a model, a prompt or under a protocol."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.asking.jobs import Job, Jobs, Methods
from analysis.asking.opening import UnloadedVLM, loaded
from analysis.tasks import Task
from lightkv.errors import LightKVError, UnsupportedError
from lightkv.protocols import protocol as protocol_named

if TYPE_CHECKING:
    from analysis.asking.store import Store
    from lightkv import VLM
    from lightkv.contract.layout import TokenLayout

OnRefusal = Callable[[str, str, str, LightKVError], None]


@dataclass(frozen=True)
class Refusals:
    """What was refused: reported or raised, and remembered so that it is not tried again.

    Attributes:
        on_refusal: Called for each; None raises the error.
        store: Where they are remembered.
    """

    on_refusal: OnRefusal | None
    store: Store

    def refuse(self, protocol: str, task: str, label: str, error: LightKVError) -> None:
        """Report the error, or raise it."""
        if self.on_refusal is None:
            raise error
        self.on_refusal(protocol, task, label, error)

    def refuse_job(self, label: str, job: Job, error: LightKVError) -> None:
        """The same, and remember it."""
        self.store.note_refusal(job.key, str(error))
        self.refuse(job.configuration.protocol, job.task.name, label, error)

    def without_misfits(
        self,
        vlm: VLM | UnloadedVLM,
        methods: Methods,
        tasks: Sequence[Task],
        protocols: Sequence[str],
    ) -> Methods:
        """Methods whose hyperparameters fit the model."""
        fitting = {}
        for label, compressor in methods.items():
            try:
                if compressor is not None:
                    compressor.check(vlm.facts)
                fitting[label] = compressor
            except LightKVError as error:
                for protocol, task in itertools.product(protocols, tasks):
                    self.refuse(protocol, task.name, label, error)
        return fitting

    def usable(self, jobs: Jobs) -> Jobs:
        """Jobs of which no refusal is remembered."""
        fitting = []
        for label, job in jobs:
            reason = self.store.refusal(job.key)
            if reason is None:
                fitting.append((label, job))
            else:
                error = UnsupportedError(reason)
                self.refuse(job.configuration.protocol, job.task.name, label, error)
        return fitting

    def checked(self, vlm: VLM | UnloadedVLM, jobs: Jobs) -> Jobs:
        """Jobs whose first prompt can be compressed."""
        layouts: dict[tuple[str, str], TokenLayout] = {}
        fitting = []
        for label, job in jobs:
            protocol = job.configuration.protocol
            where = job.task.name, protocol
            try:
                if where not in layouts:
                    request = job.items[0].request(protocol)
                    layouts[where] = protocol_named(protocol).layout(loaded(vlm), [request])
                if job.compressor is not None:
                    job.compressor.check_layout(layouts[where])
                fitting.append((label, job))
            except LightKVError as error:
                self.refuse_job(label, job, error)
        return fitting
