"""Tasks by name: the embedded model's question kinds, and files of real benchmarks."""

from analysis.tasks.base import Task, TaskItem, register, task, task_names
from analysis.tasks.embedded import EmbeddedKind
from analysis.tasks.folder import FolderTask

__all__ = ["EmbeddedKind", "FolderTask", "Task", "TaskItem", "register", "task", "task_names"]
