"""Which layers of a row are done together in one **stage**.

A stage is a convolution with its ReLU and max-pooling, a batch normalisation with its ReLU, or a
single layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastcnn.models.execution.layer_facts import ends_in_plain_relu, normalises_batch
from fastcnn.nn.layers import Conv2D, DepthwiseConv2D, Layer, MaxPool2D, ReLU


def stage_end(layers: Sequence[Layer], i: int) -> int:
    """The end of the layers that can be done with layer ``i``.

    These are the ReLU and max-pooling of a convolution, and the ReLU of a batch normalisation that
    trains. ``i + 1`` for another layer, and where no max-pooling follows on a convolution. Classes
    of users do not count, even if they derive from one of these, because they may do something
    else.
    """

    def is_relu(i: int) -> bool:
        return i < len(layers) and type(layers[i]) is ReLU and ends_in_plain_relu(layers[i])

    end = i + 1
    if normalises_batch(layers[i]):
        return end + 1 if is_relu(end) else end
    if type(layers[i]) not in (Conv2D, DepthwiseConv2D):
        return end
    while is_relu(end):
        end += 1
    return end + 1 if end < len(layers) and type(layers[end]) is MaxPool2D else i + 1
