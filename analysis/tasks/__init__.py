"""Tasks by name: the embedded models' question kinds, files of questions, and benchmarks."""

from analysis.tasks.base import Task, TaskItem, check_task, register, task, task_names
from analysis.tasks.embedded import EmbeddedKind
from analysis.tasks.folder import FolderTask


def _lmms(argument: str) -> Task:
    from analysis.lmms.task import LmmsTask

    return LmmsTask.named(argument)


def _native(argument: str) -> Task:
    from analysis.tasks.native import NativeKind

    return NativeKind.named(argument)


def _lmms_check(argument: str) -> None:
    from analysis.lmms.task import check_named

    check_named(argument)


register("lmms", _lmms, _lmms_check)
register("embedded-qwen", _native)

__all__ = [
    "EmbeddedKind",
    "FolderTask",
    "Task",
    "TaskItem",
    "check_task",
    "register",
    "task",
    "task_names",
]
