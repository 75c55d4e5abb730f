"""The steps of fused layers in prediction: a table from a layer's class to the function that adds
them.

A layer that is not in the table runs by its own ``forward``, between two programs.
"""

from __future__ import annotations

from math import inf, prod
from typing import NamedTuple, cast

import numpy as np

from fastcnn.core.geometry import ConvGeometry
from fastcnn.core.settings import get_num_threads
from fastcnn.engine.numba.contraction.contraction import Plan
from fastcnn.engine.numba.contraction.epilogue import Epilogue
from fastcnn.engine.numba.contraction.packing import Layout, packing_kernel, transpose_kernel
from fastcnn.engine.numba.conv import direct, winograd_partition, winograd_plan
from fastcnn.engine.numba.dense import large
from fastcnn.engine.numba.dense.chooser import LARGE_WEIGHTS, forward_decision
from fastcnn.engine.numba.elementwise import steps
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.decisions import Decision
from fastcnn.engine.numba.runtime.program import Operand, number
from fastcnn.engine.registry import implementation
from fastcnn.models.execution.elementwise_steps import (
    FORMULA_OF_LAYER,
    MERGES,
    activation,
    merge,
    prelu_of,
    softmax,
)
from fastcnn.models.execution.fusion import Fused
from fastcnn.models.execution.layer_facts import Convolution
from fastcnn.models.execution.moving_steps import (
    POOLINGS,
    concatenate,
    crop,
    depth_to_space,
    pad,
    permute,
    pool,
    resize,
)
from fastcnn.models.execution.norm_steps import group_norm, layer_norm, response_norm
from fastcnn.models.execution.prediction_list import PredictionList, Steps
from fastcnn.models.execution.turn_list import TurnList
from fastcnn.nn.layers import (
    LRN,
    BatchNorm,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    DepthToSpace,
    DepthwiseConv2D,
    GroupNorm,
    Layer,
    LayerNorm,
    Permute,
    PReLU,
    Resize,
    Softmax,
    UpSampling2D,
    ZeroPadding2D,
)

_WINOGRAD, _DIRECT = "numba.winograd", "numba.direct"
# A layer's transformed filters are kept up to this many bytes. Larger ones take longer to read than
# to transform anew.
_MOST_TRANSFORMED_BYTES = 4 << 20
# A layer's filters are packed from this many bytes on. Smaller ones stay in the first-level cache.
_LEAST_PACKED_BYTES = 32 << 10
# Rows of at least so many channels are scaled by loops over the row.
_LEAST_SCALED_CHANNELS = 16


def algorithm_of(fused: Fused, n: int, dtype: np.dtype[np.floating]) -> str:
    """The implementation that serves a convolution."""
    layer = cast(Convolution, fused.layer)
    g = layer.geometry(fused.shapes[0], n)
    return implementation("conv2d", g, dtype, layer.algorithm).name


def can_pool(fused: Fused, dtype: np.dtype[np.floating]) -> bool:
    """Whether the kernel of a convolution can also pool 2×2 pixels."""
    name, g = (
        algorithm_of(fused, 1, dtype),
        cast(Convolution, fused.layer).geometry(fused.shapes[0], 1),
    )
    if name == _WINOGRAD:
        return True
    plain = fused.norm is None and fused.top is None
    return name == _DIRECT and plain and direct.pooled_plan(g, dtype.itemsize) is not None


def serves(fused: Fused, dtype: np.dtype[np.floating]) -> bool:
    """Whether there are steps for all of these layers."""
    layer = fused.layer
    if type(layer) not in STEPS:
        return False
    if isinstance(layer, Conv2D | DepthwiseConv2D):
        if fused.hard_swish and scales_channels(fused):
            return False
        kernels = (_DIRECT,) if fused.hard_swish else (_WINOGRAD, _DIRECT)
        if algorithm_of(fused, 1, dtype) not in kernels:
            return False
        return fused.pool is None or can_pool(fused, dtype)
    if isinstance(layer, Conv2DTranspose):
        g = layer.geometry(fused.shapes[0], 1)
        name = implementation("conv2d_transpose", g, dtype, layer.algorithm).name
        plan = direct.input_gradient_plan(g, dtype.itemsize)
        return name == _DIRECT and not plan.phases_without_taps
    if fused.relu and type(layer) in MERGES:
        return len(fused.inputs) == 2 and fused.shapes[0] == fused.shapes[1] and fused.top is None
    return True


