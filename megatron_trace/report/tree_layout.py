"""Where each turn of a rollout tree stands in its picture.

A bare rollout runs from left to right in a straight line; the continuations of a turn hang below
it.
"""

from dataclasses import dataclass

from megatron_trace.tree import ROOT, RolloutTree

LEAST_WIDTH = 1160.0
"""Width of a picture in pixels; a deep tree takes more."""

MARGIN = 24.0
COLUMN_GAP = 40.0
ROOT_WIDTH = 104.0
BOX_HEIGHT = 38.0
ROW_HEIGHT = 50.0
MIN_BOX_WIDTH, MAX_BOX_WIDTH = 128.0, 224.0


@dataclass(frozen=True)
class Columns:
    """Widths in pixels: of the picture, and of a turn's box."""

    picture_width: float
    box_width: float


@dataclass(frozen=True)
class Box:
    """Upper left corner and width of a turn's box."""

    x: float
    y: float
    width: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def middle(self) -> float:
        """Half way between its upper and its lower edge."""
        return self.y + BOX_HEIGHT / 2


def columns(tree: RolloutTree) -> Columns:
    """How wide the boxes can be, so that the deepest rollout fits."""
    depth = max(_depth(tree, index) for index in range(len(tree.turns)))
    fixed = 2 * MARGIN + ROOT_WIDTH
    column = (LEAST_WIDTH - fixed) / max(depth, 1)
    # Below the minimum a box has no room for its texts: then the picture gets wider instead.
    box_width = min(max(column - COLUMN_GAP, MIN_BOX_WIDTH), MAX_BOX_WIDTH)
    needed = fixed + depth * (box_width + COLUMN_GAP)
    return Columns(max(LEAST_WIDTH, needed), box_width)


def boxes(tree: RolloutTree, box_width: float, top: float) -> tuple[list[Box], float]:
    """The box of each turn, and the lower edge of all; `top` is the upper edge."""
    y, bottom = _rows(tree, top)
    found = [Box(MARGIN, y[ROOT], ROOT_WIDTH)]
    first_column = MARGIN + ROOT_WIDTH + COLUMN_GAP
    for index in range(1, len(tree.turns)):
        level = _depth(tree, index) - 1
        x = first_column + level * (box_width + COLUMN_GAP)
        found.append(Box(x, y[index], box_width))
    return found, bottom


def _depth(tree: RolloutTree, index: int) -> int:
    """Turns between the root and this one, itself included."""
    return len(tree.path(index)) - 1


def _rows(tree: RolloutTree, top: float) -> tuple[list[float], float]:
    """Upper edge of each turn, and the lower edge of all: a turn is level with its first child."""
    children = tree.children()
    y = [top] * len(tree.turns)
    # Depth first, and the first child before its siblings: so a rollout's leaf takes the next free
    # row, and whatever branches from the rollout comes in the rows below.
    next_row = top
    stack = [ROOT]
    while stack:
        index = stack.pop()
        y[index] = next_row
        if not children[index]:
            next_row += ROW_HEIGHT
        stack += reversed(children[index])
    # A child has a higher index than its parent: from the last turn backwards, a child is in place
    # before its parent.
    for index in range(len(tree.turns) - 1, ROOT, -1):
        if children[index]:
            y[index] = y[children[index][0]]
    if children[ROOT]:
        y[ROOT] = (y[children[ROOT][0]] + y[children[ROOT][-1]]) / 2
    return y, next_row
