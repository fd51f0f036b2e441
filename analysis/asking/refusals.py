"""What happens to methods that can't be used on a model, a prompt or under a protocol."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.asking.jobs import Jobs, Methods
from analysis.tasks import Task
from lightkv.errors import LightKVError
from lightkv.protocols import protocol as protocol_named

if TYPE_CHECKING:
    from lightkv import VLM
    from lightkv.contract.layout import TokenLayout

OnRefusal = Callable[[str, str, str, LightKVError], None]


@dataclass(frozen=True)
class Refusals:
    """What happens to methods that can't be used.

    Attributes:
        heard: Told of each; None raises.
    """

    heard: OnRefusal | None

    def refuse(self, protocol: str, task: str, label: str, error: LightKVError) -> None:
        """Tell, or raise the error."""
        if self.heard is None:
            raise error
        self.heard(protocol, task, label, error)

    def without_misfits(
        self, vlm: VLM, methods: Methods, tasks: Sequence[Task], protocols: Sequence[str]
    ) -> Methods:
        """Methods whose hyperparameters fit the model."""
        fitting = {}
        for label, compressor in methods.items():
            try:
                if compressor is not None:
                    compressor.check(vlm.facts)
                fitting[label] = compressor
            except LightKVError as error:
                for protocol, given in itertools.product(protocols, tasks):
                    self.refuse(protocol, given.name, label, error)
        return fitting

    def checked(self, vlm: VLM, jobs: Jobs) -> Jobs:
        """Jobs whose first prompt can be compressed."""
        layouts: dict[tuple[str, str], TokenLayout] = {}
        fitting = []
        for label, job in jobs:
            protocol = job.configuration.protocol
            where = job.task.name, protocol
            try:
                if where not in layouts:
                    request = job.items[0].request(protocol)
                    layouts[where] = protocol_named(protocol).layout(vlm, [request])
                if job.compressor is not None:
                    job.compressor.check_layout(layouts[where])
                fitting.append((label, job))
            except LightKVError as error:
                self.refuse(protocol, job.task.name, label, error)
        return fitting
