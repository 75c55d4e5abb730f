"""Which layers of a graph are computed together in prediction.

A convolution takes the batch normalisation, the addition, the ReLU or HardSwish, and the 2×2
max-pooling that follow on it into its epilogue, where nothing else takes the values between. Layers
that do nothing in prediction disappear. This module knows which layers could be fused. Its caller's
functions ``serves`` and ``pools`` say whether there are kernels, which depends on the dtype,
``math`` and the registers; :mod:`.prediction_steps` has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fastcnn.core.rearranging import stays_in_place
from fastcnn.models.execution.layer_facts import pooling_of, pools_2x2
from fastcnn.models.graph import Graph, Node
from fastcnn.nn.layers import (
    Add,
    BatchNorm,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    DepthToSpace,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    HardSwish,
    Layer,
    MaxPool2D,
    Permute,
    ReLU,
    Reshape,
    Shape,
    ZeroPadding2D,
)

CONVOLUTIONS = (Conv2D, DepthwiseConv2D)
SAME_NUMBERS = (Flatten, Dropout, Reshape)
"""Layers whose output has the numbers of their input, in prediction."""
_UNLESS_RESHAPED = (ZeroPadding2D, Cropping2D, DepthToSpace)
"""Layers that do nothing where the output has the shape of the input."""


@dataclass(frozen=True, eq=False)
class Fused:
    """Layers that are computed together.

    Attributes:
        layer: the first layer, whose class selects the steps.
        inputs: the values that it takes.
        output: the value that the last layer makes.
        shapes: the shape of a sample of each input.
        shape: the shape of a sample of the output.
        norm: a batch normalisation on the sums of the layer.
        residual: a value that is added.
        relu: whether a ReLU follows.
        top: the largest number of this ReLU, or None.
        hard_swish: whether a HardSwish follows.
        pool: a 2×2 max-pooling at the end.
        members: all layers, for messages.
    """

    layer: Layer
    inputs: tuple[int, ...]
    output: int
    shapes: tuple[Shape, ...]
    shape: Shape
    norm: BatchNorm | None = None
    residual: int | None = None
    relu: bool = False
    top: float | None = None
    hard_swish: bool = False
    pool: MaxPool2D | None = None
    members: tuple[Layer, ...] = ()

    @property
    def epilogue(self) -> str:
        """What is done in registers before the result is stored, in words."""
        parts = []
        if self.norm is not None and len(self.members) > 1:
            parts.append("scale and shift")
        if self.residual is not None:
            parts.append("addition")
        if self.relu:
            parts.append("ReLU" if self.top is None else f"ReLU up to {self.top:g}")
        if self.hard_swish:
            parts.append("HardSwish")
        if self.pool is not None:
            parts.append("2×2 max-pooling")
        return ", ".join(parts)

    @property
    def has_activation(self) -> bool:
        """Whether the sums go through an activation."""
        return self.relu or self.hard_swish

    @property
    def all_inputs(self) -> tuple[int, ...]:
        """The inputs, and the value that is added."""
        return self.inputs if self.residual is None else (*self.inputs, self.residual)


Serves = Callable[[Fused], bool]
"""Whether there are steps for fused layers. A layer without steps runs by its ``forward``."""
Pools = Callable[[Fused, MaxPool2D], bool]
"""Whether there is a kernel that also pools."""


def fuse(
    graph: Graph, shapes: Sequence[Shape], serves: Serves, pools: Pools
) -> tuple[list[Fused], list[int]]:
    """The nodes of a graph, fused where they can be, and its outputs.

    ``shapes`` are the shapes of all values. The value of a layer that does nothing is its input.
    """
    alias_of = {value: value for value in range(graph.inputs)}
    for node in graph.nodes:
        alias = has_same_numbers(node.layer, shapes[node.inputs[0]], shapes[node.output])
        alias_of[node.output] = alias_of[node.inputs[0]] if alias else node.output
    nodes = [node for node in graph.nodes if alias_of[node.output] == node.output]
    uses = Counter(alias_of[value] for node in nodes for value in node.inputs)
    outputs = [alias_of[value] for value in graph.outputs]
    uses.update(outputs)
    consumer_of = {alias_of[value]: node for node in nodes for value in node.inputs}
    fused_layers, finished_outputs = list[Fused](), set[int]()
    for node in nodes:
        if node.output in finished_outputs:
            continue
        fused = _first(node, alias_of, shapes)
        while serves(fused) and uses[fused.output] == 1 and fused.output not in outputs:
            extended = _with(fused, consumer_of[fused.output], node, alias_of, shapes, pools)
            if extended is None or not serves(extended):
                break
            fused = extended
            finished_outputs.add(fused.output)
        fused_layers.append(fused)
    return fused_layers, outputs


def has_same_numbers(layer: Layer, input_shape: Shape, output_shape: Shape) -> bool:
    """Whether the output of a layer has the numbers of its input, in their order, in prediction.

    Both shapes are those of one sample.

    >>> from fastcnn.nn.layers import Permute
    >>> has_same_numbers(Permute((3, 1, 2)), (1, 1, 8), (8, 1, 1))
    True
    """
    if type(layer) is Permute:
        return stays_in_place(input_shape, layer.dims)
    if type(layer) in _UNLESS_RESHAPED:
        return input_shape == output_shape
    return type(layer) in SAME_NUMBERS


def _first(node: Node, alias_of: dict[int, int], shapes: Sequence[Shape]) -> Fused:
    layer = node.layer
    relu = type(layer) is ReLU or getattr(layer, "activation", None) == "relu"
    return Fused(
        layer,
        tuple(alias_of[value] for value in node.inputs),
        node.output,
        tuple(shapes[value] for value in node.inputs),
        shapes[node.output],
        norm=layer if type(layer) is BatchNorm else None,
        relu=relu,
        top=getattr(layer, "max_value", None) if type(layer) is ReLU else None,
        members=(layer,),
    )


def _with(
    fused: Fused,
    node: Node,
    first: Node,
    alias_of: dict[int, int],
    shapes: Sequence[Shape],
    pools: Pools,
) -> Fused | None:
    """The fused layers with the node after them; None where it stays apart."""
    layer, convolves = node.layer, type(fused.layer) in CONVOLUTIONS
    if any(
        shapes[value] != fused.shape for value in node.inputs if alias_of[value] == fused.output
    ):
        return None  # a Flatten between the two changes which numbers are channels
    extended = replace(
        fused, output=node.output, shape=shapes[node.output], members=(*fused.members, layer)
    )
    if type(layer) is ReLU and not fused.has_activation and fused.pool is None:
        if convolves or type(fused.layer) in (BatchNorm, Add):
            return replace(extended, relu=True, top=layer.max_value)
        if type(fused.layer) in (Dense, Conv2DTranspose) and layer.max_value is None:
            return replace(extended, relu=True)
        return None
    if not convolves or fused.pool is not None:
        return None
    if type(layer) is HardSwish:
        return None if fused.has_activation else replace(extended, hard_swish=True)
    if fused.hard_swish:
        return None
    if type(layer) is BatchNorm and not (fused.relu or fused.norm or fused.residual is not None):
        return replace(extended, norm=layer)
    if type(layer) is Add and not fused.relu and fused.residual is None:
        summands = [alias_of[value] for value in node.inputs if alias_of[value] != fused.output]
        have_one_shape = all(shapes[value] == shapes[node.output] for value in node.inputs)
        # The other value must be there before the convolution begins.
        if (
            have_one_shape
            and len(node.inputs) == 2
            and len(summands) == 1
            and summands[0] < first.output
        ):
            return replace(extended, residual=summands[0])
    if type(layer) is MaxPool2D and fused.residual is None:
        fits = pools_2x2(pooling_of(layer, 1, fused.shape))
        return replace(extended, pool=layer) if fits and pools(fused, layer) else None
    return None
