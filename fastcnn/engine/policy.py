"""Costs of algorithms, by which ``algorithm="auto"`` chooses one for a convolution.

The unit of cost is one multiply-add of a full vector, because the direct algorithm spends almost
all of its time on these. The choice for a result of one image does not depend on the size of the
batch, so an image gives the same bits in any batch. ``benchmarks/policy.py`` compares the choices
with measurements.
"""

from __future__ import annotations

from typing import NamedTuple

from fastcnn.core.geometry import ConvGeometry
from fastcnn.core.long_sums import STRETCH

# Costs of one transform of a vector of channels, loads and stores included, measured on a Zen 4
# processor. A filter's transform is measured on filters that are read from memory.
_TO_SQUARE, _BACK, _TO_FILTER, _FROM_SUMS = 220, 160, 200, 300
# Fixed costs of a call, such as launches, beyond the costs of the direct algorithm.
_FIXED = 30_000


class Squares(NamedTuple):
    """The squares of an image in Winograd's filtering: rows × columns, of ``side``² outputs each.

    ``points`` is how many products a square takes for a pair of channels.
    """

    side: int
    rows: int
    columns: int
    points: int

    @property
    def number(self) -> int:
        """Squares of an image."""
        return self.rows * self.columns


def squares(g: ConvGeometry) -> Squares:
    """The squares with the fewest products. A tie goes to smaller squares, which round less.

    >>> from fastcnn.core.geometry import conv_geometry
    >>> squares(conv_geometry((1, 56, 56, 64), (3, 3, 64, 64), padding=1))
    Squares(side=4, rows=14, columns=14, points=36)
    >>> squares(conv_geometry((1, 4, 4, 64), (3, 3, 64, 64))).side
    2
    """
    sides = (2, 4) if g.kh == 3 else (2,)
    cuts = [Squares(m, -(-g.oh // m), -(-g.ow // m), (m + g.kh - 1) ** 2) for m in sides]
    return min(cuts, key=lambda cut: cut.number * cut.points)


def winograd_cannot(g: ConvGeometry) -> str | None:
    """Why Winograd's filtering does not serve this layer, or None if it does."""
    if g.kh != g.kw or g.kh not in (3, 5):
        return f"it is made for filters of 3×3 and 5×5, not {g.kh}×{g.kw}"
    if (g.stride_h, g.stride_w) != (1, 1):
        return f"it is made for stride 1, not {(g.stride_h, g.stride_w)}"
    if (g.dilation_h, g.dilation_w) != (1, 1):
        return f"it is made for filters without dilation, not {(g.dilation_h, g.dilation_w)}"
    if g.groups != 1:
        return f"it is made for one group of channels, not {g.groups}"
    if max(g.ic, g.oc) > STRETCH:
        return f"it sums over at most {STRETCH} channels, not {max(g.ic, g.oc)}"
    return None


def winograd_costs(g: ConvGeometry, lanes: int = 16) -> float:
    """Costs of Winograd's filtering for one image, as a share of the direct algorithm's costs.

    >>> from fastcnn.core.geometry import conv_geometry
    >>> winograd_costs(conv_geometry((1, 56, 56, 64), (3, 3, 64, 64), padding=1)) < 0.4
    True
    """
    cut = squares(g)
    ic, oc = -(-g.ic // lanes), -(-g.oc // lanes)
    products = cut.number * cut.points * g.ic * (oc + oc % 2)  # whole tiles are two vectors wide
    transforms = cut.number * (_TO_SQUARE * ic + _BACK * oc) + _TO_FILTER * g.ic * oc
    direct = g.oh * g.ow * g.kh * g.kw * g.ic * _direct_vectors(g.oc, lanes)
    return (products + transforms * cut.points / 36 + _FIXED) / direct


def _direct_vectors(columns: int, lanes: int) -> float:
    """Vectors of columns in the direct algorithm's tiles; few columns count as half a vector."""
    return 0.5 if columns <= lanes // 2 else -(-columns // lanes)


def winograd_gradient_costs(g: ConvGeometry, lanes: int = 16) -> float:
    """The share of :func:`winograd_costs` for the gradient of the filters over the whole batch.

    >>> from fastcnn.core.geometry import conv_geometry
    >>> winograd_gradient_costs(conv_geometry((8, 56, 56, 64), (3, 3, 64, 64), padding=1)) < 0.5
    True
    """
    cut, n = squares(g), max(g.n, 1)
    ic, oc = -(-g.ic // lanes), -(-g.oc // lanes)
    products = n * cut.number * cut.points * g.ic * (oc + oc % 2)
    transforms = n * cut.number * _TO_SQUARE * (ic + oc) + _FROM_SUMS * g.ic * oc
    direct = n * g.oh * g.ow * g.kh * g.kw * g.ic * _direct_vectors(g.oc, lanes)
    return (products + transforms * cut.points / 36 + _FIXED) / direct
