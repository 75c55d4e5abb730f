"""Types and code of arithmetic on numbers, resolved once for each operator and pair of types.

For each ``a + b`` Numba tries the operator's many definitions in turn (for strings, lists, NumPy's
arrays …) until one serves, when it infers types; and again, up to four times, when it writes code,
since one operand could be a constant with a definition of its own. In kernels nearly all operands
are plain integers and floats, of few types. So the first answer is kept here. A third of the time
in Numba's compiler went into the others.
"""

from __future__ import annotations

import operator
from typing import Any

from numba.core import compiler_machinery, lowering, typed_passes, types
from numba.core.types.misc import unliteral

_OPERATORS = {
    *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.truediv),
    *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
    *(operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift),
    *(operator.neg, operator.not_, operator.invert),
}
_OPERATORS |= {getattr(operator, f"i{f.__name__.rstrip('_')}", f) for f in _OPERATORS}
_signatures: dict[tuple[Any, ...], Any] = {}


def _is_arithmetic(function: Any, kinds: tuple[Any, ...]) -> bool:
    return (
        isinstance(function, types.Function)
        and function.typing_key in _OPERATORS
        and all(isinstance(unliteral(kind), types.Number | types.Boolean) for kind in kinds)
    )


def _signature(context: Any, function: Any, kinds: tuple[Any, ...]) -> Any:
    key = function.typing_key, *map(unliteral, kinds)
    signature = _signatures.get(key)
    if signature is None:
        signature = _signatures[key] = context.resolve_function_type(function, key[1:], {})
    return signature


class TypingContext:
    """Numba's typing context with a memory for the types of arithmetic."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def resolve_function_type(self, function: Any, kinds: Any, keywords: Any) -> Any:
        """The signature of a call with arguments of these types."""
        if not keywords and _is_arithmetic(function, kinds):
            return _signature(self._context, function, kinds)
        return self._context.resolve_function_type(function, kinds, keywords)


class _Lower(lowering.Lower):  # type: ignore[misc]
    def lower_binop(self, result_type: Any, expression: Any, op: Any) -> Any:
        """Write code for two operands; for numbers without a look for constants among them."""
        context, signature = self.context, self.fndesc.calltypes[expression]
        operands = expression.lhs, expression.rhs
        kinds = tuple(self.typeof(operand.name) for operand in operands)
        function = context.typing_context.resolve_value_type(op)
        if not _is_arithmetic(function, (*kinds, *signature.args)):
            return super().lower_binop(result_type, expression, op)
        values = [
            context.cast(self.builder, self.loadvar(operand.name), kind, wanted)
            for operand, kind, wanted in zip(operands, kinds, signature.args, strict=True)
        ]
        exact = _signature(context.typing_context, function, signature.args)
        value = context.get_function(function, exact)(self.builder, values)
        return context.cast(self.builder, value, signature.return_type, result_type)


@compiler_machinery.register_pass(mutates_CFG=True, analysis_only=False)
class KernelLowering(typed_passes.BaseNativeLowering):  # type: ignore[misc]
    """Numba's pass that writes LLVM's code, with arithmetic as above."""

    _name = "kernel_lowering"

    @property
    def lowering_class(self) -> type[_Lower]:
        return _Lower
