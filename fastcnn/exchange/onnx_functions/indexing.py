"""ONNX's operators that take or set numbers at given places, and sums of products by letters."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from fastcnn.exchange.onnx_functions.elementwise import wide
from fastcnn.exchange.onnx_functions.moving import affordable
from fastcnn.exchange.onnx_functions.nodes import Array, OnnxNode, as_axis, function_of

_REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}

Index = tuple[Array, ...]
"""An array of places for each of the first axes of an array."""


def _checked(node: OnnxNode, indices: Array, side: int) -> Array:
    """Indices into an axis, of which negative ones count from the end."""
    if indices.dtype.kind not in "iu":
        raise node.error(f"indices must be integers, got {indices.dtype}")
    if indices.size and not (-side <= indices.min() and indices.max() < side):
        raise node.error(f"indices must be from {-side} to {side - 1}")
    return indices


def places_along(node: OnnxNode, x: Array, indices: Array) -> Index:
    """The places that GatherElements and ScatterElements name: along an axis those of the indices.

    The other axes have the places of the indices themselves.
    """
    if indices.ndim != x.ndim or not x.ndim:
        raise node.error(f"indices must have {x.ndim} axes, at least 1, got shape {indices.shape}")
    axis = as_axis(node, node.integer("axis", 0), x.ndim)
    sides = [side for i, side in enumerate(indices.shape) if i != axis]
    if any(a > b for a, b in zip(sides, np.delete(x.shape, axis), strict=True)):
        raise node.error(f"indices of shape {indices.shape} do not fit the shape {x.shape}")
    affordable(node, (x.ndim, *indices.shape), 8)
    places: list[Array] = list(np.indices(indices.shape, sparse=True))
    places[axis] = _checked(node, indices, x.shape[axis])
    return tuple(places)


def places_of_rows(node: OnnxNode, x: Array, indices: Array, batch_axes: int = 0) -> Index:
    """The places that GatherND and ScatterND name: each row of the indices is one."""
    if not indices.ndim or not indices.shape[-1]:
        raise node.error(f"indices must have rows of numbers, got the shape {indices.shape}")
    count = indices.shape[-1]
    if not 0 <= batch_axes < min(x.ndim, indices.ndim) or batch_axes + count > x.ndim:
        raise node.error(
            f"indices of shape {indices.shape} with {batch_axes} axes of the batch do not fit the "
            f"shape {x.shape}"
        )
    if indices.shape[:batch_axes] != x.shape[:batch_axes]:
        raise node.error(f"indices of shape {indices.shape} do not fit the shape {x.shape}")
    lead = indices.shape[:-1]
    rows = [
        np.arange(lead[i]).reshape([-1 if k == i else 1 for k in range(len(lead))])
        for i in range(batch_axes)
    ]
    sides = x.shape[batch_axes : batch_axes + count]
    named = [_checked(node, indices[..., i], side) for i, side in enumerate(sides)]
    return (*rows, *named)


@function_of("GatherElements")
def gather_elements(node: OnnxNode, x: Array, indices: Array) -> Array:
    """The numbers at places along an axis."""
    affordable(node, indices.shape, x.itemsize)
    return np.asarray(x[places_along(node, x, indices)])


@function_of("GatherND")
def gather_nd(node: OnnxNode, x: Array, indices: Array) -> Array:
    """The parts of the input at the places that the rows of the indices name."""
    batch_axes = node.integer("batch_dims", 0)
    places = places_of_rows(node, x, indices, batch_axes)
    shape = (*indices.shape[:-1], *x.shape[batch_axes + indices.shape[-1] :])
    affordable(node, shape, x.itemsize)
    return np.asarray(x[places])


@function_of("ScatterElements")
def scatter_elements(node: OnnxNode, x: Array, indices: Array, updates: Array) -> Array:
    """The input with other numbers at places along an axis."""
    if updates.shape != indices.shape:
        raise node.error(f"updates must have the shape {indices.shape}, got {updates.shape}")
    return _scattered(node, x, places_along(node, x, indices), updates)


@function_of("ScatterND")
def scatter_nd(node: OnnxNode, x: Array, indices: Array, updates: Array) -> Array:
    """The input with other parts at the places that the rows of the indices name."""
    places = places_of_rows(node, x, indices)
    shape = (*indices.shape[:-1], *x.shape[indices.shape[-1] :])
    if updates.shape != shape:
        raise node.error(f"updates must have the shape {shape}, got {updates.shape}")
    return _scattered(node, x, places, updates)


def _scattered(node: OnnxNode, x: Array, places: Index, updates: Array) -> Array:
    if updates.dtype != x.dtype:
        raise node.error(f"updates must have the type {x.dtype}, got {updates.dtype}")
    affordable(node, x.shape, x.itemsize)
    reduction, result = node.text("reduction", "none", ("none", *_REDUCTIONS)), x.copy()
    if reduction == "none":
        result[places] = updates
    else:
        _REDUCTIONS[reduction].at(result, places, updates)
    return result


def einsum_terms(node: OnnxNode, ranks: Sequence[int]) -> tuple[list[str], str]:
    """A letter for each axis of each input, and those of the result; none is an ellipsis."""
    equation = node.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    letters = {one for one in equation if one in string.ascii_letters}
    if len(terms) != len(ranks) or not set(equation) <= letters | set(",.->"):
        raise node.error(f"the equation {equation!r} does not fit {len(ranks)} inputs")
    free = [one for one in string.ascii_letters if one not in letters]
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    most = max((n for n, term in zip(counts, terms, strict=True) if "..." in term), default=0)
    if most > len(free) or any(
        n < 0 or (n and "..." not in term) for n, term in zip(counts, terms, strict=True)
    ):
        raise node.error(f"the equation {equation!r} does not fit inputs of {list(ranks)} axes")
    ellipsis = "".join(free[:most])
    terms = [
        term.replace("...", ellipsis[most - n :]) for n, term in zip(counts, terms, strict=True)
    ]
    if not arrow:
        joined = "".join(terms)
        once = sorted(one for one in letters if joined.count(one) == 1)
        return terms, ellipsis + "".join(once)
    result = right.replace("...", ellipsis)
    if "." in "".join(terms) + result or len(set(result)) < len(result):
        raise node.error(f"the equation {equation!r} cannot be read")
    if not set(result) <= set("".join(terms)):
        raise node.error(f"the equation {equation!r} has letters in its result alone")
    return terms, result


@function_of("Einsum")
def einsum(node: OnnxNode, *arrays: Array) -> Array:
    """A sum of products, as NumPy's ``einsum``."""
    terms, result = einsum_terms(node, [one.ndim for one in arrays])
    sides: dict[str, int] = {}
    for term, array in zip(terms, arrays, strict=True):
        for letter, side in zip(term, array.shape, strict=True):
            if side != 1 and sides.get(letter, 1) not in (1, side):
                raise node.error(f"axes {letter!r} have {sides[letter]} and {side} numbers")
            sides[letter] = side if sides.get(letter, 1) == 1 else sides[letter]
    affordable(node, tuple(sides[letter] for letter in result), arrays[0].itemsize)
    equation = f"{','.join(terms)}->{result}"
    # NumPy's einsum knows no type of another package, such as bfloat16.
    wides = [one.astype(np.float32) if one.dtype.kind == "V" else wide(one) for one in arrays]
    return np.asarray(np.einsum(equation, *wides, optimize=len(arrays) > 1)).astype(arrays[0].dtype)
