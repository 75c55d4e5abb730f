"""Callbacks: what happens between batches and epochs of a training."""

from __future__ import annotations

from fastcnn.train.averaging import ReduceLROnPlateau, WeightAverage
from fastcnn.train.callbacks import (
    Callback,
    CSVLog,
    EarlyStopping,
    LearningRateSchedule,
    ModelCheckpoint,
    ProgressBar,
    StopTraining,
)

__all__ = [
    "CSVLog",
    "Callback",
    "EarlyStopping",
    "LearningRateSchedule",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "StopTraining",
    "WeightAverage",
]
