"""Tasks by name: the embedded model's question families, and files of real benchmarks."""

from analysis.tasks.base import Task, TaskItem, register, task, task_names
from analysis.tasks.embedded import EmbeddedFamily
from analysis.tasks.folder import FolderTask

__all__ = ["EmbeddedFamily", "FolderTask", "Task", "TaskItem", "register", "task", "task_names"]
