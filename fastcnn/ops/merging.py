"""Arrays merged into one: sum, difference, product, maximum, concatenation; and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, shaped
from fastcnn.core.broadcasting import checked_shape, merged_shape
from fastcnn.core.geometry import integer
from fastcnn.core.quoting import quoted
from fastcnn.engine import registry
from fastcnn.ops.bound_calls import Facts, binding, call
from fastcnn.ops.declaration import operation

_OPERANDS = """
a, b: arrays (N, …) with the same number of axes and the same batch N. Each other axis is equal
    in both, or 1 in one of them, whose numbers then meet each index of the other's axis.
a_shape, b_shape: the shapes of a and b, tuples of ints.
dy: gradient of the output, in the shape of the output.
"""


@operation(_OPERANDS)
def add(a: ArrayLike, b: ArrayLike, *, engine: str | None = None) -> Array:
    """``a + b``, element by element.

    Returns:
        y, of the common dtype of the arrays. Each axis is the longer of the two.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.add(np.array([[1.0, 2.0]]), np.array([[10.0]]))
        array([[11., 12.]])
    """
    y: Array = call(_merged, (a, b), "add", engine)
    return y


@operation(_OPERANDS)
def add_backward(
    dy: ArrayLike,
    a_shape: Sequence[int],
    b_shape: Sequence[int],
    *,
    engine: str | None = None,
) -> tuple[Array, Array]:
    """Both gradients of :func:`add`: dy, summed over the axes that are 1 in a or in b.

    Returns:
        da in the shape of a and db in the shape of b, of the dtype of dy.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.add_backward(np.array([[3.0, 4.0]]), (1, 2), (1, 1))
        (array([[3., 4.]]), array([[7.]]))
    """
    da, db = call(_gradients_from_shapes, (dy,), "add_backward", a_shape, b_shape, engine)
    return da, db


@operation(_OPERANDS)
def subtract(a: ArrayLike, b: ArrayLike, *, engine: str | None = None) -> Array:
    """``a - b``, element by element.

    Returns:
        y, of the common dtype of the arrays. Each axis is the longer of the two.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.subtract(np.array([[1.0, 2.0]]), np.array([[10.0]]))
        array([[-9., -8.]])
    """
    y: Array = call(_merged, (a, b), "subtract", engine)
    return y


@operation(_OPERANDS)
def subtract_backward(
    dy: ArrayLike,
    a_shape: Sequence[int],
    b_shape: Sequence[int],
    *,
    engine: str | None = None,
) -> tuple[Array, Array]:
    """Both gradients of :func:`subtract`: dy and −dy, summed over the axes that are 1 in a or in b.

    Returns:
        da in the shape of a and db in the shape of b, of the dtype of dy.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.subtract_backward(np.array([[3.0, 4.0]]), (1, 2), (1, 1))
        (array([[3., 4.]]), array([[-7.]]))
    """
    da, db = call(_gradients_from_shapes, (dy,), "subtract_backward", a_shape, b_shape, engine)
    return da, db


@operation(_OPERANDS)
def multiply(a: ArrayLike, b: ArrayLike, *, engine: str | None = None) -> Array:
    """``a * b``, element by element.

    With b (N, 1, 1, C) it scales the channels of images (N, H, W, C), as a squeeze-and-excitation
    block does. With b (N, H, W, 1) it scales their pixels.

    Returns:
        y, of the common dtype of the arrays. Each axis is the longer of the two.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.multiply(np.array([[1.0, 2.0]]), np.array([[10.0]]))
        array([[10., 20.]])

    Source: J. Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507.
    """
    y: Array = call(_merged, (a, b), "multiply", engine)
    return y


@operation(_OPERANDS)
def multiply_backward(
    dy: ArrayLike, a: ArrayLike, b: ArrayLike, *, engine: str | None = None
) -> tuple[Array, Array]:
    """Both gradients of :func:`multiply`: dy times the other operand, summed over axes that are 1.

    Returns:
        da in the shape of a and db in the shape of b, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy, a, b = np.array([[3.0, 4.0]]), np.array([[1.0, 2.0]]), np.array([[10.0]])
        >>> fastcnn.multiply_backward(dy, a, b)
        (array([[30., 40.]]), array([[11.]]))
    """
    da, db = call(_gradients, (dy, a, b), "multiply_backward", engine)
    return da, db


@operation(_OPERANDS)
def maximum(a: ArrayLike, b: ArrayLike, *, engine: str | None = None) -> Array:
    """The larger of a and b, element by element. NaN wins over every number.

    Returns:
        y, of the common dtype of the arrays. Each axis is the longer of the two.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.maximum(np.array([[1.0, 5.0, np.nan]]), np.array([[2.0, 4.0, 3.0]]))
        array([[ 2.,  5., nan]])

    Source: I. Goodfellow et al., "Maxout Networks", arXiv:1302.4389.
    """
    y: Array = call(_merged, (a, b), "maximum", engine)
    return y


@operation(_OPERANDS)
def maximum_backward(
    dy: ArrayLike, a: ArrayLike, b: ArrayLike, *, engine: str | None = None
) -> tuple[Array, Array]:
    """Both gradients of :func:`maximum`: dy where the operand is the result, else 0.

    Where a and b are equal or both are NaN, dy goes to a alone. Where one of them is NaN, dy goes
    to this one.

    Returns:
        da in the shape of a and db in the shape of b, of the common dtype of the arrays. They are
        summed over the axes that are 1 in a or in b.

    Example:
        >>> import numpy as np, fastcnn
        >>> dy, a, b = np.array([[6.0, 7.0]]), np.array([[1.0, 2.0]]), np.array([[3.0, 2.0]])
        >>> fastcnn.maximum_backward(dy, a, b)
        (array([[0., 7.]]), array([[6., 0.]]))
    """
    da, db = call(_gradients, (dy, a, b), "maximum_backward", engine)
    return da, db


@operation()
def concatenate(arrays: Sequence[ArrayLike], axis: int = -1, *, engine: str | None = None) -> Array:
    """Arrays side by side along one axis, such as the channels of several images.

    Args:
        arrays: one or more arrays with the same number of axes, at least 1. Their lengths are equal
            in all axes but one.
        axis: the axis in which the lengths may differ, from the first, 0, or from the last, -1.

    Returns:
        y, of the common dtype of the arrays.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.concatenate([np.array([[1.0, 2.0]]), np.array([[3.0]])])
        array([[1., 2., 3.]])
    """
    if isinstance(arrays, str | bytes) or not isinstance(arrays, Sequence):
        raise TypeError(f"arrays must be a list or a tuple of arrays, got {quoted(arrays)}")
    if not arrays:
        raise ValueError("arrays must hold at least one array, got none")
    if isinstance(arrays[0], int | float):  # before a long list of numbers becomes arrays
        raise ValueError(f"arrays must hold arrays with at least one axis, got {quoted(arrays)}")
    y: Array = call(_concatenated, tuple(arrays), axis, engine)
    return y


@binding()
def _concatenated(parts: tuple[Facts, ...], axis: object, engine: str | None) -> Callable[..., Any]:
    shapes = [part.shape for part in parts]
    place = _axis(axis, "arrays", shapes[0])
    fixed = {(*shape[:place], *shape[place + 1 :]) for shape in shapes}
    if len(fixed) > 1 or len({len(shape) for shape in shapes}) > 1:
        raise ValueError(
            f"arrays must have shapes that are equal in all axes but axis {place}, got "
            f"{quoted(shapes)}"
        )
    first = shapes[0]
    joined = *first[:place], sum(shape[place] for shape in shapes), *first[place + 1 :]
    bound = registry.bind("concatenate", joined, parts[0].dtype, place, how=(engine,))
    return lambda *arrays: bound(arrays)


@operation()
def concatenate_backward(
    dy: ArrayLike, sizes: Sequence[int], axis: int = -1, *, engine: str | None = None
) -> tuple[Array, ...]:
    """All gradients of :func:`concatenate`: dy, cut where the arrays met.

    Args:
        dy: gradient of the output, in the shape of the output.
        sizes: the length of each array along the axis, ints that add up to that of dy.
        axis: the axis along which the arrays lie side by side, from the first, 0, or the last, -1.

    Returns:
        A tuple of new arrays, one for each size, of the dtype of dy.

    Example:
        >>> import numpy as np, fastcnn
        >>> fastcnn.concatenate_backward(np.array([[1.0, 2.0, 3.0]]), (2, 1))
        (array([[1., 2.]]), array([[3.]]))
    """
    gradients: tuple[Array, ...] = call(_split, (dy,), sizes, axis, engine)
    return gradients


@binding("dy")
def _split(dy: Facts, sizes: object, axis: object, engine: str | None) -> Callable[..., Any]:
    place, parts = _axis(axis, "dy", dy.shape), checked_shape("sizes", sizes)
    if not parts or sum(parts) != dy.shape[place]:
        raise ValueError(
            f"sizes must add up to the length of dy along axis {place}, {dy.shape[place]}, got "
            f"{quoted(sizes)} for dy {dy.shape}"
        )
    how = (engine,)
    return registry.bind("concatenate_backward", dy.shape, dy.dtype, parts, place, how=how)


def _axis(value: object, name: str, shape: tuple[int, ...]) -> int:
    """``value`` as the number of an axis of the array ``name``, from the first on."""
    axis, axes = integer("axis", value, value), len(shape)
    if axes == 0:
        raise ValueError(f"{name} must have at least one axis, got the shape {shape}")
    if not -axes <= axis < axes:
        raise ValueError(f"axis must be at least {-axes} and below {axes}, got {quoted(value)}")
    return axis % axes


@binding("a", "b")
def _merged(a: Facts, b: Facts, op: str, engine: str | None) -> Callable[..., Any]:
    merged_shape(a.shape, b.shape)
    return registry.bind(op, (*a.shape, *b.shape), a.dtype, how=(engine,))


@binding("dy", "a", "b")
def _gradients(dy: Facts, a: Facts, b: Facts, op: str, engine: str | None) -> Callable[..., Any]:
    shaped("dy", dy, merged_shape(a.shape, b.shape), "the shape of the output")
    return registry.bind(op, (*a.shape, *b.shape), dy.dtype, how=(engine,))


@binding("dy")
def _gradients_from_shapes(
    dy: Facts, op: str, a_shape: object, b_shape: object, engine: str | None
) -> Callable[..., Any]:
    of_a, of_b = checked_shape("a_shape", a_shape), checked_shape("b_shape", b_shape)
    output = merged_shape(of_a, of_b, "a_shape and b_shape")
    shaped("dy", dy, output, "the shape of the output")
    return registry.bind(op, (*of_a, *of_b), dy.dtype, of_a, of_b, how=(engine,))
