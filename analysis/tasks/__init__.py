"""Tasks by name: the embedded model's question kinds, files of questions, and benchmarks."""

from analysis.tasks.base import Task, TaskItem, register, task, task_names
from analysis.tasks.embedded import EmbeddedKind
from analysis.tasks.folder import FolderTask


def _lmms(argument: str) -> Task:
    from analysis.lmms.task import LmmsTask

    return LmmsTask.named(argument)


register("lmms", _lmms)

__all__ = ["EmbeddedKind", "FolderTask", "Task", "TaskItem", "register", "task", "task_names"]
