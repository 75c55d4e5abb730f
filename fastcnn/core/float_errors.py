"""NumPy's error state, and training that diverges.

``np.seterr`` and ``np.errstate`` say what happens at an overflow, an underflow, a division by zero
and an invalid number: nothing, a warning, or a ``FloatingPointError``. They speak of the caller's
own arithmetic. Here an exponential that becomes 0 is wanted, and a sum that leaves the range of its
dtype is infinite, as in compiled code, which knows no such state. So all NumPy arithmetic of
fastcnn runs under :data:`unreported`, which each entry sets for itself: what the registry hands out
of the engines in NumPy, the passes of a model through its layers, losses, optimizers, conversions
of arrays, and the article's layers. Code of a user's that a training calls for itself (callbacks,
augmentation) keeps the user's own state.
"""

from __future__ import annotations

import numpy as np

unreported = np.errstate(all="ignore")
"""A decorator: within the function NumPy reports nothing. It may be called again meanwhile."""


class Divergence(FloatingPointError):
    """The loss of a batch is not finite.

    A class of its own, because a ``FloatingPointError`` of a user's layer is no divergence.
    """
