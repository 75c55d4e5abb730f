"""PyTorch, eager, compiled and frozen, in both of its layouts; it calls NHWC channels-last."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fastcnn.bench.contest import CannotRun, Runner, Skipped
from fastcnn.bench.nets import RATE, NetTask, Part, losses_of, parts
from fastcnn.bench.standard import StandardTask
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.proof.problems import Problem

FAMILY = "PyTorch"
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def set_threads(n: int) -> None:
    """Let PyTorch use ``n`` threads."""
    torch.set_num_threads(n)


def net_runners(task: NetTask | StandardTask, compiled: bool) -> Iterator[Runner | Skipped]:
    """The net in each layout, eager and, with ``compiled``, compiled."""
    if isinstance(task, StandardTask):
        yield from _standard_runners(task)
        return
    for layout in FORMATS:
        yield _net_runner(task, layout, compiled=False)
    if not compiled:
        yield Skipped(f"{FAMILY} compiled", "its compiler takes longer than a quick run")
        return
    torch.compiler.reset()  # without it PyTorch silently stops compiling after eight times
    for layout in FORMATS:
        yield _net_runner(task, layout, compiled=True)


def nchw(x: Array, layout: str = "NCHW") -> torch.Tensor:
    """Images (N, H, W, C) as a tensor of PyTorch in this layout."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=FORMATS[layout])


def oihw(w: Array, layout: str = "NCHW") -> torch.Tensor:
    """Filters (KH, KW, IC, OC) as a tensor of PyTorch in this layout."""
    return torch.from_numpy(w).permute(3, 2, 0, 1).contiguous(memory_format=FORMATS[layout])


class _Flatten(nn.Module):  # type: ignore[misc]
    """Images to vectors in the order of memory, without a copy in either layout."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.last = layout == "NHWC"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.permute(0, 2, 3, 1) if self.last else x).flatten(1)


def _module(layers: list[Part], layout: str) -> nn.Module:
    modules: list[nn.Module] = []
    flattened: tuple[int, ...] = ()
    for part in layers:
        if part.kind == "conv":
            modules.append(_convolution(part, layout))
        elif part.kind == "pool":
            modules.append(nn.MaxPool2d(part.size))
        elif part.kind == "flatten":
            modules.append(_Flatten(layout))
            flattened = part.shape
        else:
            modules.append(_linear(part, flattened if layout == "NCHW" else ()))
            flattened = ()
        if part.relu:
            modules.append(nn.ReLU(inplace=True))
    return nn.Sequential(*modules)


def _convolution(part: Part, layout: str) -> nn.Module:
    assert part.w is not None
    kh, kw, ic, oc = part.w.shape
    top, bottom, left, right = part.padding
    if (top, left) != (bottom, right):
        raise NotImplementedError("padding of unequal sides")
    conv = nn.Conv2d(ic, oc, (kh, kw), part.stride, (top, left), bias=part.b is not None)
    with torch.no_grad():
        conv.weight.copy_(oihw(part.w))
        if conv.bias is not None:
            conv.bias.copy_(torch.from_numpy(part.b))
    return conv.to(memory_format=FORMATS[layout])


def _linear(part: Part, flattened: tuple[int, ...]) -> nn.Module:
    """``flattened`` is the shape of the images if their values come channel by channel, or ()."""
    assert part.w is not None
    assert part.b is not None
    w = part.w
    if flattened:
        w = w.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(w.shape)
    linear = nn.Linear(*w.shape)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))
        linear.bias.copy_(torch.from_numpy(part.b))
    return linear


def _net_runner(task: NetTask, layout: str, compiled: bool) -> Runner:
    module = _module(parts(task.model()), layout)
    x, labels = nchw(task.x, layout), torch.from_numpy(task.labels)
    name = f"{FAMILY} {'compiled ' if compiled else ''}{layout}"
    if task.mode == "predict":
        module.eval()

        def forward(images: torch.Tensor) -> torch.Tensor:
            return functional.softmax(module(images), 1)

        run = _compiled(forward) if compiled else forward

        def predict() -> Any:
            with torch.inference_mode():
                return run(x).numpy()

        return Runner(name, FAMILY, predict, lambda: (predict(),))

    def loss_of(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(module(images), targets)

    loss_and_graph = _compiled(loss_of) if compiled else loss_of
    descent = torch.optim.SGD(module.parameters(), RATE, fused=True)

    def step() -> float:
        descent.zero_grad(set_to_none=True)
        loss = loss_and_graph(x, labels)
        loss.backward()
        descent.step()
        return float(loss.detach())

    return Runner(name, FAMILY, step, lambda: (losses_of(step),))


def _standard_runners(task: StandardTask) -> Iterator[Runner | Skipped]:
    """A standard net in each layout, and frozen, which arranges its filters beforehand."""
    from fastcnn.bench.peers import torch_nets

    module, images = torch_nets.module(task), task.images()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # as in torch_nets.frozen
        frozen = torch.jit.optimize_for_inference(torch_nets.frozen(module, task))
    yield _inference(f"{FAMILY} frozen", frozen, nchw(images))
    for layout, memory_format in FORMATS.items():
        yield _inference(
            f"{FAMILY} {layout}", copy.deepcopy(module).to(memory_format=memory_format),
            nchw(images, layout),
        )  # fmt: skip
    yield Skipped(f"{FAMILY} compiled", "its compiler takes 20 s for such a net; frozen is faster")


def _inference(name: str, module: Callable[..., torch.Tensor], x: torch.Tensor) -> Runner:
    """A runner of a net without a softmax of its own; results are turned into fastcnn's layout."""

    def predict() -> Array:
        with torch.inference_mode():
            y: Array = module(x).numpy()
            return y

    def result() -> tuple[Array, ...]:
        y = predict()
        return (y.transpose(0, 2, 3, 1) if y.ndim == 4 else y,)

    return Runner(name, FAMILY, predict, result)


