"""Workflows run by Snakemake, which has an environment of its own (make test-workflow)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "workflow"


@pytest.fixture(scope="session")
def snakemake() -> str:
    """The command; a test that needs it is skipped where it is not installed."""
    command = shutil.which("snakemake")
    if command is None:
        pytest.skip("the workflow is run by snakemake, which is not installed: make test-workflow")
    return command
