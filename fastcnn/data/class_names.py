"""Names of classes, which belong to a model and travel with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastcnn.core.quoting import quoted

_LONGEST = 1000  # characters


def checked_names(
    value: object, outputs: Sequence[tuple[int, ...]] | None
) -> tuple[str, ...] | None:
    """Names of classes in the order of their numbers, or None for None.

    Args:
        value: a sequence of texts that differ; other values become texts.
        outputs: the shape of each output of the model, or None if it is not built. The only output
            must have as many channels as there are names, or a single one for two names.

    Raises ``TypeError`` for no sequence, ``ValueError`` for names that are empty, longer than 1000
    characters, equal, or of another number than the classes of the model.

    >>> checked_names(["cat", "dog"], [(2,)])
    ('cat', 'dog')
    """
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise TypeError(f"classes must be a list of names, got {quoted(value)}")
    names = tuple(str(one) for one in value)
    for i, name in enumerate(names):
        if not 0 < len(name) <= _LONGEST:
            raise ValueError(
                f"classes must be names of 1 to {_LONGEST} characters, got {quoted(name)} for "
                f"class {i}"
            )
    if len({*names}) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"classes must have different names, got {quoted(twice)} twice")
    check_number(names, outputs)
    return names


def check_number(names: tuple[str, ...] | None, outputs: Sequence[tuple[int, ...]] | None) -> None:
    """Raise ``ValueError`` where a model of these outputs has another number of classes."""
    if names is None or outputs is None:
        return
    if len(outputs) != 1:
        raise ValueError(f"classes must be None for a model with {len(outputs)} outputs")
    channels = outputs[0][-1]
    if len(names) != channels and (channels, len(names)) != (1, 2):
        raise ValueError(
            f"classes must have a name for each of {channels} outputs, or two names for one "
            f"output, got {len(names)} names: {quoted(list(names))}"
        )
