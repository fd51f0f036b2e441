"""Tasks by name: the embedded models' question kinds, files of questions, and benchmarks."""

from analysis.tasks.base import Task, TaskItem, register, task, task_names
from analysis.tasks.embedded import EmbeddedKind
from analysis.tasks.folder import FolderTask


def _lmms(argument: str) -> Task:
    from analysis.lmms.task import LmmsTask

    return LmmsTask.named(argument)


def _native(argument: str) -> Task:
    from analysis.tasks.native import NativeKind

    return NativeKind.named(argument)


register("lmms", _lmms)
register("embedded-qwen", _native)

__all__ = ["EmbeddedKind", "FolderTask", "Task", "TaskItem", "register", "task", "task_names"]
