"""Metrics: figures of predictions beside the loss, for ``fit`` and ``evaluate``."""

from __future__ import annotations

from fastcnn.nn.metrics import (
    AUC,
    F1,
    AbsoluteError,
    Metric,
    Precision,
    Recall,
    SquaredError,
    TopKAccuracy,
)

__all__ = [
    "AUC",
    "F1",
    "AbsoluteError",
    "Metric",
    "Precision",
    "Recall",
    "SquaredError",
    "TopKAccuracy",
]
