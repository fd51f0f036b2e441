"""Commands of this room; each loads its own module when it is called."""

from __future__ import annotations

#: Command name -> "module:attribute" of a click command.
COMMANDS: dict[str, str] = {
    "bench": "analysis.timing.bench_cli:bench_group",
    "evaluate": "analysis.asking.evaluate_cli:evaluate_command",
    "merge": "analysis.asking.store_cli:merge_command",
    "summary": "analysis.asking.store_cli:summary_command",
    "latency": "analysis.timing.latency_cli:latency_command",
}
