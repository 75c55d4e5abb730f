"""Arrays merged into one: sum, difference, product, maximum, concatenation; and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array, floats, shaped
from fastcnn.core.broadcasting import checked_shape, merged_shape
from fastcnn.core.geometry import integer
from fastcnn.core.quoting import quoted
from fastcnn.engine import registry
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
    return _merged("add", a, b, engine)


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
    return _gradients_from_shapes("add_backward", dy, a_shape, b_shape, engine)


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
    return _merged("subtract", a, b, engine)


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
    return _gradients_from_shapes("subtract_backward", dy, a_shape, b_shape, engine)


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
    return _merged("multiply", a, b, engine)


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
    return _gradients("multiply_backward", dy, a, b, engine)


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
    return _merged("maximum", a, b, engine)


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
    return _gradients("maximum_backward", dy, a, b, engine)


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
    parts = floats(**{f"arrays[{i}]": array for i, array in enumerate(arrays)})
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
    function = registry.choose("concatenate", joined, parts[0].dtype, engine)
    y: Array = function(tuple(parts), place)
    return y


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
    (dy,) = floats(dy=dy)
    place, parts = _axis(axis, "dy", dy.shape), checked_shape("sizes", sizes)
    if not parts or sum(parts) != dy.shape[place]:
        raise ValueError(
            f"sizes must add up to the length of dy along axis {place}, {dy.shape[place]}, got "
            f"{quoted(sizes)} for dy {dy.shape}"
        )
    function = registry.choose("concatenate_backward", dy.shape, dy.dtype, engine)
    gradients: tuple[Array, ...] = function(dy, parts, place)
    return gradients


def _axis(value: object, name: str, shape: tuple[int, ...]) -> int:
    """``value`` as the number of an axis of the array ``name``, from the first on."""
    axis, axes = integer("axis", value, value), len(shape)
    if axes == 0:
        raise ValueError(f"{name} must have at least one axis, got the shape {shape}")
    if not -axes <= axis < axes:
        raise ValueError(f"axis must be at least {-axes} and below {axes}, got {quoted(value)}")
    return axis % axes


def _merged(op: str, a: ArrayLike, b: ArrayLike, engine: str | None) -> Array:
    a, b = floats(a=a, b=_present(b))
    merged_shape(a.shape, b.shape)
    y: Array = registry.choose(op, (*a.shape, *b.shape), a.dtype, engine)(a, b)
    return y


def _gradients(
    op: str, dy: ArrayLike, a: ArrayLike, b: ArrayLike, engine: str | None
) -> tuple[Array, Array]:
    dy, a, b = floats(dy=dy, a=a, b=_present(b))
    shaped("dy", dy, merged_shape(a.shape, b.shape), "the shape of the output")
    da, db = registry.choose(op, (*a.shape, *b.shape), dy.dtype, engine)(dy, a, b)
    return da, db


def _gradients_from_shapes(
    op: str, dy: ArrayLike, a_shape: object, b_shape: object, engine: str | None
) -> tuple[Array, Array]:
    (dy,) = floats(dy=dy)
    of_a, of_b = checked_shape("a_shape", a_shape), checked_shape("b_shape", b_shape)
    output = merged_shape(of_a, of_b, "a_shape and b_shape")
    shaped("dy", dy, output, "the shape of the output")
    da, db = registry.choose(op, (*of_a, *of_b), dy.dtype, engine)(dy, of_a, of_b)
    return da, db


def _present(b: ArrayLike | None) -> ArrayLike:
    """``b``; ``TypeError`` for None, which :func:`floats` takes for a bias that is not there."""
    if b is None:
        raise TypeError("b must hold real numbers, got None")
    return b
