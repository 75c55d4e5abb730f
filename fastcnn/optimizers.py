"""Optimizers, and what one of your own builds on."""

from __future__ import annotations

from fastcnn.nn.optimizers import (
    SGD,
    Adam,
    AdamW,
    Optimizer,
    RMSprop,
)

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
]
