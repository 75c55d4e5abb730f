"""Intrinsics: functions of compiled code that are written as LLVM instructions.

When a kernel is compiled, an intrinsic is called with the types of the arguments. It returns the
signature of the call and a function ``generate``, which appends LLVM instructions to the kernel.
So a parameter is a type in the intrinsic, and the value of the same position in ``generate``
(:mod:`fastcnn.engine.numba.runtime.types`). An intrinsic has a parameter for each argument of the
call, which can be more than ten, because a record of arguments would not stay in registers.

With ``NUMBA_DISABLE_JIT=1`` a plain function on NumPy runs instead, so that kernels run in a
debugger; its multiply-adds round twice. Intrinsics stand in :mod:`fastcnn.engine.numba.tiles`, for
register tiles, and in ``atomics``, ``floats``, ``runs`` and ``calls`` of this room.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeAlias

from numba import extending
from numba.core import config, types

from fastcnn.engine.numba.runtime.types import (
    ArrayType,
    Builder,
    Context,
    Signature,
    Value,
    Values,
)


class Code(NamedTuple):
    """A call of an intrinsic, while the code of the kernel is generated.

    Attributes:
        context: what Numba's code generator knows.
        builder: appends instructions to the kernel.
        arguments: the values of the call's arguments.
    """

    context: Context
    builder: Builder
    arguments: Values

    def data(self, kind: ArrayType, array: Value) -> Value:
        """The pointer to the first element of a Numba array."""
        return self.context.make_array(kind)(self.context, self.builder, array).data

    def nothing(self) -> Value:
        """The result of an intrinsic that returns None."""
        return self.context.get_dummy_value()


Declaration: TypeAlias = tuple[Signature, Callable[[Code], Value]]
"""What an intrinsic returns: its signature, and the function that generates its code."""


def intrinsic(
    plain: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Declaration]], Any]:
    """Make a function an intrinsic.

    ``plain`` is the NumPy function that does the same when compiling is off, or None if the
    intrinsic is never called then.
    """

    def declare(function: Callable[..., Declaration]) -> Any:
        if config.DISABLE_JIT and plain is not None:
            return plain

        # Numba calls an intrinsic with its typing context first, and expects it in the signature.
        @wraps(function)
        def declared(typing_context: object, *kinds: types.Type) -> tuple[Signature, Any]:
            signature, generate = function(*kinds)

            def lower(context: Context, builder: Builder, _: Signature, arguments: Values) -> Value:
                return generate(Code(context, builder, arguments))

            return signature, lower

        of_call = inspect.signature(function)
        first = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = [first, *of_call.parameters.values()]
        vars(declared)["__signature__"] = of_call.replace(parameters=parameters)
        return extending.intrinsic(prefer_literal=True)(declared)

    return declare
