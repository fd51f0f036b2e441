"""The command line, which notes each question that it asks, and stops in the third batch once.

python lightkv_watched.py NOTES COMMAND...
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from analysis.asking import evaluation
from figures.cli import main

notes = Path(sys.argv[1])
asked = notes / "asked.jsonl"
slow = notes / "slow"
SECONDS = 120
"""How long the third batch takes: whoever looks kills the job before."""


def lines() -> int:
    """How many batches were asked by all jobs."""
    return len(asked.read_text().splitlines()) if asked.exists() else 0


def watched(ask: Any) -> Any:
    def noting(vlm: Any, batch: Sequence[Any], compressor: Any, settings: Any) -> Any:
        with asked.open("a") as file:
            file.write(json.dumps([settings.key, [item.index for item in batch]]) + "\n")
        if lines() >= 3 and not slow.exists():
            slow.touch()
            time.sleep(SECONDS)
        return ask(vlm, batch, compressor, settings)

    return noting


if __name__ == "__main__":
    evaluation.ask = watched(evaluation.ask)
    main(sys.argv[2:])
