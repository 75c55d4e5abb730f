"""What a training needs of the model that it trains."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.nn.layers import Shape


class Trainee(Protocol):
    """A model, as the training loop knows it.

    Attributes:
        stop_training: whether the training ends after its batch; the loop and callbacks set it.
        rng: what is random is drawn from this generator.
        input_shape: of one sample, which augmented images must have; a tuple of shapes where there
            are several inputs.
    """

    stop_training: bool
    rng: np.random.Generator
    input_shape: Shape | tuple[Shape, ...] | None

    def get_weights(self) -> list[Array]:
        """Copies of all arrays."""
        ...