def can_spread(fused: Fused) -> bool:
    """Whether the pixels of the result can lie apart, as the layer that takes it needs them."""
    if type(fused.layer) in (UpSampling2D, Resize, *POOLINGS):
        return True
    if type(fused.layer) is Conv2DTranspose and fused.layer.groups == fused.shapes[0][-1]:
        return False
    if scales_channels(fused):
        return False
    convolves = type(fused.layer) in (Conv2D, DepthwiseConv2D, Conv2DTranspose)
    return convolves and fused.residual is None


def pitch_of_input(fused: Fused, n: int, dtype: np.dtype[np.floating]) -> int:
    """How far apart pixels of the input must lie so that they are not copied; 0 if it is no use."""
    if type(fused.layer) is not Conv2D or algorithm_of(fused, n, dtype) != _DIRECT:
        return 0
    return direct.input_pitch(fused.layer.geometry(fused.shapes[0], n), dtype.itemsize)


def scales_channels(fused: Fused) -> bool:
    """Whether it is a depthwise convolution by one pixel: a factor and a bias for each channel."""
    if type(fused.layer) is not DepthwiseConv2D or fused.shapes[0][-1] < _LEAST_SCALED_CHANNELS:
        return False
    g = fused.layer.geometry(fused.shapes[0], 1)
    alone = (
        fused.norm is None and fused.residual is None and fused.top is None and fused.pool is None
    )
    return (
        alone and g.kh == g.kw == 1 and fused.shapes[0] == fused.shape and not direct.has_padding(g)
    )


def overwritable_inputs(fused: Fused) -> tuple[int, ...]:
    """The indices of inputs over which the result may be written."""
    if (
        type(fused.layer) in FORMULA_OF_LAYER
        or type(fused.layer) in (PReLU, BatchNorm)
        or scales_channels(fused)
    ):
        return (0,)
    if type(fused.layer) in MERGES and not fused.relu:
        return tuple(i for i in (0, 1) if fused.shapes[i] == fused.shape)
    return ()


def reason(fused: Fused, dtype: np.dtype[np.floating]) -> str:
    """The algorithm of one sample's convolution, and why; "" for other layers."""
    if type(fused.layer) not in (Conv2D, DepthwiseConv2D):
        return ""
    if scales_channels(fused):
        return "a factor and a bias for each channel, because a filter has one pixel"
    g = cast(Convolution, fused.layer).geometry(fused.shapes[0], 1)
    if algorithm_of(fused, 1, dtype) == _WINOGRAD:
        line = next(winograd_plan.forward_plan(g, dtype.itemsize).lines())
        return f"Winograd's filtering {line.removeprefix('kernel: ')}"
    if fused.pool is not None:
        return "direct, pooled lines, because the sums are pooled in registers"
    choice = _direct_choice(fused, g, dtype.itemsize, 0)
    filters = ", on packed filters" if choice.packed is not None else ""
    return f"direct, {choice.decision.name}{filters}, because {choice.decision.reason}"


