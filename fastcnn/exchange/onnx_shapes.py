"""Layers for the operators that move numbers: shapes, orders of axes, parts, margins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from fastcnn.exchange.onnx_functions import OnnxNode, moving
from fastcnn.exchange.onnx_functions.nodes import as_axis, listed
from fastcnn.exchange.onnx_tracing import (
    NotBatched,
    Trace,
    Value,
    constant,
    emits,
    known,
    needs,
)
from fastcnn.nn.layers import Concatenate, Cropping2D, DepthToSpace, Shape, ZeroPadding2D

Values = Sequence[Value | None]
_FAR = 1 << 40
_ANY = -1


@emits("Identity", "Dropout")
def identity(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """The input itself; a Dropout that trains is refused, and its mask is made of ones."""
    x = needs(inputs[0])
    if node.operator == "Dropout" and len(inputs) > 2 and inputs[2] is not None:
        moving_training = known(inputs[2])
        if moving_training is None or bool(moving_training.any()):
            return None
    mask = constant(np.ones(x.shape if len(node.outputs) > 1 else (), np.bool_))
    return [x, mask]


@emits("Transpose")
def transpose(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value]:
    """No number moves: the value's axes get other names."""
    x = trace.plain(needs(inputs[0]))
    order = moving.order_of(node, x.rank)
    new = {old: i for i, old in enumerate(order)}
    return [
        replace(
            x,
            shape=tuple(x.shape[i] for i in order),
            axes=tuple(new[axis] for axis in x.axes),
            batch=None if x.batch is None else new[x.batch],
        )
    ]