def _compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    module: Callable[..., torch.Tensor] = torch.compile(function, dynamic=False)
    was_called = False

    def run(*arguments: torch.Tensor) -> torch.Tensor:
        nonlocal was_called
        if was_called:
            return module(*arguments)
        try:
            y = module(*arguments)
        except Exception as error:  # there is no C compiler, or the compiler fails
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CannotRun(f"torch.compile: {lines[0]}") from error
        was_called = True
        return y

    return run


def operation_runners(
    problem: Problem, arrays: dict[str, Array], compiled: bool
) -> Iterator[Runner | Skipped]:
    """One operation in each layout, by the operator that computes only this result.

    With ``compiled`` also the compiler's code for poolings. For other operations the compiler calls
    the same kernels, or needs longer to call its code than the operator takes.
    """
    make = _OPERATIONS.get(problem.op)
    if make is None:
        yield Skipped(FAMILY, f"it is not taught {problem.op} here")
        return
    has_layouts = isinstance(problem.geometry, ConvGeometry | PoolGeometry)
    layouts = tuple(FORMATS) if has_layouts else ("",)
    for layout in layouts:
        yield _runner(make(problem, arrays, layout), layout)
    if not isinstance(problem.geometry, PoolGeometry):
        return
    if not compiled:
        yield Skipped(f"{FAMILY} compiled", "its compiler takes longer than a quick run")
        return
    torch.compiler.reset()  # as for nets
    for layout in FORMATS:
        yield _runner(make(problem, arrays, layout), layout, compiled=True)


class _Call(NamedTuple):
    """A call, and each result's permutation of axes to fastcnn's layout."""

    run: Callable[..., Any]
    to_ours: tuple[tuple[int, ...], ...]


def _runner(call: _Call, layout: str, compiled: bool = False) -> Runner:
    run = _compiled(call.run) if compiled else call.run

    def inference() -> Any:
        with torch.inference_mode():
            return run()

    def result() -> tuple[Array, ...]:
        results = inference()
        tensors = results if isinstance(results, tuple) else (results,)
        return tuple(
            tensor.permute(axes).numpy() for tensor, axes in zip(tensors, call.to_ours, strict=True)
        )

    name = f"{FAMILY} {'compiled ' if compiled else ''}{layout}".rstrip()
    return Runner(name, FAMILY, inference, result)


_TO_NHWC, _TO_HWIO = (0, 2, 3, 1), (2, 3, 1, 0)
_aten = torch.ops.aten


def _geometry(problem: Problem) -> dict[str, Any]:
    g = problem.geometry
    assert isinstance(g, ConvGeometry | PoolGeometry)
    if (g.pad_top, g.pad_left) != (g.pad_bottom, g.pad_right):
        raise NotImplementedError("padding of unequal sides is not among its parameters")
    return {"stride": [g.stride_h, g.stride_w], "padding": [g.pad_top, g.pad_left]}


