"""The state of an unfinished training run: two files of float32 weights and one of numbers.

The optimizers' state is not kept: a continued run warms up again for a short time.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from lightkv.errors import StoreError

if TYPE_CHECKING:
    from lightkv.embedded.qwen.trainer import Trainer

TOWER: Final = "tower.safetensors"
LANGUAGE: Final = "language.safetensors"
STATE: Final = "state.json"
UNFINISHED: Final = Path(__file__).parent / "state"
"""The state of the run whose weights will ship, in the sources only."""


def save(trainer: Trainer, folder: Path) -> None:
    """Write the state; each file is replaced in one step, the numbers last."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for name, modules in _parts(trainer).items():
        partial = folder / (name + ".partial")
        save_file(_weights(modules), partial)
        partial.replace(folder / name)
    numbers = {
        "architecture": asdict(trainer.recipe.architecture),
        "seed": trainer.recipe.seed,
        "step": trainer.step,
        "progress": trainer.progress,
        "minutes": trainer.minutes,
        "setting": trainer.setting,
        "log": trainer.log,
    }
    partial = folder / (STATE + ".partial")
    partial.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / STATE)


def resume(trainer: Trainer, folder: Path) -> bool:
    """Continue from the state in ``folder`` if there is one.

    Raises:
        StoreError: If the state belongs to another model or seed.
    """
    from safetensors.torch import load_file

    if not (folder / STATE).exists():
        return False
    numbers: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    sizes = json.loads(json.dumps(asdict(trainer.recipe.architecture)))
    if numbers["architecture"] != sizes or numbers["seed"] != trainer.recipe.seed:
        raise StoreError(f"{folder} holds the state of another model; choose another folder")
    for name, modules in _parts(trainer).items():
        weights = load_file(folder / name)
        for part, module in modules.items():
            start = part + "."
            state = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
            module.load_state_dict(state)
    trainer.step, trainer.progress = numbers["step"], numbers["progress"]
    trainer.minutes, trainer.log = numbers["minutes"], numbers["log"]
    trainer.setting = numbers["setting"]
    return True


def _parts(trainer: Trainer) -> dict[str, dict[str, nn.Module]]:
    lean = trainer.lean
    tower = {"tower": lean.tower, "heads": trainer.heads}
    language = {
        "projector": lean.projector,
        "decoder": lean.decoder,
        "alignment": trainer.alignment,
    }
    return {TOWER: tower, LANGUAGE: language}


def _weights(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": weight.detach().cpu().contiguous()
        for part, module in modules.items()
        for name, weight in module.state_dict().items()
    }
