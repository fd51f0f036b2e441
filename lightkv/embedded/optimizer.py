"""Muon in float32 with batched orthogonalisation.

The optimizer of the library orthogonalises one matrix at a time in bfloat16, which processors
without bfloat16 arithmetic emulate slowly. Here all matrices of one shape go through one batched
iteration.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

import torch
from torch import Tensor, nn

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan et al., 2024); for 2-D weights only."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        iterations: int = 5,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "iterations": iterations,
        }
        super().__init__(list(parameters), defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    same_shape[weight.shape].append(weight)
            for shape, weights in same_shape.items():
                update = torch.stack(self._momenta(weights, group["momentum"]))
                update = orthogonalise(update, group["iterations"])
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                held: list[Tensor] = list(weights)
                torch._foreach_mul_(held, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_sub_(held, list(update.unbind()), alpha=scale)

    def _momenta(self, weights: list[nn.Parameter], momentum: float) -> list[Tensor]:
        """Nesterov momentum of the gradient of each weight."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            if "momentum" not in self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, buffers, momentum))


def build_optimizers(
    matrices: list[nn.Parameter], others: list[nn.Parameter], *, muon: float, adam: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the rest, with their full rates as ``initial_lr``."""
    made: list[torch.optim.Optimizer] = [
        Muon(matrices, lr=muon),
        torch.optim.AdamW(others, lr=adam, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return made


def scale_rates(optimizers: list[torch.optim.Optimizer], scale: float) -> None:
    """Set every rate to a share of its full one."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = scale * group["initial_lr"]


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Push the singular values of ``(M, r, c)`` matrices towards one (Newton-Schulz)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result


def descend(loss: Tensor, optimizers: list[torch.optim.Optimizer]) -> None:
    """One step down a loss, along gradients of norm 1 at most."""
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
