"""The checks of the methods of users' layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted
from fastcnn.core.user_code import (
    Call,
    Contract,
    Source,
    finite,
    numbers,
    read_only,
    real_numbers,
    refuse,
    sizes,
)
from fastcnn.nn.layers.initializers import INITIALIZERS, Shape, Spec
from fastcnn.nn.layers.tensors import input_of_call

if TYPE_CHECKING:
    from fastcnn.nn.layers.base import Gradients, Layer, Saved


def _infer(layer: Layer, call: Call, input_shape: Shape) -> Shape:
    source = Source(layer, "infer")
    requirement = "the output's shape, (H, W, C) or (features,), of integers of at least 1"
    shape = sizes(source, requirement, call(input_shape))
    if not shape:
        refuse(source, requirement, shape)
    return shape


def _parameter_specs(layer: Layer, call: Call, input_shape: Shape) -> dict[str, Spec]:
    return _specs(Source(layer, "parameter_specs"), call(input_shape))


def _state_specs(layer: Layer, call: Call, input_shape: Shape) -> dict[str, Spec]:
    specs = _specs(Source(layer, "state_specs"), call(input_shape))
    twice = specs.keys() & layer.parameter_specs(input_shape).keys()
    if twice:
        raise ValueError(
            f"{quoted(layer)}.state_specs must return names that no parameter has, got "
            f"{min(twice)!r}"
        )
    return specs


def _specs(source: Source, value: object) -> dict[str, Spec]:
    if not isinstance(value, dict):
        refuse(source, "a dict of Spec by name", value, TypeError)
    return {_name(source, name): _spec(source, name, spec) for name, spec in value.items()}


def _name(source: Source, name: object) -> str:
    if not isinstance(name, str) or not name:
        refuse(source, "a dict whose keys are names of arrays", name, TypeError)
    return name


def _spec(source: Source, name: str, spec: object) -> Spec:
    if not isinstance(spec, Spec):
        refuse(source, f"a Spec for {name!r}", spec, TypeError)
    if not isinstance(spec.initializer, str) or spec.initializer not in INITIALIZERS:
        requirement = f"a Spec for {name!r} whose initializer is one of {', '.join(INITIALIZERS)}"
        refuse(source, requirement, spec)
    shape = sizes(source, f"a Spec for {name!r} whose shape has sides of at least 1", spec.shape)
    fans = sizes(
        source, f"a Spec for {name!r} whose fans are at least 1", (spec.fan_in, spec.fan_out)
    )
    return Spec(shape, spec.initializer, *fans)


def _build(
    layer: Layer,
    call: Call,
    input_shape: Shape,
    rng: np.random.Generator,
    dtype: Any = np.float32,
) -> Shape:
    output = layer.infer(input_shape)
    call(input_shape, rng, dtype)
    source = Source(layer, "build")
    for what, specs in (
        ("parameters", layer.parameter_specs(input_shape)),
        ("state", layer.state_specs(input_shape)),
    ):
        arrays = getattr(layer, what)
        if not isinstance(arrays, dict):
            raise TypeError(f"{source} must make {what} in a dict, got {quoted(arrays)}")
        if specs and arrays.keys() != specs.keys():
            raise ValueError(
                f"{source} must make the {what} that its specs name, "
                f"{', '.join(map(repr, specs))}, got {', '.join(map(repr, arrays)) or 'none'}"
            )
        for name, array in arrays.items():
            shape = specs[name].shape if specs else np.shape(array)
            new = numbers(source, name, array, shape, np.dtype(dtype))
            if not np.isfinite(new).all():
                raise ValueError(f"{source} must make finite {what}, got NaN or infinity in {name}")
            if type(array) is not np.ndarray or array.dtype != new.dtype:
                arrays[name] = new
    layer.input_shape, layer.output_shape = input_shape, output
    return output


def _forward(
    layer: Layer, call: Call, x: Array, *arguments: object, **more: object
) -> tuple[Array, Saved]:
    source = Source(layer, "forward")
    parts = tuple(map(read_only, x if layer.takes_several else (x,)))
    result = call(input_of_call(layer, parts), *arguments, **more)
    if not isinstance(result, tuple) or len(result) != 2:
        refuse(source, "a pair, the output and what backward needs", result, TypeError)
    y, saved = result
    input_shape = input_of_call(layer, [part.shape[1:] for part in parts])
    shape = dict(_calls(layer)).get(input_shape, layer.output_shape)
    if shape is None:  # the layer is not built
        shape = np.shape(y)[1:]
    return numbers(source, "an output", y, (len(parts[0]), *shape), _float(parts[0])), saved


def _calls(layer: Layer) -> tuple[tuple[Any, Shape], ...]:
    """The shapes of input and output of each call of a built layer."""
    if layer._calls or layer.input_shape is None or layer.output_shape is None:
        return layer._calls
    return ((layer.input_shape, layer.output_shape),)


def _backward(
    layer: Layer,
    call: Call,
    dy: Array,
    saved: Saved,
    engine: str | None = None,
    needs_dx: bool = True,
) -> tuple[Array | None, Gradients]:
    source, dy = Source(layer, "backward"), read_only(dy)
    result = call(dy, saved, engine, needs_dx=needs_dx)
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
        requirement = "a pair, the input's gradient and a dict of the parameters' gradients"
        refuse(source, requirement, result, TypeError)
    dx, gradients = result
    if gradients.keys() != layer.parameters.keys():
        raise ValueError(
            f"{source} must return a gradient for each of the parameters, "
            f"{', '.join(map(repr, layer.parameters)) or 'none'}, got "
            f"{', '.join(map(repr, gradients)) or 'none'}"
        )
    new: Gradients = {}
    for name, array in layer.parameters.items():
        what = f"a gradient of {name}"
        new[name] = numbers(source, what, gradients[name], array.shape, array.dtype)
        finite(source, what, new[name], dy)
    if not needs_dx:
        return None, new
    return _input_gradients(layer, source, dx, dy), new


def _input_gradients(layer: Layer, source: Source, dx: Any, dy: Array) -> Any:
    """The gradient of each input, checked, from those that ``backward`` has returned."""
    several, what = layer.takes_several, "a gradient of the input"
    if several and not isinstance(dx, list | tuple):
        refuse(source, "a tuple of gradients, one for each input", dx, TypeError)
    parts = list(dx) if several else [dx]
    # A shared layer may have several calls with such an output.
    inputs = [one for one, output in _calls(layer) if output == dy.shape[1:]]
    if not inputs:
        inputs = [layer.input_shape] if layer.input_shape is not None else []
    shapes = [[*one] if several else [one] for one in inputs]
    input_shapes = shapes[0] if shapes else []
    if len(shapes) != 1:  # shared by several such calls, or not built
        shapes_of_parts = [real_numbers(source, what, part).shape[1:] for part in parts]
        input_shapes = shapes_of_parts if shapes_of_parts in shapes or not shapes else input_shapes
    if len(parts) != len(input_shapes):
        refuse(source, f"{len(input_shapes)} gradients, one for each input", dx)
    for i, shape in enumerate(input_shapes):
        parts[i] = numbers(source, what, parts[i], (len(dy), *shape), _float(dy))
        finite(source, what, parts[i], dy)
    return input_of_call(layer, parts)


def _flops(layer: Layer, call: Call, input_shape: Shape) -> int:
    value = call(input_shape)
    if not isinstance(value, int | np.integer) or value < 0:
        refuse(Source(layer, "flops"), "an integer of at least 0", value)
    return int(value)


def _float(array: Array) -> np.dtype[np.generic]:
    return array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)


CONTRACT: Contract = {
    "infer": _infer,
    "parameter_specs": _parameter_specs,
    "state_specs": _state_specs,
    "build": _build,
    "forward": _forward,
    "backward": _backward,
    "flops": _flops,
}
