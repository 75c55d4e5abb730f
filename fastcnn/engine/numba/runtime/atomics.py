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

from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import ArrayType, IntType, Value


@intrinsic()
def load_acquire(array: ArrayType, index: IntType) -> Declaration:
    """Read ``array[index]`` from memory, before all later reads and writes."""

    def generate(code: Code) -> Value:
        data = code.data(array, code.arguments[0])
        return code.builder.load_atomic(code.builder.gep(data, [code.arguments[1]]), "acquire", 8)

    return types.int64(array, index), generate


@intrinsic()
def store_release(array: ArrayType, index: IntType, value: IntType) -> Declaration:
    """Write ``array[index] = value``; other threads see it after all earlier writes."""

    def generate(code: Code) -> Value:
        array_value, i, number = code.arguments
        word = code.builder.gep(code.data(array, array_value), [i])
        code.builder.store_atomic(number, word, "release", 8)
        return code.nothing()

    return types.void(array, types.intp, types.int64), generate


@intrinsic()
def swap(array: ArrayType, index: IntType, old: IntType, new: IntType) -> Declaration:
    """Compare and swap: set ``array[index]`` to ``new`` if it is ``old``; return whether it was."""

    def generate(code: Code) -> Value:
        array_value, i, *old_and_new = code.arguments
        word = code.builder.gep(code.data(array, array_value), [i])
        exchange = code.builder.cmpxchg(word, *old_and_new, "acq_rel", "acquire")
        return code.builder.extract_value(exchange, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), generate


@intrinsic()
def yield_core() -> Declaration:
    """Let another thread or program use this core, if the system has a call for it."""

    def generate(code: Code) -> Value:
        if hasattr(os, "sched_yield"):
            kind = ir.FunctionType(ir.IntType(32), [])
            module = code.builder.module
            code.builder.call(cgutils.get_or_insert_function(module, kind, "sched_yield"), [])
        return code.nothing()

    return types.void(), generate


@intrinsic()
def pause() -> Declaration:
    """Tell the processor that this loop waits."""

    def generate(code: Code) -> Value:
        if platform.machine().lower() in ("x86_64", "amd64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            code.builder.call(cgutils.get_or_insert_function(code.builder.module, kind, name), [])
        return code.nothing()

    return types.void(), generate
