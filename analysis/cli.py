"""Commands of this room; each loads its own module when it is called."""

from __future__ import annotations

#: Command name -> "module:attribute" of a click command.
COMMANDS: dict[str, str] = {
    "bench": "analysis.bench_cli:bench_group",
    "evaluate": "analysis.evaluate_cli:evaluate_command",
    "latency": "analysis.latency_cli:latency_command",
}
