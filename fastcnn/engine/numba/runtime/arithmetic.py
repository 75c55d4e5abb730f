"""The types of ``a + b`` and its like, resolved once for each operator and pair of types.

For each operation Numba tries the operator's many definitions (for strings, lists, arrays …) until
one fits, first when it infers types, and then up to four times when it writes code, because an
operand could be a constant with a definition of its own. In kernels nearly all operands are
integers and floats of few types, so the first answer is kept here. It is used while a kernel
compiles (docs/measurements.md, "Types of arithmetic are resolved once").
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeGuard

from numba.core import compiler_machinery, lowering, typed_passes, types, typing
from numba.core import ir as numba_ir
from numba.core.types.misc import unliteral

from fastcnn.engine.numba.runtime.types import Signature, Types, Value

_OPERATORS = {
    *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.truediv),
    *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
    *(operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift),
    *(operator.neg, operator.not_, operator.invert),
}
_OPERATORS |= {getattr(operator, f"i{f.__name__.rstrip('_')}", f) for f in _OPERATORS}
_signatures: dict[tuple[object, ...], Signature] = {}
"""Numba's signatures, by the operator and the types of the operands without their literals."""


def _is_arithmetic(function: types.Type, kinds: Types) -> TypeGuard[types.Function]:
    """Whether the function is an operator, and operands of these types are numbers."""
    return (
        isinstance(function, types.Function)
        and function.typing_key in _OPERATORS
        and all(isinstance(unliteral(kind), types.Number | types.Boolean) for kind in kinds)
    )


def _signature(context: typing.BaseContext, function: types.Function, kinds: Types) -> Signature:
    """Numba's signature of an operator for operands of these types."""
    key = function.typing_key, *map(unliteral, kinds)
    signature = _signatures.get(key)
    if signature is None:
        signature = _signatures[key] = context.resolve_function_type(function, key[1:], {})
    return signature


class TypingContext:
    """Numba's typing context with a memory for the types of arithmetic."""

    def __init__(self, context: typing.BaseContext) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def resolve_function_type(
        self, function: types.Type, kinds: Types, keywords: dict[str, types.Type]
    ) -> Signature | None:
        """The signature of a call with arguments of these types."""
        if not keywords and _is_arithmetic(function, kinds):
            return _signature(self._context, function, kinds)
        return self._context.resolve_function_type(function, kinds, keywords)


class _Lower(lowering.Lower):  # type: ignore[misc]
    """Numba's writer of LLVM code, which looks for no constants among numbers."""

    def lower_binop(
        self, result_type: types.Type, expression: numba_ir.Expr, op: Callable[..., Any]
    ) -> Value:
        """Write the code of an operation with two operands."""
        context, signature = self.context, self.fndesc.calltypes[expression]
        operands = expression.lhs, expression.rhs
        kinds = tuple(self.typeof(operand.name) for operand in operands)
        function = context.typing_context.resolve_value_type(op)
        if not _is_arithmetic(function, (*kinds, *signature.args)):
            return super().lower_binop(result_type, expression, op)
        values = [
            context.cast(self.builder, self.loadvar(operand.name), kind, argument)
            for operand, kind, argument in zip(operands, kinds, signature.args, strict=True)
        ]
        exact = _signature(context.typing_context, function, signature.args)
        value = context.get_function(function, exact)(self.builder, values)
        return context.cast(self.builder, value, signature.return_type, result_type)


@compiler_machinery.register_pass(mutates_CFG=True, analysis_only=False)
class KernelLowering(typed_passes.BaseNativeLowering):  # type: ignore[misc]
    """Numba's pass that writes LLVM code, with this module's arithmetic."""

    _name = "kernel_lowering"

    @property
    def lowering_class(self) -> type[_Lower]:
        return _Lower