def _conv2d(problem: Problem, arrays: dict[str, Array], layout: str) -> _Call:
    x, w = nchw(arrays["x"], layout), oihw(arrays["w"], layout)
    b = torch.from_numpy(arrays["b"])
    if problem.parameters["padding"] == "same":  # only here the sides may differ
        options: dict[str, Any] = {"padding": "same"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns once that it may copy the images
            functional.conv2d(x, w, b, **options)
    else:
        options = _geometry(problem)
    options["groups"] = problem.parameters["groups"]
    return _Call(lambda: functional.conv2d(x, w, b, **options), (_TO_NHWC,))


def _conv2d_gradient(problem: Problem, arrays: dict[str, Array], layout: str) -> _Call:
    g, options = problem.geometry, _geometry(problem)
    assert isinstance(g, ConvGeometry)
    of_input = problem.op == "conv2d_input_gradient"
    # A missing array has no influence on the result, but PyTorch needs its shape.
    x = arrays.get("x", np.zeros(g.input_shape, np.float32))
    w = arrays.get("w", np.zeros(g.filter_shape, np.float32))
    tensors = nchw(arrays["dy"], layout), nchw(x, layout), oihw(w, layout)
    outputs = [of_input, not of_input, False]
    parameters = (
        None,
        options["stride"],
        options["padding"],
        [1, 1],
        False,
        [0, 0],
        g.groups,
        outputs,
    )

    def run() -> Any:
        return _aten.convolution_backward(*tensors, *parameters)[0 if of_input else 1]

    return _Call(run, (_TO_NHWC if of_input else _TO_HWIO,))


def _max_pool2d(problem: Problem, arrays: dict[str, Array], layout: str) -> _Call:
    x, options = nchw(arrays["x"], layout), _geometry(problem)
    size = problem.parameters["size"]
    return _Call(lambda: functional.max_pool2d(x, size, **options), (_TO_NHWC,))


def _max_pool2d_backward(problem: Problem, arrays: dict[str, Array], layout: str) -> _Call:
    """PyTorch gets the indices of the maxima, which fastcnn computes in each call."""
    options = _geometry(problem)
    size = [problem.parameters["size"]] * 2
    window = size, options["stride"], options["padding"], [1, 1], False
    dy, x = nchw(arrays["dy"], layout), nchw(arrays["x"], layout)
    _, indices = _aten.max_pool2d_with_indices(x, *window)
    run = _aten.max_pool2d_with_indices_backward
    return _Call(lambda: run(dy, x, *window, indices), (_TO_NHWC,))


def _avg_pool2d(problem: Problem, arrays: dict[str, Array], layout: str) -> _Call:
    x, options = nchw(arrays["x"], layout), _geometry(problem)
    size = problem.parameters["size"]
    run = functional.avg_pool2d
    return _Call(lambda: run(x, size, **options, count_include_pad=False), (_TO_NHWC,))


def _avg_pool2d_backward(problem: Problem, arrays: dict[str, Array], layout: str) -> _Call:
    options = _geometry(problem)
    size = [problem.parameters["size"]] * 2
    dy, x = nchw(arrays["dy"], layout), nchw(arrays["x"], layout)
    parameters = size, options["stride"], options["padding"], False, False, None
    return _Call(lambda: _aten.avg_pool2d_backward(dy, x, *parameters), (_TO_NHWC,))


def _dense(problem: Problem, arrays: dict[str, Array], layout: str) -> _Call:
    x, w, b = (torch.from_numpy(arrays[name]) for name in ("x", "w", "b"))
    w = w.T.contiguous()  # PyTorch's own layout of weights
    return _Call(lambda: functional.linear(x, w, b), ((0, 1),))


def _dense_backward(problem: Problem, arrays: dict[str, Array], layout: str) -> _Call:
    dy, x, w = (torch.from_numpy(arrays[name]) for name in ("dy", "x", "w"))
    w = w.T.contiguous()
    # PyTorch's graph computes them so, with the weights' gradient in the weights' layout.
    return _Call(lambda: (dy @ w, dy.T @ x, dy.sum(0)), ((0, 1), (1, 0), (0,)))


def _elementwise(problem: Problem, arrays: dict[str, Array], layout: str) -> _Call:
    tensors = [torch.from_numpy(array) for array in arrays.values()]
    functions = {
        "relu": functional.relu,
        "relu_backward": lambda dy, x: _aten.threshold_backward(dy, x, 0),
        "add": torch.add,
        "softmax": lambda x: torch.softmax(x, 1),
    }
    function = functions[problem.op]
    return _Call(lambda: function(*tensors), ((0, 1),))


_OPERATIONS = {
    "conv2d": _conv2d,
    "conv2d_input_gradient": _conv2d_gradient,
    "conv2d_filter_gradient": _conv2d_gradient,
    "max_pool2d": _max_pool2d,
    "max_pool2d_backward": _max_pool2d_backward,
    "avg_pool2d": _avg_pool2d,
    "avg_pool2d_backward": _avg_pool2d_backward,
    "dense": _dense,
    "dense_backward": _dense_backward,
    "relu": _elementwise,
    "relu_backward": _elementwise,
    "add": _elementwise,
    "softmax": _elementwise,
}
