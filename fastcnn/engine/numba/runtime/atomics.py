"""Intrinsics on words of memory that threads share without a lock, and for threads that wait.

Only the compiled part of the thread driver (:mod:`fastcnn.engine.numba.runtime.jobs`) calls them.
An ``array`` is one-dimensional, of int64. No intrinsic has a form in Python, because there are no
workers with ``NUMBA_DISABLE_JIT=1``.
"""

from __future__ import annotations

import os
import platform

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastcnn.engine.numba.runtime.types import (
    ArrayType,
    Builder,
    Context,
    IntType,
    Lowering,
    Signature,
    TypingContext,
    Value,
    Values,
)


@intrinsic  # type: ignore[untyped-decorator]
def load_acquire(typing_context: TypingContext, array: ArrayType, index: IntType) -> Lowering:
    """Read ``array[index]`` from memory, before all later reads and writes."""

    def generate(context: Context, builder: Builder, _: Signature, arguments: Values) -> Value:
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "acquire", 8)

    return types.int64(array, index), generate


@intrinsic  # type: ignore[untyped-decorator]
def store_release(
    typing_context: TypingContext, array: ArrayType, index: IntType, value: IntType
) -> Lowering:
    """Write ``array[index] = value``; other threads see it after all earlier writes."""

    def generate(context: Context, builder: Builder, _: Signature, arguments: Values) -> Value:
        data = context.make_array(array)(context, builder, arguments[0]).data
        builder.store_atomic(arguments[2], builder.gep(data, [arguments[1]]), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def swap(
    typing_context: TypingContext, array: ArrayType, index: IntType, old: IntType, new: IntType
) -> Lowering:
    """Compare and swap: set ``array[index]`` to ``new`` if it is ``old``; return whether it was."""

    def generate(context: Context, builder: Builder, _: Signature, arguments: Values) -> Value:
        data = context.make_array(array)(context, builder, arguments[0]).data
        word = builder.gep(data, [arguments[1]])
        exchange = builder.cmpxchg(word, *arguments[2:], "acq_rel", "acquire")
        return builder.extract_value(exchange, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def yield_core(typing_context: TypingContext) -> Lowering:
    """Let another thread or program use this core, if the system has a call for it."""

    def generate(context: Context, builder: Builder, _: Signature, arguments: Values) -> Value:
        if hasattr(os, "sched_yield"):
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic  # type: ignore[untyped-decorator]
def pause(typing_context: TypingContext) -> Lowering:
    """Tell the processor that this loop waits."""

    def generate(context: Context, builder: Builder, _: Signature, arguments: Values) -> Value:
        if platform.machine().lower() in ("x86_64", "amd64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate
