"""The line that a training prints for each epoch."""

from __future__ import annotations

from collections.abc import Mapping


def parts_of_epoch(epoch: int, epochs: int, figures: Mapping[str, float], pace: str) -> list[str]:
    """The parts of the line for an epoch, between which it may be broken.

    Args:
        epoch: counted from 0.
        epochs: of the whole training.
        figures: by name; the rate and the seconds among them have no part.
        pace: the last part, such as "1.0 s".

    >>> parts_of_epoch(0, 3, {"loss": 0.5, "val_accuracy": 0.9, "seconds": 2.0}, "2.0 s")
    ['epoch 1/3: loss 0.5000', 'val_accuracy 90.00%', '2.0 s']
    """
    parts = [*texts(figures), pace]
    return [f"epoch {epoch + 1}/{epochs}: {parts[0]}", *parts[1:]]


def texts(figures: Mapping[str, float]) -> list[str]:
    """Figures with their names: accuracies in per cent, others with four decimal places."""
    return [
        f"{name} {value:.2%}" if name.endswith("accuracy") else f"{name} {value:.4f}"
        for name, value in figures.items()
        if name not in ("learning_rate", "seconds")
    ]
