"""Commands of this room; each loads its own module when it is called.

The console script is assembled in the last room, from tables like this one.
"""

from __future__ import annotations

#: Command name -> "module:attribute" of a click command.
COMMANDS: dict[str, str] = {
    "ask": "lightkv.commands.ask:ask_command",
    "check": "lightkv.check.cli:check_command",
    "cost": "lightkv.cost.cli:cost_command",
    "list": "lightkv.commands.listing:list_command",
    "train-embedded": "lightkv.commands.train_embedded:train_embedded_command",
    "verify": "lightkv.golden.cli:verify_command",
}
