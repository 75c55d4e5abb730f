"""Intrinsics on single numbers, from which loops over flat arrays become loops over vectors.

LLVM compiles a call of a library's ``exp`` once for each number. Functions that are made of these
intrinsics have neither calls nor branches, so it compiles them to vectors. Each one serves float32
and float64. No instruction has a fast-math flag, so each step is rounded as it is written.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from fastcnn.engine.numba.runtime.instruction_sets import host_registers
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import Builder, Float, FloatType, IntType, TupleType, Value

SHIFT_32, SHIFT_64 = 1.5 * 2.0**23, 1.5 * 2.0**52
"""Numbers so large that a sum with them is an integer, for float32 and for float64."""


def _fma(builder: Builder, a: Value, b: Value, c: Value) -> Value:
    """``a · b + c``, rounded once if the processor has the instruction."""
    if host_registers().isa in ("sse2", "baseline"):
        # Without the instruction, llvm.fma would call a function for each number.
        return builder.fadd(builder.fmul(a, b), c)
    name = "llvm.fma.f32" if a.type == ir.FloatType() else "llvm.fma.f64"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _plain_multiply_add(a: Float, b: Float, c: Float) -> Float:
    return a * b + c


@intrinsic(_plain_multiply_add)
def multiply_add(a: FloatType, b: FloatType, c: FloatType) -> Declaration:
    """``a · b + c`` of three numbers of one type, rounded once if the processor can do so."""

    def generate(code: Code) -> Value:
        return _fma(code.builder, *code.arguments)

    return a(a, a, a), generate


def _plain_by_type(x: Float, float32: float, float64: float) -> Float:
    return type(x)(float32 if isinstance(x, np.float32) else float64)


@intrinsic(_plain_by_type)
def by_type(x: FloatType, float32: FloatType, float64: FloatType) -> Declaration:
    """The constant for numbers of the type of ``x``, in that type."""

    def generate(code: Code) -> Value:
        return code.arguments[1 if x == types.float32 else 2]

    return x(x, x, x), generate


def _plain_power(shifted: Float, addend: int) -> Float:
    k = shifted - _plain_by_type(shifted, SHIFT_32, SHIFT_64)
    power: Float = np.ldexp(type(k)(1), int(np.nan_to_num(k)) + addend)
    return power


@intrinsic(_plain_power)
def power_of_two(shifted: FloatType, addend: IntType) -> Declaration:
    """2 to the power ``k + addend``, for the integer k of which ``shifted`` is the sum with the
    shift of its type.

    The power must be a normal number. For other exponents, and for NaN, the result has no meaning.
    """

    def generate(code: Code) -> Value:
        builder = code.builder
        # The last bits of ``shifted`` are k. With the bias added they move to where a number's
        # exponent is stored, and the bits before them fall off.
        number, word = code.arguments[0].type, ir.IntType(shifted.bitwidth)
        bias, mantissa = (127, 23) if shifted == types.float32 else (1023, 52)
        exponent = builder.add(code.arguments[1], ir.IntType(64)(bias))
        bits = builder.add(builder.bitcast(code.arguments[0], word), builder.trunc(exponent, word))
        return builder.bitcast(builder.shl(bits, word(mantissa)), number)

    return shifted(shifted, types.int64), generate


def _plain_polynomial(x: Float, float32: tuple[float, ...], float64: tuple[float, ...]) -> Float:
    *rest, total = map(type(x), float32 if isinstance(x, np.float32) else float64)
    for coefficient in reversed(rest):
        total = total * x + coefficient
    return total


@intrinsic(_plain_polynomial)
def polynomial(x: FloatType, float32: TupleType, float64: TupleType) -> Declaration:
    """A polynomial at ``x``, by Horner's rule.

    The coefficients are those of ``float32`` or ``float64``, by the type of ``x``. The constant
    term is the first.
    """

    def generate(code: Code) -> Value:
        builder = code.builder
        coefficients = cgutils.unpack_tuple(builder, code.arguments[1 if x == types.float32 else 2])
        if x == types.float32:
            coefficients = [builder.fptrunc(one, ir.FloatType()) for one in coefficients]
        *rest, total = coefficients
        for coefficient in reversed(rest):
            total = _fma(builder, total, code.arguments[0], coefficient)
        return total

    return x(x, float32, float64), generate
