"""downsample: a coarser picture. A control from no paper.

Where the grid of vision tokens follows the size of the picture, the picture is made smaller before
the processor sees it; where the grid is fixed, blocks of neighbouring vision tokens become their
mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightkv.contract.checks import check_share
from lightkv.contract.layout import TokenLayout
from lightkv.contract.reduction import Reduction
from lightkv.contract.registry import register
from lightkv.contract.view import LayerView, ModelFacts
from lightkv.errors import InvalidValueError
from lightkv.pruning.before import BeforeDecoder
from lightkv.pruning.cell_plans import Counted, blocks, planned, vision_share


@register("downsample", by_share=lambda share: Downsample(kept=share))
@dataclass(frozen=True)
class Downsample(BeforeDecoder):
    """A coarser picture: a smaller one, or means of neighbouring vision tokens.

    Pictures are resized before the processor where the model's grid follows their size; elsewhere
    2 x 2 tokens become one at a quarter. Both sides shrink alike; sides of a grid that don't divide
    are cut into nearly equal parts, in the numbers that come nearest to the share.

    Attributes:
        kept: Share of the tokens that stays, as nearly as whole rows and columns allow. Line
            breaks count as tokens; a band of rows keeps one.
        of: What it is a share of: "vision" tokens, or the whole "prompt", whose text stays, so
            that as many entries are held as by an evictor of that retention.
    """

    kept: float = 0.25
    of: Counted = "vision"

    def stage_layers(self, facts: ModelFacts) -> tuple[int, ...]:
        """Before the first layer; none where the picture itself is made smaller."""
        return () if facts.grid_follows_picture else (-1,)

    def acts_on_pictures(self, facts: ModelFacts) -> bool:
        """True where the grid follows the picture."""
        return facts.grid_follows_picture

    def picture_shares(self, layout: TokenLayout) -> list[float]:
        """The share of each prompt's vision tokens."""
        return [float(share) for share in vision_share(self.kept, self.of, layout)]

    def check(self, facts: ModelFacts) -> None:
        """Refuse a share out of range, and positions to keep where nothing is dropped."""
        check_share("kept", self.kept)
        if facts.grid_follows_picture and self.positions != "reindex":
            allowed = "reindex: of a smaller picture no token ever had another position"
            raise InvalidValueError("positions", self.positions, allowed)

    def check_layout(self, layout: TokenLayout) -> None:
        """Refuse a prompt without image, or with more text than the share."""
        super().check_layout(layout)
        vision_share(self.kept, self.of, layout)

    def reduce(self, view: LayerView) -> Reduction:
        """Merge each block of a grid into its first token."""
        layout = view.layout
        shares = vision_share(self.kept, self.of, layout)
        block = planned(
            layout,
            lambda pieces: [blocks(shares[one.row], one.grid, one.breaks) for one in pieces],
        )
        segments = int(layout.segment.max()) + 1
        label = torch.where(block >= 0, block * segments + layout.segment, 0)
        places = torch.arange(layout.length, device=label.device).expand_as(label)
        # The first token of each block; all others of the row are later.
        first = torch.full((len(label), int(label.max()) + 1), layout.length, device=label.device)
        first.scatter_reduce_(1, label, torch.where(block >= 0, places, layout.length), "amin")
        representative = torch.where(block >= 0, first.gather(1, label), places)
        representative = torch.where(layout.real, representative, -1)
        return Reduction.from_groups(representative, torch.ones(label.shape, device=label.device))
