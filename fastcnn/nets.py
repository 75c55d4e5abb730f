"""Nets by name: functions that return new layers."""

from __future__ import annotations

from fastcnn.models.nets import (
    NETS,
    article,
    lenet5,
    resnet8,
    small,
    wide,
)

__all__ = [
    "NETS",
    "article",
    "lenet5",
    "resnet8",
    "small",
    "wide",
]
