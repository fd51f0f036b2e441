"""A sweep's configuration: checked in words, and the commands that its jobs run."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, relevance

SCHEMA: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name("sweep.schema.yaml").read_text(encoding="utf-8")
)


class SweepError(ValueError):
    """A configuration can't be used; the message says what to change."""


@dataclass(frozen=True)
class Sweep:
    """Models x tasks x parts, a job each, in which all methods are asked.

    Attributes:
        settings: The configuration with all defaults; see ``sweep.schema.yaml``.
        tasks: Tasks by the names that files have.
    """

    settings: Mapping[str, Any]
    tasks: Mapping[str, str]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Sweep:
        """The sweep of a configuration.

        Raises:
            SweepError: It can't be used; every mistake is named.
        """
        if not config:
            raise SweepError("no sweep is given: --configfile workflow/config/embedded.yaml")
        faults = sorted(Draft202012Validator(SCHEMA).iter_errors(config), key=_place)
        if faults:
            told = "\n".join(f"  {_words(fault)}" for fault in faults)
            raise SweepError(f"the configuration of the sweep can't be used:\n{told}")
        defaults = {
            name: rule["default"]
            for name, rule in SCHEMA["properties"].items()
            if "default" in rule
        }
        settings = {**defaults, **config}
        settings.setdefault("stores", f"{settings['out']}/stores")
        if settings["artefacts"] and settings["samples"] == 0:
            raise SweepError("artefacts need a number of samples; 0 (all) is for tasks alone")
        return cls(settings, _named(settings["tasks"]))

    @property
    def models(self) -> Mapping[str, str]:
        """Hub ids or folders by name."""
        models: Mapping[str, str] = self.settings["models"]
        return models

    @property
    def stays(self) -> bool:
        """Whether answers lie elsewhere than in the folder of a job."""
        return Path(self.settings["stores"]).is_absolute()

    @property
    def parts(self) -> list[str]:
        """Names of the parts of a task, as "1-of-4"."""
        count = self.settings["shards"]
        return [f"{number}-of-{count}" for number in range(1, count + 1)]

    @property
    def merged(self) -> str:
        """Folder of the store that holds all answers."""
        return f"{self.settings['stores']}/merged"

    def store(self, model: str, task: str, part: str) -> str:
        """Folder of the store that one job fills."""
        return f"{self.settings['stores']}/parts/{model}/{task}/{part}"

    def ask(self, model: str, task: str, part: str) -> str:
        """The command of a job: all methods on one part of a task."""
        number, count = map(int, part.split("-of-"))
        device = self._device(number)
        options = {
            "--task": [self.tasks[task]],
            "--method": self.settings["methods"],
            "--retention": self.settings.get("retentions", []),
            "--protocol": self.settings["protocols"],
            "--attention": [self.settings["attention"]],
            "--batch-size": [self.settings["batch_size"]],
            "--max-new-tokens": self._set("max_new_tokens"),
            "--shard": [f"{number}/{count}"] if count > 1 else [],
            "--out": [self.store(model, task, part)],
            **self._common(model, device),
        }
        command = self._command("evaluate", options)
        if isinstance(self.settings["device"], str):
            return command
        lock = shlex.quote(f"{self.settings['stores']}/{device.replace(':', '-')}.lock")
        return f"mkdir -p {shlex.quote(self.settings['stores'])} && flock {lock} {command}"

    def check(self) -> str:
        """The command that refuses names that no job could use."""
        options = {
            "--model": self.models.values(),
            "--task": self.settings["tasks"],
            "--method": self.settings["methods"],
            "--retention": self.settings.get("retentions", []),
            "--protocol": self.settings["protocols"],
            "--artefact": self.settings["artefacts"],
        }
        return self._command("check-sweep", options)

    def merge(self, stores: Iterable[str], out: str) -> str:
        """The command that joins stores."""
        return self._command("merge", {"": list(stores), "--out": [out]})

    def summarise(self, out: str) -> str:
        """The command that writes the scores of all answers."""
        return self._command("summary", {"": [self.merged], "--out": [out]})

    def draw(self, model: str, out: str) -> str:
        """The commands that make figures of one model's answers, on a copy of the store."""
        copy = f"{self.settings['stores']}/figures/{model}"
        options = {
            "": self.settings["artefacts"],
            "--results": [copy],
            "--out": [out],
            **self._common(model, self._device(1)),
        }
        return f"{self.merge([self.merged], copy)} && {self._command('reproduce', options)}"

    def _common(self, model: str, device: str) -> dict[str, list[Any]]:
        return {
            "--model": [self.models[model]],
            "--device": [device],
            "--dtype": self._set("dtype"),
            "--samples": [self.settings["samples"]],
            "--seed": [self.settings["seed"]],
        }

    def _device(self, part: int) -> str:
        """Where a part is asked: devices of a list take turns."""
        device = self.settings["device"]
        return str(device if isinstance(device, str) else device[(part - 1) % len(device)])

    def _set(self, name: str) -> list[Any]:
        return [self.settings[name]] if name in self.settings else []

    def _command(self, name: str, options: Mapping[str, Iterable[Any]]) -> str:
        """A command of lightkv; values of the option "" are its arguments."""
        words = [name]
        for option, values in options.items():
            for value in values:
                words += [option, str(value)] if option else [str(value)]
        return f"{self.settings['lightkv']} {shlex.join(words)}"


def _named(tasks: Iterable[str]) -> dict[str, str]:
    """Tasks by names that can stand in a path.

    Raises:
        SweepError: Two have one name.
    """
    named: dict[str, str] = {}
    for task in tasks:
        name = re.sub(r"[^A-Za-z0-9._]+", "-", task).strip("-.")
        if name in named or not name:
            raise SweepError(
                f"tasks {named.get(name)!r} and {task!r} would have the same name in paths: rename "
                "one of their files"
            )
        named[name] = task
    return named


def _place(fault: ValidationError) -> tuple[str, Any]:
    return fault.json_path, relevance(fault)


def _words(fault: ValidationError) -> str:
    """What is wrong and where; for an unknown setting, the nearest known names."""
    place = fault.json_path.removeprefix("$").removeprefix(".")
    if fault.validator == "additionalProperties" and not place:
        known = list(fault.schema["properties"])
        unknown = [name for name in fault.instance if name not in known]
        near = [
            f"{name!r} (did you mean {', '.join(close)}?)" if close else f"{name!r}"
            for name in unknown
            for close in [difflib.get_close_matches(str(name), known, n=1)]
        ]
        return f"there is no setting {', '.join(near)}; there are {', '.join(sorted(known))}"
    what = fault.message
    if fault.validator == "oneOf":
        what = f"{fault.instance!r} is neither a device nor a list of cuda:N"
    meaning = " ".join(str(fault.schema.get("description", "")).split())
    return f"{place + ': ' if place else ''}{what}{f' ({meaning})' if meaning else ''}"
