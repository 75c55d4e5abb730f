"""Nets by name: functions that return new layers, and for the standard nets new models."""

from __future__ import annotations

from fastcnn.models.nets import (
    NETS,
    article,
    lenet5,
    resnet8,
    small,
    wide,
)
from fastcnn.models.standard_nets import (
    STANDARD_NETS,
    mobilenet_v1,
    mobilenet_v2,
    resnet18,
    resnet50,
    squeezenet,
    u_net,
    vgg16,
)

__all__ = [
    "NETS",
    "STANDARD_NETS",
    "article",
    "lenet5",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet8",
    "resnet18",
    "resnet50",
    "small",
    "squeezenet",
    "u_net",
    "vgg16",
    "wide",
]
