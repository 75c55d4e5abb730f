"""Which implementation serves a call, and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.core.operations import PUBLIC
from fastcnn.core.quoting import quoted
from fastcnn.engine.registry import Explanation, recorded
from fastcnn.ops.declaration import FUNCTIONS

EXPLAINABLE = PUBLIC

# Arguments that are arrays of real numbers, for which explain takes a shape.
_ARRAYS = frozenset({"x", "w", "a", "b", "dy", "logits", "gamma", "beta", "mean", "variance"})


def explain(op: str, *args: object, **kwargs: object) -> Explanations:
    """The implementations that would serve this call, with reasons. Nothing is computed.

    Args:
        op: the name of a public function, such as "conv2d".
        args, kwargs: the arguments of the call. A tuple of ints may stand for a positional array;
            it means a float32 array of that shape.

    Returns:
        One ``Explanation`` for each operation of the call. Printed, it shows the implementation,
        the reason why earlier ones in the registry do not serve, and the problem. Where the
        compiled engine chooses among kernels, it also shows the kernel, its register tile, how many
        items the threads share, and the reason why earlier kernels do not serve.

    Raises:
        ValueError: no public function has the name ``op``.
        TypeError, ValueError, ImportError, MemoryError: the errors of the call itself.

    Example:
        >>> print(explain("max_pool2d", (1, 26, 26, 8), 2, engine="naive"))
        max_pool2d: naive.max_pool2d, the specification, in Python loops
          not numba.max_pool2d: the engine 'naive' was asked for
          not im2col.max_pool2d: the engine 'naive' was asked for
          problem: (1, 26, 26, 8) -> (1, 13, 13, 8), float32
    """
    function: Any = FUNCTIONS.get(op) if op in EXPLAINABLE else None
    if function is None:
        raise ValueError(f"op must be one of {', '.join(EXPLAINABLE)}, got {quoted(op)}")
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    stand_ins = {
        name: np.empty(value, np.float32)
        for name, value in zip(names, args, strict=False)
        if name in _ARRAYS and isinstance(value, tuple) and all(type(v) is int for v in value)
    }
    arguments = [stand_ins.get(name, value) for name, value in zip(names, args, strict=False)]
    parameters = args[len(arguments) :]
    return Explanations(recorded(lambda: function(*arguments, *parameters, **kwargs)))


class Explanations(tuple[Explanation, ...]):
    """One ``Explanation`` for each operation of a call."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    __repr__ = __str__  # so that a prompt and a notebook show it as print does

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython shows, which prints the members of a tuple by itself otherwise."""
        printer.text(str(self))
