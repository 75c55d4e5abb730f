"""Bound for the distance between Winograd's filtering and a direct sum, with its derivation.

A tile is Y = Aᵀ [Σ (G w Gᵀ) ⊙ (Bᵀ x B)] A. The sum goes over input channels or, for the gradient of
the filters, over squares. Each step is a sum of products, so the error follows from two numbers.
One is the number of roundings of a single term. The other is the same formula over absolute values,
the magnitude of the terms before they cancel:

    W = |Aᵀ| [Σ (|G| |w| |Gᵀ|) ⊙ (|Bᵀ| |x| |B|)] |A|

A one-dimensional transform by a row of z coefficients other than 0 rounds each term at most z + 2
times: once for the coefficient itself (1/6 is no binary fraction), once for the product, and z
times for the sums, including the shared sum and difference of a pair of points. Each of the three
transforms has two of these. With the products and sums over n terms, and a bias,

    |engine − specification| ≤ (γ(n + 2·Σ (z + 2) + 2, u) + γ(N, 2⁻⁵³))·W + u·|y|

where N is the number of terms of the specification's sum, whose magnitude is at most W. W is many
times Σ|x||w|, in the worst case some hundred times. This is the price of F(4×4, 3×3). Actual errors
are far smaller, because most of them cancel.

Source: B. Barabasz, A. Anderson, K. Soodhalter, D. Gregg, "Error Analysis and Improving the
Accuracy of Winograd Convolution for Deep Neural Networks", arXiv:1803.10986.
"""

from __future__ import annotations

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.core.minimal_filtering import Matrix, filtering
from fastcnn.engine import policy


def magnitude(x: Array, w: Array, g: ConvGeometry) -> Array:
    """W of ``y`` in float64, for ``g`` with stride 1, without dilation, in one group.

    >>> from fastcnn.core.geometry import conv_geometry
    >>> x, w = np.ones((1, 2, 2, 1)), np.ones((3, 3, 1, 1))
    >>> magnitude(x, w, conv_geometry(x.shape, w.shape, padding=1)).shape
    (1, 2, 2, 1)
    """
    side = policy.squares(g).side
    inputs, filters, outputs = map(_absolute, filtering(side, g.kh))
    squares = _squares(np.abs(x.astype(np.float64)), g, side, side + g.kh - 1)
    v = np.einsum("ia,nsatbc,jb->nstijc", inputs, squares, inputs)
    u = np.einsum("ia,abco,jb->ijco", filters, np.abs(w.astype(np.float64)), filters)
    products = np.einsum("nstijc,ijco->nstijo", v, u)
    y = np.einsum("pi,nstijo,qj->nsptqo", outputs, products, outputs)
    n, s, p, t, q, oc = y.shape
    images: Array = y.reshape(n, s * p, t * q, oc)[:, : g.oh, : g.ow]
    return images


def gradient_magnitude(dy: Array, x: Array, g: ConvGeometry) -> Array:
    """W of ``dw`` in float64; the sum goes over all squares.

    >>> from fastcnn.core.geometry import conv_geometry
    >>> x, dy = np.ones((1, 3, 4, 2)), np.ones((1, 1, 2, 5))
    >>> gradient_magnitude(dy, x, conv_geometry(x.shape, (3, 3, 2, 5))).shape
    (3, 3, 2, 5)
    """
    side = policy.squares(g).side
    inputs, filters, outputs = map(_absolute, filtering(g.kh, side))
    squares = _squares(np.abs(x.astype(np.float64)), g, side, side + g.kh - 1)
    v = np.einsum("ia,nsatbc,jb->nstijc", inputs, squares, inputs)
    of_dy = g._replace(h=g.oh, w=g.ow, pad_top=0, pad_left=0)
    squares = _squares(np.abs(dy.astype(np.float64)), of_dy, side, side)
    z = np.einsum("ia,nsatbo,jb->nstijo", filters, squares, filters)
    sums = np.einsum("nstijc,nstijo->ijco", v, z)
    gradient: Array = np.einsum("pi,ijco,qj->pqco", outputs, sums, outputs)
    return gradient


def roundings(terms: int, m: int, r: int) -> int:
    """How often a term of F(m, r) is rounded, for sums over ``terms`` terms.

    >>> roundings(512, 2, 3), roundings(512, 4, 3)
    (542, 550)
    """
    transforms = sum(
        2 * (max(sum(c != 0 for c in row) for row in matrix) + 2) for matrix in filtering(m, r)
    )
    return terms + transforms + 2


def _absolute(matrix: Matrix) -> Array:
    return np.array([[abs(float(c)) for c in row] for row in matrix])


def _squares(x: Array, g: ConvGeometry, step: int, side: int) -> Array:
    """Squares of ``side`` pixels at distances of ``step``: (N, rows, side, columns, side, C)."""
    rows = np.arange(-(-g.oh // step))[:, None] * step - g.pad_top + np.arange(side)
    columns = np.arange(-(-g.ow // step))[:, None] * step - g.pad_left + np.arange(side)
    inside = (rows >= 0) & (rows < g.h), (columns >= 0) & (columns < g.w)
    squares: Array = x[:, rows.clip(0, g.h - 1)][:, :, :, columns.clip(0, g.w - 1)]
    return squares * inside[0][:, :, None, None, None] * inside[1][:, :, None]
