"""Places for the boxes of a graph: a level for each node, and lanes for long edges.

A node stands one level below the lowest of its inputs. An edge that skips levels gets a narrow
place in each of them, so that no line crosses a box. Nodes of a level are ordered by the mean place
of their neighbours, which removes most crossings. Nodes that follow on each other stand in one
column.

Source: K. Sugiyama, S. Tagawa, M. Toda, "Methods for Visual Understanding of Hierarchical System
Structures", 1981.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

_SWEEPS = 12


@dataclass(eq=False)
class Place:
    """A box, or one level of an edge that passes by.

    Attributes:
        value: the value of a graph that the box stands for; None for a passing edge.
        level: from 0 at the top.
        width: in the units of the layout.
        x: the middle.
        above, below: the places that lines lead to.
    """

    value: int | None
    level: int
    width: float
    x: float = 0.0
    above: list[Place] = field(default_factory=list)
    below: list[Place] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Layout:
    """Places by level, from the top; lines lead from each place to those in its ``below``."""

    levels: list[list[Place]]

    @property
    def left(self) -> float:
        """The left edge of all places."""
        return min(one.x - one.width / 2 for level in self.levels for one in level)

    @property
    def right(self) -> float:
        """The right edge of all places."""
        return max(one.x + one.width / 2 for level in self.levels for one in level)


def layout(inputs: Sequence[Sequence[int]], box: float, lane: float) -> Layout:
    """Places for values, of which each is a box.

    Args:
        inputs: for each value the values that it is made of; those of smaller numbers.
        box: the width of a box, with the space beside it.
        lane: the width of an edge that passes by.

    >>> chain = layout([(), (0,), (1,)], 3.0, 0.5)
    >>> [(place.value, place.x) for level in chain.levels for place in level]
    [(0, 0.0), (1, 0.0), (2, 0.0)]
    >>> [len(level) for level in layout([(), (0,), (1, 0)], 3.0, 0.5).levels]
    [1, 2, 1]
    """
    depth = list[int]()
    for taken in inputs:
        depth.append(max((depth[value] + 1 for value in taken), default=0))
    for value, taken in enumerate(inputs):  # an input stands just above its first user
        users = [depth[user] for user, values in enumerate(inputs) if value in values]
        if not taken and users:
            depth[value] = min(users) - 1
    levels: list[list[Place]] = [[] for _ in range(max(depth) + 1)]
    boxes = list[Place]()
    for value, level in enumerate(depth):
        boxes.append(Place(value, level, box))
        levels[level].append(boxes[-1])
    for value, taken in enumerate(inputs):
        for source in dict.fromkeys(taken):
            upper = boxes[source]
            for level in range(upper.level + 1, depth[value]):
                passing = Place(None, level, lane)
                levels[level].append(passing)
                _join(upper, passing)
                upper = passing
            _join(upper, boxes[value])
    result = Layout(levels)
    _order(levels)
    _align(levels)
    return result


def _join(upper: Place, lower: Place) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _order(levels: list[list[Place]]) -> None:
    """Sort each level by the mean place of its neighbours above, then below, several times."""
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for level in levels if down else levels[::-1]:
            for other in levels:
                for i, place in enumerate(other):
                    place.x = float(i) - (len(other) - 1) / 2
            means = {
                id(place): sum(one.x for one in near) / len(near) if near else place.x
                for place in level
                for near in [place.above if down else place.below]
            }
            level.sort(key=lambda place: means[id(place)])


def _align(levels: list[list[Place]]) -> None:
    """Give each place its x: places that follow on each other stand in one straight column.

    A place continues the column of a place above it, of a box rather than of a passing edge, unless
    another one does, or columns would cross. Columns stand as far left as the boxes beside them
    allow.
    """
    column: dict[int, list[float]] = {}  # of each place its column's x, shared by the column
    for level, above in zip(levels, [[], *levels], strict=False):
        index = {id(place): i for i, place in enumerate(above)}
        last = -1
        for place in level:
            near = sorted(place.above, key=lambda one: (one.value is None, index[id(one)]))
            for one in near:
                if index[id(one)] > last:
                    last = index[id(one)]
                    column[id(place)] = column[id(one)]
                    break
            else:
                column[id(place)] = [0.0]
    for _ in range(len(column)):  # as often as columns push each other, at most
        moved = False
        for level in levels:
            for left, right in pairwise(level):
                least = column[id(left)][0] + (left.width + right.width) / 2
                if column[id(right)][0] < least - 1e-9:
                    column[id(right)][0], moved = least, True
        if not moved:
            break
    for level in levels:
        for place in level:
            (place.x,) = column[id(place)]
