"""Learning-rate schedules."""

from __future__ import annotations

from fastcnn.nn.schedules import (
    Constant,
    Cosine,
    OneCycle,
    Schedule,
    Step,
    Warmup,
    rate_at,
    schedule_from_dict,
)

__all__ = [
    "Constant",
    "Cosine",
    "OneCycle",
    "Schedule",
    "Step",
    "Warmup",
    "rate_at",
    "schedule_from_dict",
]