def convolution(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A convolution with its epilogue."""
    if scales_channels(fused):
        w, channels, rows = (
            to.weights.of(fused.layer)["w"],
            fused.shape[-1],
            to.n * prod(fused.shape[:-1]),
        )
        like = to.like
        to.step(
            steps.scale_and_shift(places[0] == y), (like, like, like, like, 0, True), rows,
            places[0], to.constant(w), _bias(fused, to), y, number(channels), number(fused.relu),
            work=rows * channels,
        )  # fmt: skip
        return
    layer = cast(Convolution, fused.layer)
    g = layer.geometry(fused.shapes[0], to.n)
    if implementation("conv2d", g, to.dtype, layer.algorithm).name == _WINOGRAD:
        _winograd(fused, g, places, y, to)
    else:
        _direct(fused, g, places, y, to)


class _DirectChoice(NamedTuple):
    """How a direct convolution runs: layout of the images, kernel, and packed filters if any."""

    epilogue: Epilogue | None
    layout: Layout
    decision: Decision[Plan]
    packed: direct.PackedPlan | None


def _direct_choice(fused: Fused, g: ConvGeometry, itemsize: int, pitch: int) -> _DirectChoice:
    """The choice for a direct convolution without pooling.

    ``pitch`` is the distance of neighbouring pixels of the result, 0 for its channels.
    """
    parts = Epilogue(
        fused.norm is not None, fused.residual is not None, fused.top is not None, fused.hard_swish
    )
    epilogue = parts if any(parts) else None
    packed = direct.packed_decision(g, itemsize, epilogue, pitch)
    if packed is not None and prod(g.filter_shape) * itemsize >= _LEAST_PACKED_BYTES:
        return _DirectChoice(epilogue, packed.layout, packed.decision, packed)
    layout, decision = direct.forward_decision(g, itemsize, fused=epilogue, pitch=pitch)
    return _DirectChoice(epilogue, layout, decision, None)


def _direct(
    fused: Fused, g: ConvGeometry, places: list[Operand], y: Operand, to: PredictionList
) -> None:
    w = to.weights.of(fused.layer)["w"]
    if direct.has_padding(g):
        to.prepared.must_be_finite(w)
    b, like = _bias(fused, to), to.like
    if fused.pool is not None:
        plan_and_layout = direct.pooled_plan(g, to.itemsize, pitch=to.pitch)
        assert plan_and_layout is not None
        layout, plan = plan_and_layout
        images = places[0]
        if fused.inputs[0] not in to.spread:
            images = to.lay_out(images, layout, g.input_shape)
        to.step(
            plan.function, (like, like, like, like, like, True, plan.numbers), plan.items,
            images, to.constant(w), b, y, y, number(fused.relu), to.constant(plan.numbers),
            work=plan.work,
        )  # fmt: skip
        return
    choice = _direct_choice(fused, g, to.itemsize, to.pitch)
    plan, packed = choice.decision.plan, choice.packed
    filters = to.constant(w) if packed is None else _packed_filters(fused, packed, to)
    images = places[0]
    if fused.inputs[0] not in to.spread:
        images = to.lay_out(images, choice.layout, g.input_shape)
    if choice.epilogue is None:
        to.contract(plan, images, filters, b, y, fused.relu)
        return
    residual = places[-1] if fused.residual is not None else y
    to.step(
        plan.function, (like, like, like, like, like, True, plan.numbers), plan.items,
        images, filters, b, y, residual, number(fused.relu), to.constant(plan.numbers),
        work=plan.work,
    )  # fmt: skip


def _packed_filters(fused: Fused, plan: direct.PackedPlan, to: PredictionList) -> Operand:
    """The place of a layer's packed filters, in blocks as wide as the plan's tile."""
    w, tile = to.weights.of(fused.layer)["w"], plan.tile
    kernel, items = packing_kernel(plan.steps, tile.vectors, tile.lanes)

    def write(steps_of: TurnList, place: Operand) -> None:
        like = steps_of.like
        sizes = map(number, (plan.steps, w.shape[-1], w.shape[-1]))
        operands = steps_of.constant(w), place, *sizes
        steps_of.step(kernel, (like, like, 0, 0, 0), items, *operands, work=w.size)

    key = "packed", id(fused.layer), tile.columns
    return to.prepared.entry(key, plan.blocks * plan.steps * tile.columns, write)


def _winograd(
    fused: Fused, g: ConvGeometry, places: list[Operand], y: Operand, to: PredictionList
) -> None:
    epilogue = winograd_partition.SquareEpilogue(
        fused.relu, fused.pool is not None, False, fused.norm is not None,
        fused.residual is not None, fused.top is not None,
    )  # fmt: skip
    threads, w = get_num_threads(), to.weights.of(fused.layer)["w"]
    plan = winograd_plan.forward_plan(g, to.itemsize, epilogue, True, to.pitch)
    sizes = winograd_plan.sizes_of(plan, threads)
    if sizes.filters * to.itemsize > _MOST_TRANSFORMED_BYTES:
        plan = winograd_plan.forward_plan(g, to.itemsize, epilogue, False, to.pitch)
        sizes = winograd_plan.sizes_of(plan, threads)
        u = to.room(sizes.filters)
    else:
        u = _transformed_filters(fused, plan, to)
    scratch, suspects, b = to.room(sizes.scratch), to.suspects_room(), _bias(fused, to)
    extra = places[-1] if fused.residual is not None else y
    operands = places[0], to.constant(w), b, y, extra, scratch, u, suspects
    for launch in winograd_plan.launches_of(plan, threads):
        _launch(plan, launch, operands, to)


def _launch(
    plan: winograd_plan.WinogradPlan,
    launch: winograd_plan.LaunchPlan,
    operands: tuple[Operand, ...],
    to: TurnList,
) -> None:
    like, flags = to.like, np.zeros(1, np.bool_)
    examples = like, like, like, like, like, like, like, flags, plan.numbers, launch.launch
    last = to.constant(plan.numbers), to.constant(launch.launch)
    to.step(plan.kernel, examples, launch.shares, *operands, *last, work=launch.work)


def _transformed_filters(
    fused: Fused, plan: winograd_plan.WinogradPlan, to: PredictionList
) -> Operand:
    """The place of a layer's transformed filters, which are the same for any batch."""
    w, sizes = to.weights.of(fused.layer)["w"], winograd_plan.sizes_of(plan, 1)

    def write(steps_of: TurnList, place: Operand) -> None:
        launch, filters = winograd_plan.filters_launch(plan, 1), steps_of.constant(w)
        # The launch reads filters and writes them transformed; it does not use the other operands.
        unused = filters
        operands = unused, filters, unused, unused, unused, unused, place, unused
        _launch(plan, launch, operands, steps_of)

    # Images of other sizes, which a shared layer has, may be cut into other squares.
    key = "filters", id(fused.layer), plan.partition.squares.side
    return to.prepared.entry(key, sizes.filters, write)


def _bias(fused: Fused, to: PredictionList) -> Operand:
    """The operand ``b``: the bias, zeros, or what the epilogue needs."""
    bias = to.weights.of(fused.layer).get("b")
    if fused.norm is None and fused.top is None:
        return to.zeros if bias is None else to.constant(bias)
    channels, norm = fused.shape[-1], fused.norm
    ones, zeros = np.ones(channels, to.dtype), np.zeros(channels, to.dtype)
    gamma, beta, mean, variance, epsilon = ones, zeros, zeros, ones, 0.0
    if norm is not None:
        parameters, state = to.weights.of(norm), to.weights.state_of(norm)
        gamma, beta = parameters["gamma"], parameters["beta"]
        mean, variance, epsilon = state["mean"], state["variance"], norm.epsilon
    floats = np.array([epsilon, inf if fused.top is None else fused.top])
    alone = type(fused.layer) is BatchNorm
    numbers = record(steps.Norm(channels, int(alone), int(bias is not None)))
    sources = gamma, beta, mean, variance, zeros if bias is None else bias

    def write(steps_of: TurnList, place: Operand) -> None:
        like = steps_of.like
        examples = like, like, like, like, like, like, floats, numbers
        operands = [*map(steps_of.constant, sources), place]
        operands += [steps_of.constant(floats), steps_of.constant(numbers)]
        steps_of.step(steps.channel_numbers, examples, channels, *operands)

    key = "channels", id(fused.layer), id(norm), fused.top
    # Where a scale or a shift is not finite, only the specification's formula gives its result.
    return to.prepared.entry(key, 3 * channels + 1, write, skipped=channels, finite=2 * channels)


def dense(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A dense layer."""
    w = to.weights.of(fused.layer)["w"]
    inputs, outputs = w.shape
    decision = forward_decision(to.n, inputs, outputs, to.itemsize, alone=True)
    if decision.name != LARGE_WEIGHTS.name:
        to.contract(decision.plan, places[0], to.constant(w), _bias(fused, to), y, fused.relu)
        return
    first, like = 0, to.like
    while first < to.n:
        plans = large.plans_of(to.n - first, inputs, outputs, to.itemsize)
        (function, items, work, numbers), addition, product = plans
        scratch, count = to.room(plans.scratch), product.samples
        x = Operand(places[0].base, places[0].at + first * inputs * to.itemsize)
        rows = Operand(y.base, y.at + first * outputs * to.itemsize)
        last = to.constant(numbers)
        examples = like, like, like, numbers
        to.step(function, examples, items, x, to.constant(w), scratch, last, work=work)
        to.step(
            addition, (like, like, like, True, numbers), count,
            scratch, _bias(fused, to), rows, number(fused.relu), last,
            work=count * outputs * product.splits,
        )  # fmt: skip
        first += count


def batch_norm(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A batch normalisation that stands alone, and a ReLU."""
    channels, size = fused.shape[-1], prod(fused.shape)
    finish = steps.Finish(size, channels, int(fused.relu), int(fused.top is not None))
    numbers, like = record(finish), to.like
    to.step(
        steps.scale_channels(places[0] == y), (like, like, like, numbers),
        to.n * size // channels,
        places[0], _bias(fused, to), y, to.constant(numbers), work=2 * to.n * size,
    )  # fmt: skip


def transposed(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A transposed convolution: a contraction for each phase of the stride, on turned filters."""
    layer = cast(Conv2DTranspose, fused.layer)
    g, w = layer.geometry(fused.shapes[0], to.n), to.weights.of(layer)["w"]
    plan = direct.input_gradient_plan(g, to.itemsize, to.pitch)
    if plan.padded:
        to.prepared.must_be_finite(w)
    filters, width = to.constant(w), plan.transposed_width
    if width:
        blocks = g.groups * -(-g.group_ic // width)
        kernel = transpose_kernel(width, g.group_oc, to.itemsize)

        def write(steps_of: TurnList, place: Operand) -> None:
            sizes = map(number, (g.kh * g.kw, *w.shape[-2:], g.group_oc, width))
            examples = steps_of.like, steps_of.like, 0, 0, 0, 0, 0
            items = blocks * g.kh * g.kw
            steps_of.step(kernel, examples, items, steps_of.constant(w), place, *sizes, work=w.size)

        count = blocks * g.kh * g.kw * g.group_oc * width
        filters = to.prepared.entry(("transposed", id(layer), width), count, write)
    images = to.lay_out(places[0], plan.layout, g.output_shape)
    for phase in plan.phases:
        to.contract(phase, images, filters, _bias(fused, to), y, fused.relu)


STEPS: dict[type[Layer], Steps] = {
    Conv2D: convolution,
    DepthwiseConv2D: convolution,
    Dense: dense,
    Conv2DTranspose: transposed,
    BatchNorm: batch_norm,
    Concatenate: concatenate,
    **dict.fromkeys(MERGES, merge),
    **dict.fromkeys(FORMULA_OF_LAYER, activation),
    **dict.fromkeys(POOLINGS, pool),
    PReLU: prelu_of,
    Softmax: softmax,
    LayerNorm: layer_norm,
    GroupNorm: group_norm,
    LRN: response_norm,
    ZeroPadding2D: pad,
    Cropping2D: crop,
    UpSampling2D: resize,
    Resize: resize,
    Permute: permute,
    DepthToSpace: depth_to_space,
}
"""The steps of each class of layers. Classes of users are not here, even if they derive from one of
these, because they may do something else."""
