"""Benchmarks of lmms-eval with their data: what can be asked here, and why loading failed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.lmms import harness
from lightkv.errors import InputError, InvalidValueError, UnknownNameError, UnsupportedError


def members(tasks: Any, name: str) -> str:
    """What a group of benchmarks consists of, in words."""
    inner = tasks.task_index[name]["task"]
    if inner == -1:
        inner = harness.config_of(tasks.task_index[name]["yaml_path"])["task"]
    return f"one of its tasks: {', '.join(str(one) for one in inner)}"


def known(argument: str) -> tuple[str, Any]:
    """Name of a benchmark, and the tasks of the harness that it is one of; nothing is loaded.

    Args:
        argument: Its name, or a YAML file.

    Raises:
        InvalidValueError: It is a group of benchmarks.
        UnknownNameError: No benchmark has that name; the message lists the nearest ones.
        InputError: There is no such file.
        UnsupportedError: lmms-eval is not installed.
    """
    file = Path(argument)
    if argument.endswith((".yaml", ".yml")):
        if not file.is_file():
            raise InputError(f"{file} is not there")
        name = str(harness.config_of(str(file))["task"])
        tasks = harness.manager(str(file.parent))
    else:
        name, tasks = argument, harness.manager()
    if name not in tasks.all_subtasks:
        if name in tasks.all_tasks:
            raise InvalidValueError("lmms", name, members(tasks, name))
        raise UnknownNameError("benchmark of lmms-eval", name, tasks.all_subtasks)
    return name, tasks


def data_set(argument: str) -> str:
    """Data set of a benchmark as its file names it: a hub id, or the kind of a local file.

    Args:
        argument: As of :func:`known`, with the same errors.
    """
    name, tasks = known(argument)
    return str(harness.config_of(str(tasks.task_index[name]["yaml_path"])).get("dataset_path"))


def refuse(name: str, config: Mapping[str, Any]) -> None:
    """Refuse, before anything is downloaded, what a model here can't be asked.

    Raises:
        UnsupportedError: See above.
    """
    kind = config.get("output_type", "generate_until")
    if kind != "generate_until":
        raise UnsupportedError(f"{name} is scored by {kind}; answers are generated here")
    loading = config.get("dataset_kwargs") or {}
    if loading.get("video") or "From_YouTube" in loading:
        raise UnsupportedError(f"{name} shows videos, and models are asked about pictures here")
    scores = [str(one.get("metric")) for one in config.get("metric_list") or []]
    judged = [one for one in scores if re.search("gpt|judge|llm", one)]
    if judged or "gpt_eval_model_name" in (config.get("metadata") or {}):
        raise UnsupportedError(
            f"{name} is scored by a judge model that is reached over the network; an unreachable "
            "judge would count as wrong answers"
        )


def loaded(name: str, tasks: Any, config: Mapping[str, Any]) -> Any:
    """The harness's task with its data.

    Raises:
        InputError: The data can't be loaded.
    """
    try:
        (loaded,) = tasks.load_task_or_group(name, task_type="chat").values()
        return loaded
    except Exception as error:
        # The harness tries five times and then hides why.
        attempt = getattr(error, "last_attempt", None)
        reason = error if attempt is None else attempt.exception()
        raise InputError(
            f"the data set {config.get('dataset_path')} of {name} can't be loaded: "
            f"{type(reason).__name__}: {reason}. It is downloaded once: set HF_HUB_OFFLINE=0, and "
            "HF_ENDPOINT to a mirror that you can reach"
        ) from reason


def content_of(docs: Any) -> str:
    """Digest of the bytes of all columns that hold pictures."""
    from datasets import Image as ImageColumn

    digest = hashlib.sha256()
    names = [name for name, kind in docs.features.items() if isinstance(kind, ImageColumn)]
    raw = docs.select_columns(names)
    for name in names:
        raw = raw.cast_column(name, ImageColumn(decode=False))
    for row in raw:
        for name in names:
            digest.update((row[name] or {}).get("bytes") or b"")
    return digest.hexdigest()
