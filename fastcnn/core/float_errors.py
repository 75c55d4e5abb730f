"""NumPy's error state, and training that diverges.

``np.seterr`` and ``np.errstate`` say what happens at an overflow, an underflow, a division by zero
and an invalid number: nothing, a warning, or a ``FloatingPointError``. They are meant for the
caller's own arithmetic. In fastcnn an exponential may become 0, and a sum that leaves the range of
its dtype becomes infinite. Compiled code has no error state and behaves the same. Therefore all
NumPy arithmetic of fastcnn runs under :data:`unreported`: engine functions, passes of a model
through its layers, losses, optimizers, conversions of arrays, and the article's layers. Users'
callbacks and augmentations run under the user's own error state.
"""

from __future__ import annotations

import numpy as np

unreported = np.errstate(all="ignore")
"""A decorator: within the function NumPy reports nothing. The function may be re-entered."""


class Divergence(FloatingPointError):
    """The loss of a batch is not finite.

    It has a class of its own, because a ``FloatingPointError`` of a user's layer is no divergence.
    """
