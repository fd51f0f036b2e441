"""Running sums of a training log; sums may stay on a GPU until they are read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Score = Mapping[str, tuple[float | Tensor, float | Tensor]]


class Tally:
    """Sums since the last line of the log."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float | Tensor]] = {}
        self.images = 0
        self.seconds = 0.0

    def add(self, name: str, value: float | Tensor, count: float | Tensor) -> None:
        total = self.sums.setdefault(name, [0.0, 0.0])
        total[0] += value
        total[1] += count

    def update(self, score: Score, images: int) -> None:
        self.images += images
        for name, (right, count) in score.items():
            self.add(name, right, count)

    def means(self) -> dict[str, float | int | str]:
        means: dict[str, float | int | str] = {
            "images": self.images,
            "seconds": round(self.seconds, 2),
        }
        for name, (total, count) in self.sums.items():
            means[name] = round(float(total) / float(count), 4) if count else 0.0
        return means
