"""Where a training stands: its history, and all that a checkpoint holds beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcnn.callbacks import Callback
from fastcnn.optimizers import Optimizer, optimizer_from_dict, optimizer_to_dict
from fastcnn.quoting import quoted
from fastcnn.scalars import count


class History:
    """What a training was like, epoch by epoch.

    Attributes:
        history: lists by name, one number for each epoch: ``loss``, ``accuracy`` (where the loss
            has one), ``val_loss``, ``val_accuracy`` (with validation data), ``learning_rate``
            (of the epoch's last step) and ``seconds``.
    """

    def __init__(self, history: dict[str, list[float]] | None = None) -> None:
        self.history: dict[str, list[float]] = history if history is not None else {}

    @property
    def epochs(self) -> int:
        """How many epochs are recorded."""
        return max(map(len, self.history.values()), default=0)

    def append(self, logs: dict[str, float]) -> None:
        """Add an epoch."""
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.items())
        return f"History({self.epochs} epochs{'; last: ' if last else ''}{last})"


@dataclass
class Progress:
    """Where a training stands: all that a checkpoint holds beside the weights."""

    optimizer: Optimizer
    settings: dict[str, Any]
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    rate: float = 0.0
    order: Mapping[str, Any] | None = None
    history: History = field(default_factory=History)
    callbacks: list[Callback] = field(default_factory=list)
    restored: list[dict[str, Any]] = field(default_factory=list)

    def saved_states(self) -> list[tuple[str, dict[str, Any]]]:
        """For each callback the class and state of the one that was saved in its place."""
        found = [(one["class"], one["state"]) for one in self.restored]
        missing = len(self.callbacks) - len(found)
        return [*found, *[("", {})] * missing][: len(self.callbacks)]


def as_dict(progress: Progress, generator: np.random.Generator) -> dict[str, Any]:
    """A training and its generator as JSON holds them, for :func:`progress_from`."""
    return {
        "epoch": progress.epoch,
        "batch": progress.batch,
        "loss_sum": progress.loss_sum,
        "correct": progress.correct,
        "rate": progress.rate,
        "order": progress.order,
        "generator": generator.bit_generator.state,
        "history": progress.history.history,
        "settings": progress.settings,
        "optimizer": {
            **optimizer_to_dict(progress.optimizer),
            "steps": progress.optimizer.step_count,
            "began": progress.optimizer.began,
            "slots": sorted(progress.optimizer.state),
        },
        "callbacks": [{"class": type(c).__name__, "state": c.state()} for c in progress.callbacks],
    }


UNREADABLE = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError
)  # fmt: skip
"""What code raises that meets other data than it was written for."""


def progress_from(told: dict[str, Any]) -> tuple[Progress, list[str]]:
    """Where a saved training stands, and the names of its optimizer's arrays."""
    optimizer = optimizer_from_dict(told["optimizer"])
    steps = count("steps", told["optimizer"]["steps"], least=0)
    # In files of earlier versions a schedule counted from an optimizer's first step.
    optimizer.resume(steps, count("began", told["optimizer"].get("began", 0), least=0))
    slots = told["optimizer"]["slots"]
    if slots and slots != sorted(optimizer.slots_needed()):
        raise ValueError(f"optimizer must keep {optimizer.slots_needed()}, got {quoted(slots)}")
    if told["order"] is not None:
        generator_from(told["order"])
    history = History({str(k): [float(v) for v in values] for k, values in told["history"].items()})
    callbacks = [{"class": c["class"], "state": dict(c["state"])} for c in told["callbacks"]]
    progress = Progress(
        optimizer,
        dict(told["settings"]),
        count("epoch", told["epoch"], least=0),
        count("batch", told["batch"], least=0),
        float(told["loss_sum"]),
        float(told["correct"]),
        float(told["rate"]),
        told["order"],
        history,
        restored=callbacks,
    )
    return progress, slots


_PLACES = {"pos": 624, "buffer_pos": 4}
"""How far generators may be in the numbers that they have at hand."""


def generator_from(state: dict[str, Any]) -> np.random.Generator:
    """A generator in this state."""
    kinds = {kind.__name__: kind for kind in (np.random.PCG64, np.random.PCG64DXSM,
             np.random.MT19937, np.random.Philox, np.random.SFC64)}  # fmt: skip
    if state["bit_generator"] not in kinds:
        raise ValueError(f"its generator is unknown: {quoted(state['bit_generator'])}")
    bits = kinds[state["bit_generator"]]()
    inner = {
        name: np.asarray(value, np.uint64) if isinstance(value, list) else value
        for name, value in state["state"].items()
    }
    for name, most in _PLACES.items():  # NumPy would read beyond its numbers' ends
        for part in (state, inner):
            if name in part and not 0 <= count(name, part[name], least=0) <= most:
                raise ValueError(f"{name} must be at most {most}, got {quoted(part[name])}")
    whole: Any = {**state, "state": inner}
    bits.state = whole
    return np.random.Generator(bits)
