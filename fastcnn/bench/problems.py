"""The table of timed problems: layers of well-known nets, and whole nets.

``fastcnn bench`` and the files under ``benchmarks/`` verify and time these problems. A problem is
that of :mod:`fastcnn.proof.problems`: a public function, the shapes of its arrays and its
parameters. ``quick`` says whether a quick run includes it.

The smallest problems of an operation, on one number or a few, show what a call costs beside its
kernel.

Sources of the layers: V. Zhou, "CNNs, Part 1", 2019 (article); Y. LeCun et al., "Gradient-Based
Learning Applied to Document Recognition", 1998 (LeNet-5); K. He et al., "Deep Residual Learning for
Image Recognition", arXiv:1512.03385 (ResNet-50); K. Simonyan and A. Zisserman, "Very Deep
Convolutional Networks", arXiv:1409.1556 (VGG-16); M. Sandler et al., "MobileNetV2",
arXiv:1801.04381 (depthwise); Y. Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers",
arXiv:1711.07128 (speech: images that are not square, nor are filters).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from fastcnn.core.geometry import Padding, Pair, conv_geometry, pool_geometry
from fastcnn.models.standard_nets import STANDARD_NETS
from fastcnn.proof.problems import Problem

FORWARD, TO_INPUT, TO_FILTERS = "conv2d", "conv2d_input_gradient", "conv2d_filter_gradient"
_ALL = (FORWARD, TO_INPUT, TO_FILTERS)


class Conv(NamedTuple):
    """A convolutional layer of a net, at some batch sizes.

    ``ops`` are the operations that are timed. ``quick`` are the ones that a quick run includes, at
    the largest batch.
    """

    label: str
    sides: tuple[int, int, int]
    oc: int
    kernel: Pair
    batches: tuple[int, ...] = (1,)
    stride: int = 1
    padding: Padding = 0
    groups: int = 1
    ops: tuple[str, ...] = _ALL
    quick: tuple[str, ...] = ()


_CONVOLUTIONS = (
    Conv("article 3×3", (28, 28, 1), 8, 3, (1, 32), ops=(FORWARD, TO_FILTERS), quick=(FORWARD,)),
    Conv("LeNet-5 first 5×5", (28, 28, 1), 6, 5, (1, 32), padding=2, ops=(FORWARD, TO_FILTERS)),
    Conv("LeNet-5 second 5×5", (14, 14, 6), 16, 5, (1, 32), quick=(FORWARD, TO_FILTERS)),
    Conv("CIFAR 3→32 3×3", (32, 32, 3), 32, 3, (32,), padding=1, ops=(FORWARD, TO_FILTERS)),
    Conv("CIFAR 32→64 3×3", (32, 32, 32), 64, 3, (1, 8, 32), padding=1),
    Conv("speech 10×4", (98, 40, 1), 64, (10, 4), (1,), padding="same", ops=(FORWARD,)),
    Conv("ResNet-50 7×7 /2", (224, 224, 3), 64, 7, (1,), 2, 3, ops=(FORWARD, TO_FILTERS)),
    Conv("ResNet-50 64→256 1×1", (56, 56, 64), 256, 1),
    Conv(
        "ResNet-50 64→64 3×3", (56, 56, 64), 64, 3, padding=1, quick=(FORWARD, TO_INPUT, TO_FILTERS)
    ),
    Conv("ResNet-50 128→128 3×3 /2", (56, 56, 128), 128, 3, (1,), 2, 1),
    Conv("ResNet-50 256→256 3×3", (14, 14, 256), 256, 3, padding=1),
    Conv("ResNet-50 1024→256 1×1", (14, 14, 1024), 256, 1, ops=(FORWARD,)),
    Conv("ResNet-50 512→512 3×3", (7, 7, 512), 512, 3, padding=1),
    Conv("VGG-16 64→64 3×3", (224, 224, 64), 64, 3, padding=1, ops=(FORWARD,)),
    Conv("VGG-16 512→512 3×3", (14, 14, 512), 512, 3, padding=1, ops=(FORWARD,)),
    Conv(
        "depthwise 32 3×3", (112, 112, 32), 32, 3, (1,), 1, 1, 32, (FORWARD, TO_INPUT), (FORWARD,)
    ),
    Conv("depthwise 144 3×3 /2", (56, 56, 144), 144, 3, (1,), 2, 1, 144, (FORWARD,)),
    Conv("depthwise 576 3×3", (14, 14, 576), 576, 3, (1,), 1, 1, 576, (FORWARD,)),
    Conv("smallest 3×3", (3, 3, 1), 1, 3),
)


class Pool(NamedTuple):
    """A pooling layer, forward and backward, of one or both ``kinds``."""

    label: str
    images: tuple[int, int, int, int]
    size: int
    stride: int
    padding: int
    kinds: tuple[str, ...] = ("max",)
    quick: bool = False


_POOLINGS = (
    Pool("article 2×2", (32, 26, 26, 8), 2, 2, 0, quick=True),
    Pool("ResNet-50 3×3 /2", (1, 112, 112, 64), 3, 2, 1, quick=True),
    Pool("VGG-16 2×2", (1, 224, 224, 64), 2, 2, 0, ("max", "avg")),
    Pool("smallest 2×2", (1, 2, 2, 1), 2, 2, 0, ("max", "avg")),
)


class _Dense(NamedTuple):
    label: str
    batch: int
    inputs: int
    outputs: int
    quick: bool = False


_DENSES = (
    _Dense("article", 1, 1352, 10),
    _Dense("article", 32, 1352, 10, quick=True),
    _Dense("wide CNN", 32, 9216, 128),
    _Dense("VGG-16 second", 1, 4096, 4096, quick=True),
    _Dense("smallest", 1, 1, 1),
)


_ELEMENTWISE = {"relu": ("x",), "relu_backward": ("dy", "x"), "add": ("a", "b"), "softmax": ("x",)}
"""Operations without a geometry that are timed on one number, and the names of their arrays."""


class NetProblem(NamedTuple):
    """A net of :data:`fastcnn.nets.NETS` or ``STANDARD_NETS`` at a batch size.

    ``mode`` is "predict" or "train", for standard nets "predict". ``by_name`` says whether a quick
    run includes the problem if the net is named.
    """

    net: str
    mode: str
    batch: int
    quick: bool = False
    by_name: bool = False


_NETS = tuple(
    NetProblem(net, mode, batch, batch == 32)
    for net in ("article", "lenet5", "wide")
    for mode, batches in (("predict", (1, 8, 32, 128)), ("train", (1, 32)))
    for batch in batches
) + tuple(
    NetProblem(net, "predict", batch, by_name=batch == 1)
    for net in STANDARD_NETS
    for batch in (1, 8)
)


def conv_problems(layer: Conv) -> Iterator[Problem]:
    """The operations of a convolutional layer, batch by batch.

    >>> [p.name for p in conv_problems(Conv("5×5", (9, 8, 3), 4, 5, ops=("conv2d",)))]
    ['conv2d/5×5, batch 1']
    """
    for n in layer.batches:
        x = (n, *layer.sides)
        kernel = (layer.kernel,) * 2 if isinstance(layer.kernel, int) else tuple(layer.kernel)
        w = (*kernel, layer.sides[2] // layer.groups, layer.oc)
        parameters = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
        g = conv_geometry(x, w, **parameters)
        dy = g.output_shape
        label = f"{layer.label}, batch {n}"
        arrays: dict[str, dict[str, tuple[int, ...]]] = {
            FORWARD: {"x": x, "w": w, "b": (layer.oc,)},
            TO_INPUT: {"dy": dy, "w": w},
            TO_FILTERS: {"dy": dy, "x": x},
        }
        more: dict[str, dict[str, Any]] = {
            FORWARD: {},
            TO_INPUT: {"x_shape": x},
            TO_FILTERS: {"kernel_size": kernel},
        }
        for op in layer.ops:
            quick = op in layer.quick and n == max(layer.batches)
            yield Problem(op, label, arrays[op], more[op] | parameters, g, quick=quick)


def pool_problems(layer: Pool) -> Iterator[Problem]:
    """The operations of a pooling layer.

    >>> [p.name for p in pool_problems(Pool("2×2", (1, 9, 8, 3), 2, 2, 0))]
    ['max_pool2d/2×2, batch 1', 'max_pool2d_backward/2×2, batch 1']
    """
    parameters = {"size": layer.size, "stride": layer.stride, "padding": layer.padding}
    g = pool_geometry(layer.images, layer.size, stride=layer.stride, padding=layer.padding)
    label = f"{layer.label}, batch {layer.images[0]}"
    for kind in layer.kinds:
        x, dy = {"x": layer.images}, {"dy": g.output_shape}
        yield Problem(f"{kind}_pool2d", label, x, parameters, g, quick=layer.quick)
        yield Problem(f"{kind}_pool2d_backward", label, dy | x, parameters, g)


def _dense_problems(layer: _Dense) -> Iterator[Problem]:
    x, w = (layer.batch, layer.inputs), (layer.inputs, layer.outputs)
    label = f"{layer.label} {layer.inputs}→{layer.outputs}, batch {layer.batch}"
    yield Problem("dense", label, {"x": x, "w": w, "b": w[1:]}, quick=layer.quick)
    if layer.batch > 1:
        dy = {"dy": (layer.batch, layer.outputs)}
        yield Problem("dense_backward", label, dy | {"x": x, "w": w})


@cache
def layer_problems() -> tuple[Problem, ...]:
    """All single operations, grouped by operation.

    >>> layer_problems()[0].name
    'conv2d/article 3×3, batch 1'
    """
    problems: list[Problem] = []
    for conv in _CONVOLUTIONS:
        problems += conv_problems(conv)
    for pool in _POOLINGS:
        problems += pool_problems(pool)
    for dense in _DENSES:
        problems += _dense_problems(dense)
    for op, names in _ELEMENTWISE.items():
        problems.append(Problem(op, "smallest, batch 1", dict.fromkeys(names, (1, 1))))
    order = list(dict.fromkeys(problem.op for problem in problems))
    return tuple(sorted(problems, key=lambda problem: order.index(problem.op)))


def operations() -> tuple[str, ...]:
    """Names of the operations in the table.

    >>> operations()[0]
    'conv2d'
    """
    return tuple(dict.fromkeys(problem.op for problem in layer_problems()))


def nets() -> tuple[str, ...]:
    """Names of the nets in the table.

    >>> nets()[:3]
    ('article', 'lenet5', 'wide')
    """
    return tuple(dict.fromkeys(problem.net for problem in _NETS))


def select(
    quick: bool, ops: Sequence[str] | None = None, net: Sequence[str] | None = None
) -> tuple[tuple[Problem, ...], tuple[NetProblem, ...]]:
    """The operations and the nets of a run.

    Args:
        quick: whether to take the quick part of the table, or all of it.
        ops, net: names of operations and nets. With either, only the named ones run. A quick run
            includes standard nets only if they are named, because they are large.

    Raises:
        ValueError: a name is unknown.

    >>> len(select(True, ops=["dense"])[0]), select(True, ops=["dense"])[1]
    (2, ())
    """
    for kind, names, known in (("op", ops, operations()), ("net", net, nets())):
        for name in names or ():
            if name not in known:
                raise ValueError(f"{kind} must be one of {', '.join(known)}, got {name!r}")
    everything = not ops and not net
    return (
        tuple(
            p for p in layer_problems() if p.quick >= quick and (everything or p.op in (ops or ()))
        ),
        tuple(
            p
            for p in _NETS
            if (not quick or p.quick or (p.by_name and net))
            and (everything or p.net in (net or ()))
        ),
    )
