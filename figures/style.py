"""One look for every figure: colours and markers fixed per method, print-size fonts.

The colours are Okabe and Ito's, which stay apart for colour-blind readers; markers and dashes
repeat what colour says, so that a grey print can be read too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRINT_WIDTH: Final = 6.9
"""Inches of a two-column page; figures are drawn at this width, so fonts print as set."""

SMALLEST_FONT: Final = 8.0

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PINK, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"
PALETTE: Final = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK, GREY)
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")

RC: Final[dict[Any, Any]] = {
    "font.size": 9.0,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "xtick.labelsize": SMALLEST_FONT,
    "ytick.labelsize": SMALLEST_FONT,
    "legend.fontsize": SMALLEST_FONT,
    "figure.titlesize": 11.0,
    "figure.dpi": 110,
    "savefig.dpi": 220,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "lightkv",
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn wherever it appears."""

    label: str
    color: str
    marker: str
    dash: str = "-"


METHODS: Final[dict[str, Look]] = {
    "vanilla": Look("vanilla (full cache)", BLACK, "o", ":"),
    "lightkv": Look("LightKV", BLUE, "s"),
    "tgvkv": Look("TGV-KV", RED, "^"),
    "random": Look("random eviction", GREY, "v", "--"),
}


def look(method: str) -> Look:
    """A method's look; a method without one of its own gets its name in grey."""
    return METHODS.get(method, Look(method, GREY, "D", "-."))


def nth(index: int) -> Look:
    """Look of the ``index``-th series where series are not methods (tasks, variants, layers)."""
    dashes = ("-", "--", "-.", ":")
    return Look(
        "",
        PALETTE[index % len(PALETTE)],
        _MARKERS[index % len(_MARKERS)],
        dashes[index // len(PALETTE) % len(dashes)],
    )


@contextmanager
def styled() -> Iterator[None]:
    """Draw with the house style; the caller's settings come back afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(RC):
        yield


def sheet(height: float) -> Figure:
    """An empty figure of print width, ``height`` inches high.

    It belongs to the caller: no global list keeps it alive, and no window opens.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(PRINT_WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def canvas(
    rows: int = 1, columns: int = 1, *, height: float = 2.6, **options: Any
) -> tuple[Figure, Any]:
    """A sheet and its (rows, columns) array of axes, ``height`` inches a row."""
    figure = sheet(height * rows)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def bare(axes: Axes) -> None:
    """Take ticks, frame and grid away: for pictures."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def text_on(color: str) -> str:
    """Black or white, whichever is easier to read on ``color``."""
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#FFFFFF"