@emits("Reshape", "Flatten")
def reshape(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """The numbers in another shape."""
    x = needs(inputs[0])
    sides = None
    if len(inputs) > 1 and inputs[1] is not None:
        array = known(inputs[1])
        if array is None:
            return None
        sides = listed(node, "shape", array)
    if node.operator == "Reshape":
        shape = moving.reshaped(node, x.shape, sides or node.integers("shape") or [])
    else:
        axis = as_axis(node, node.integer("axis", 1), x.rank, or_end=True)
        shape = prod(x.shape[:axis]), prod(x.shape[axis:])
    return [in_shape(trace, x, shape)]


@emits("Squeeze", "Unsqueeze")
def without_or_with_ones(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """The numbers without some axes of one, or with new ones."""
    x = needs(inputs[0])
    axes = node.integers("axes")
    if len(inputs) > 1 and inputs[1] is not None:
        array = known(inputs[1])
        if array is None:
            return None
        axes = listed(node, "axes", array)
    if node.operator == "Unsqueeze":
        places = moving.unsqueezed_places(node, x.rank, axes)
        shape = moving.unsqueezed(node, x.shape, axes)
    else:
        gone = moving.squeezed_axes(node, x.shape, axes)
        stay = [i for i in range(x.rank) if i not in gone]
        places = [stay.index(i) if i in stay else -1 for i in range(x.rank)]
        shape = tuple(x.shape[i] for i in stay)
    batch = -1 if x.batch is None else places[x.batch]
    return [in_shape(trace, x, shape, None if batch < 0 else batch)]


def in_shape(trace: Trace, x: Value, shape: Shape, batch: int | None = _ANY) -> Value:
    """A value in another shape of the file, with as few numbers moved as can be.

    ``batch`` is the axis that the batch becomes, where the operator tells it; None if it gets mixed
    with other axes, or is taken away.
    """
    if shape == x.shape and batch in (_ANY, x.batch):
        return x
    if batch == _ANY:
        batch = None if x.batch is None else _batch_after(x.shape, x.batch, shape)
    x = trace.plain(x)
    if x.batch is not None and batch is None:
        if not trace.single:
            raise NotBatched
        x = trace.without_batch(x)
    assert x.tensor is not None
    axes = tuple(i for i in range(len(shape)) if i != batch)
    if 0 in shape:
        raise NotBatched
    groups = _groups(x, shape, batch)
    new_axes = _local(x, groups, shape, batch)
    if new_axes is not None:
        tensor = trace.shaped(x.tensor, tuple(shape[i] for i in new_axes))
        return Value(shape, x.dtype, None, tensor, new_axes, batch)
    if len(axes) == 1 and len(shape) == 2 and batch == 0:  # a Flatten before a dense layer
        tensor = trace.shaped(x.tensor, (shape[1],))
        before = tuple(i for i in range(x.rank) if i != x.batch)
        dims = tuple(x.shape[i] for i in before)
        order = tuple(before.index(axis) for axis in x.axes)
        return Value(shape, x.dtype, None, tensor, axes, batch, (dims, order))
    flat = trace.canonical(x)
    assert flat.tensor is not None
    tensor = trace.shaped(flat.tensor, tuple(shape[i] for i in axes))
    return Value(shape, x.dtype, None, tensor, axes, batch)


def _batch_after(before: Shape, batch: int, after: Shape) -> int | None:
    """The axis that the batch becomes by a Reshape; None if it is mixed with others."""
    ahead, side = prod(before[:batch]), before[batch]
    candidates = [i for i, one in enumerate(after) if one == side and prod(after[:i]) == ahead]
    if not candidates:
        return None
    # Axes of one beside the batch leave a choice only for a single sample.
    return min(candidates, key=lambda i: abs(i - batch))


Group = tuple[list[int], list[int]]


def _groups(x: Value, shape: Shape, batch: int | None) -> list[Group]:
    """Axes of the input, of more than one, that become axes of the output, group by group."""
    old = [i for i in range(x.rank) if i != x.batch and x.shape[i] != 1]
    new = [i for i in range(len(shape)) if i != batch and shape[i] != 1]
    groups: list[Group] = []
    while old or new:
        left, right = [old.pop(0)] if old else [], [new.pop(0)] if new else []
        while (a := prod(x.shape[i] for i in left)) != (b := prod(shape[i] for i in right)):
            if a < b and old:
                left.append(old.pop(0))
            elif new:
                right.append(new.pop(0))
            else:
                break
        groups.append((left, right))
    return groups


def _local(
    x: Value, groups: list[Group], shape: Shape, batch: int | None
) -> tuple[int, ...] | None:
    """The order of the new axes if no number moves; None if some must."""
    stored = [axis for axis in x.axes if x.shape[axis] != 1]
    result: list[int] = []
    at = 0
    while at < len(stored):
        group = next((g for g in groups if stored[at] in g[0]), None)
        if group is None or stored[at : at + len(group[0])] != group[0]:
            return None
        result += group[1]
        at += len(group[0])
    for axis in range(len(shape)):  # axes of one go behind the axis before them
        if axis != batch and axis not in result:
            before = [i for i in range(axis) if i in result]
            result.insert(result.index(before[-1]) + 1 if before else 0, axis)
    return tuple(result)


@emits("Concat")
def concat(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """The inputs side by side."""
    values = [needs(one) for one in inputs]
    first = next(one for one in values if one.constant is None)
    axis = as_axis(node, node.integer("axis", 1), first.rank)
    values = [one for one in values if one.constant is None or one.constant.size] or values
    if len(values) == 1:
        return values
    if any(one.constant is not None or one.rank != first.rank for one in values):
        return None
    if axis == first.batch or any(one.batch != first.batch for one in values):
        raise NotBatched
    first = trace.plain(max(values, key=lambda one: prod(one.shape)))
    parts = [trace.laid_out(one, first.axes) for one in values]
    tensors = [one.tensor for one in parts if one.tensor is not None]
    shape = list(first.shape)
    shape[axis] = sum(one.shape[axis] for one in parts)
    if 0 in shape or any(0 in one.shape for one in parts):
        return None
    for one in parts:
        if (
            one.shape[:axis] != first.shape[:axis]
            or one.shape[axis + 1 :] != first.shape[axis + 1 :]
        ):
            raise node.error(f"inputs of shapes {[v.shape for v in values]} do not fit each other")
    place = first.place(axis) + 1
    tensor = trace.call(Concatenate(-1 if place == len(first.axes) else place), *tensors)
    return [Value(tuple(shape), first.dtype, None, tensor, first.axes, first.batch)]


def cut(trace: Trace, node: OnnxNode, x: Value, cuts: dict[int, slice]) -> Value:
    """A part of a value along some axes of the file, in the order in which it lies."""
    x = trace.plain(x)
    shape = list(x.shape)
    sources = {}
    for axis, part in cuts.items():
        shape[axis] = len(range(*part.indices(x.shape[axis])))
        if shape[axis] != x.shape[axis] or (part.step or 1) != 1:
            sources[axis] = part
    if not sources:
        return x
    if x.batch in sources:
        raise NotBatched
    image = x.rank == 4 and x.batch == 0 and x.axes == (2, 3, 1) and 0 not in shape
    if image and set(sources) <= {2, 3} and all((p.step or 1) == 1 for p in sources.values()):
        sides = []
        for axis in (2, 3):
            part = sources.get(axis, slice(0, x.shape[axis]))
            start, stop, _ = part.indices(x.shape[axis])
            sides.append((start, x.shape[axis] - stop))
        assert x.tensor is not None
        tensor = trace.call(Cropping2D((sides[0], sides[1])), x.tensor)
        return replace(x, shape=tuple(shape), tensor=tensor)
    if 0 not in shape and all((part.step or 1) == 1 for part in sources.values()):
        return replace(_cropped(trace, x, sources), shape=tuple(shape))
    offset = 0 if x.batch is None else 1
    places = [x.place(axis) + offset for axis in sources]
    lists = [
        [part.start or 0 for part in sources.values()],
        [-_FAR if part.stop is None and (part.step or 1) < 0 else
         _FAR if part.stop is None else part.stop for part in sources.values()],
        places,
        [part.step or 1 for part in sources.values()],
    ]  # fmt: skip
    cutting = OnnxNode("Slice", node.name, ("x", "s", "e", "a", "t"), ("y",), {}, 13)
    return _in_place(trace, cutting, [x, *(constant(np.asarray(one, np.int64)) for one in lists)])


def _cropped(trace: Trace, x: Value, cuts: dict[int, slice]) -> Value:
    """A part of a value along some axes, one after the other, as borders of images cut off."""
    assert x.tensor is not None
    tensor = x.tensor
    for axis, part in cuts.items():
        start, stop, _ = part.indices(x.shape[axis])
        at = x.place(axis)
        before, side, behind = tensor.shape[:at], tensor.shape[at], tensor.shape[at + 1 :]
        borders, after = (start, side - stop), prod(behind)
        if prod(before) == 1:
            image = trace.shaped(tensor, (side, after, 1))
            image = trace.call(Cropping2D((borders, (0, 0))), image)
        else:
            image = trace.shaped(tensor, (prod(before), side, after))
            image = trace.call(Cropping2D(((0, 0), borders)), image)
        tensor = trace.shaped(image, (*before, stop - start, *behind))
    return replace(x, tensor=tensor)


def _in_place(trace: Trace, node: OnnxNode, inputs: Values) -> Value:
    """An operation on arrays as they lie, of which the only output is taken."""
    x = needs(inputs[0])
    trace.uses[node.outputs[0]] += 1
    return trace.operation(node, inputs, batch=x.batch, free_layout=True)[0]


@emits("Slice")
def slice_(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """A part of the input."""
    x = needs(inputs[0])
    if any(one is not None and one.constant is None for one in inputs[1:]):
        return None
    arrays = [known(one) for one in inputs[1:]]
    arrays += [None] * (4 - len(arrays))
    return [cut(trace, node, x, moving.slices_of(node, x.shape, *arrays))]


@emits("Split")
def split(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """The parts of the input."""
    x = needs(inputs[0])
    axis = as_axis(node, node.integer("axis", 0), x.rank)
    sizes = inputs[1] if len(inputs) > 1 else None
    if sizes is not None and sizes.constant is None:
        return None
    parts = moving.split_sizes(node, x.shape[axis], known(sizes), axis)
    ends = np.cumsum([0, *parts]).tolist()
    return [
        cut(trace, node, x, {axis: slice(ends[i], ends[i + 1])})
        if node.outputs[i] and trace.uses[node.outputs[i]]
        else constant(np.zeros(0))
        for i in range(len(node.outputs))
    ]


@emits("Gather")
def gather(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """The parts of an axis with these numbers."""
    x, indices = needs(inputs[0]), needs(inputs[1])
    data = x.rank if x.constant is None else x.constant.ndim
    axis = as_axis(node, node.integer("axis", 0), data)
    if x.constant is not None:  # rows of a table
        if indices.batch is None:
            return None
        return trace.operation(node, [x, trace.plain(indices)], batch=axis + indices.batch)
    numbers = known(indices)
    if numbers is None or numbers.dtype.kind not in "iu":
        return None
    x = trace.plain(x)
    if axis == x.batch:
        raise NotBatched
    side = x.shape[axis]
    if numbers.size and not (-side <= numbers.min() and numbers.max() < side):
        raise node.error(f"indices must be from {-side} to {side - 1}")
    if numbers.ndim == 0:
        number = int(numbers) % side
        part = cut(trace, node, x, {axis: slice(number, number + 1)})
        batch = None if x.batch is None else x.batch - (axis < x.batch)
        return [in_shape(trace, part, (*x.shape[:axis], *x.shape[axis + 1 :]), batch)]
    if numbers.ndim > 1:
        return (
            None
            if x.batch is None
            else trace.operation(
                node, inputs, batch=x.batch + (numbers.ndim - 1 if axis < x.batch else 0)
            )
        )
    offset = 0 if x.batch is None else 1
    taking = OnnxNode(
        "Gather", node.name, ("x", "i"), ("y",), {"axis": x.place(axis) + offset}, node.opset
    )
    return [_in_place(trace, taking, [x, indices])]


@emits("Pad")
def pad(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """Margins around the input."""
    x = trace.plain(needs(inputs[0]))
    if any(one is not None and one.constant is None for one in inputs[1:]):
        return None
    arrays = [known(one) for one in inputs[1:]] + [None] * 3
    margins = moving.pads_of(node, x.rank, arrays[0], arrays[2])
    if not any(map(any, margins)):
        return [x]
    if x.batch is not None and any(margins[x.batch]):
        raise NotBatched
    value = arrays[1]
    number = node.number("value", 0.0) if node.opset < 11 else 0.0
    if value is not None and value.size:
        number = float(value.reshape(-1)[0])
    mode = node.text("mode", "constant")
    sides = [b + s + a for s, (b, a) in zip(x.shape, margins, strict=True)]
    image = trace.image(x) if x.rank == 4 and not any(map(any, margins[:2])) else None
    if image is not None and mode == "constant" and x.is_float and min(sides) > 0:
        assert image.tensor is not None
        both = [*margins[2], *margins[3]]
        if number == 0 and min(both) >= 0:
            tensor = trace.call(ZeroPadding2D((margins[2], margins[3])), image.tensor)
            return [replace(image, shape=tuple(sides), tensor=tensor)]
        if max(both) <= 0:
            (top, bottom), (left, right) = margins[2:]
            tensor = trace.call(Cropping2D(((-top, -bottom), (-left, -right))), image.tensor)
            return [replace(image, shape=tuple(sides), tensor=tensor)]
    order = x.axes if x.batch is None else (x.batch, *x.axes)
    stored = [margins[axis] for axis in order]
    lists = [one[0] for one in stored] + [one[1] for one in stored]
    padding = OnnxNode(
        "Pad", node.name, ("x", "p", "v"), ("y",), {"mode": mode}, max(node.opset, 13)
    )
    filled = constant(np.asarray(number, x.dtype))
    return [_in_place(trace, padding, [x, constant(np.asarray(lists, np.int64)), filled])]


@emits("Expand")
def expand(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """The input repeated along axes of one."""
    x, sides = trace.plain(needs(inputs[0])), known(inputs[1])
    if sides is None:
        return None
    target = tuple(listed(node, "shape", sides) or ())
    try:
        shape = np.broadcast_shapes(x.shape, target)
    except ValueError:
        raise node.error(f"the input of shape {x.shape} cannot get the shape {target}") from None
    moving.affordable(node, shape, 4)
    if shape == x.shape:
        return [x]
    extra = len(shape) - x.rank
    batch = None if x.batch is None else x.batch + extra
    wide = in_shape(trace, x, (*[1] * extra, *x.shape), batch)
    if wide.batch is not None and shape[wide.batch] != wide.shape[wide.batch]:
        raise NotBatched
    order = wide.axes if wide.batch is None else (wide.batch, *wide.axes)
    lying = [1 if axis == wide.batch else shape[axis] for axis in order]
    repeating = OnnxNode("Expand", node.name, ("x", "s"), ("y",), {}, node.opset)
    return [_in_place(trace, repeating, [wide, constant(np.asarray(lying, np.int64))])]


@emits("DepthToSpace")
def depth_to_space(trace: Trace, node: OnnxNode, inputs: Values) -> list[Value] | None:
    """Channels as pixels."""
    x = trace.image(needs(inputs[0]))
    block = node.integer("blocksize", 0)
    if x is None or not x.is_float or block < 1 or x.shape[1] % block**2:
        return None
    assert x.tensor is not None
    mode = node.text("mode", "DCR", ("DCR", "CRD"))
    tensor = trace.call(DepthToSpace(block, "CRD" if mode == "CRD" else "DCR"), x.tensor)
    n, c, h, w = x.shape
    shape = n, c // block**2, h * block, w * block
    return [replace(x, shape=shape, tensor=tensor)]
