"""Calls of compiled kernels by their address, from compiled code.

A function that is compiled to run kernels of which it knows only that they take so many arrays and
numbers: which ones they are is data. Of a **task** it knows nothing: that is a function
``(arguments, start, stop)`` which each kernel has, and which finds the arguments where the caller
keeps them. Beside :mod:`fastcnn.kernels.simd` the only place with LLVM.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic

from fastcnn.kernels.simd import or_in_python

NO_BOARD = np.zeros(0, np.int64)
"""The board of a call that nobody shares; see :mod:`fastcnn.kernels.jobs`."""

# Kernels that have handed out addresses.
_ADDRESSED: dict[int, Any] = {}

_WORD, _POINTER = ir.IntType(64), ir.IntType(8).as_pointer()
_TASK = ir.FunctionType(ir.VoidType(), [_POINTER, _WORD, _WORD])
_ENDLESS = 1 << 48


def address_of(kernel: Any, *arguments: Any) -> int:
    """Where the machine code of a kernel lies that takes such arguments; compiled if need be.

    It stays there for good, because a program may outlive whoever made the kernel: of two threads
    that make the same kernel at once, a cache keeps one.
    """
    signature = tuple(kernel.typeof_pyval(a) for a in (NO_BOARD, 1, 0, 0, *arguments))
    kernel.compile(signature)
    compiled = kernel.overloads[signature]
    _ADDRESSED[id(kernel)] = kernel
    found: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return found


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def call(
    typing_context: Any, address: Any, kinds: Any, start: Any, stop: Any, operands: Any
) -> Any:
    """Run the kernel at ``address`` over ``range(start, stop)``, on this thread.

    ``operands`` are integers; ``kinds`` has a letter for each: "a" an array, given by the address
    of its first element, "b" a truth value, "i" an integer. The kernel must know how far it may
    go: it sees arrays without end.
    """
    array = types.Array(types.int64, 1, "C")
    by_letter = {"a": array, "b": types.boolean, "i": types.int64}
    taken = (array, *[types.int64] * 3, *[by_letter[kind] for kind in kinds.literal_value])

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at, _, first, last, given = arguments
        null = ir.Constant(_WORD, 0)
        values = [_array(context, builder, array, null, 0), null, first, last]
        for i, kind in enumerate(taken[4:]):
            value = builder.extract_value(given, i)
            if kind is array:
                value = _array(context, builder, array, value, _ENDLESS)
            elif kind is types.boolean:
                value = builder.icmp_unsigned("!=", value, null)
            values.append(value)
        convention = context.call_conv
        form = convention.get_function_type(types.none, taken)
        function = builder.inttoptr(at, form.as_pointer())
        result = cgutils.alloca_once(builder, form.args[0].pointee)
        excuse = cgutils.alloca_once(builder, form.args[1].pointee)
        packed = context.get_arg_packer(taken).as_arguments(builder, values)
        builder.call(function, [result, excuse, *packed])
        return context.get_dummy_value()

    return types.none(types.int64, kinds, types.int64, types.int64, operands), generate


def _plain_job(kernel: Any, arguments: Any) -> tuple[Any, Any]:
    return kernel, arguments


@or_in_python(_plain_job)
def job(typing_context: Any, kernel: Any, arguments: Any) -> Any:
    """The addresses of a task that runs the kernel, and of its arguments.

    The arguments lie in the caller's frame, and are there until it returns.
    """
    taken = (types.int64, types.int64, *arguments.types)
    chosen = kernel.get_call_type(typing_context, taken, {}).args

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        models = [context.data_model_manager[kind] for kind in arguments.types]
        values = cgutils.unpack_tuple(builder, given[1], len(models))
        kept = [model.as_data(builder, one) for model, one in zip(models, values, strict=True)]
        frame = ir.LiteralStructType([one.type for one in kept])
        place = cgutils.alloca_once(builder, frame)
        for i, one in enumerate(kept):
            builder.store(one, cgutils.gep_inbounds(builder, place, 0, i))

        task = ir.Function(builder.module, _TASK, f"{builder.function.name}.task")
        task.linkage = "internal"
        task.attributes.add("noinline")  # the kernel's code is there once, and large
        inside = ir.IRBuilder(task.append_basic_block())
        at = inside.bitcast(task.args[0], frame.as_pointer())
        found = [
            model.from_data(inside, inside.load(cgutils.gep_inbounds(inside, at, 0, i)))
            for i, model in enumerate(models)
        ]
        made = kernel.dispatcher.overloads[tuple(chosen)]
        context.add_linking_libs([made.library])
        function = context.declare_function(builder.module, made.fndesc)
        context.call_conv.call_function(
            inside, function, made.fndesc.restype, made.fndesc.argtypes, [*task.args[1:], *found]
        )
        inside.ret_void()
        addresses = builder.ptrtoint(task, _WORD), builder.ptrtoint(place, _WORD)
        return context.make_tuple(builder, signature.return_type, addresses)

    return UniTuple(types.int64, 2)(kernel, arguments), generate


def _plain_part(task: Any, arguments: Any, start: int, stop: int) -> None:
    task(start, stop, *arguments)


@or_in_python(_plain_part)
def run_part(typing_context: Any, task: Any, arguments: Any, start: Any, stop: Any) -> Any:
    """Run a task over ``range(start, stop)``."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        function = builder.inttoptr(given[0], _TASK.as_pointer())
        builder.call(function, [builder.inttoptr(given[1], _POINTER), *given[2:]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


def _array(context: Any, builder: Any, kind: Any, address: Any, length: int) -> Any:
    made = context.make_array(kind)(context, builder)
    made.data = builder.inttoptr(address, made.data.type)
    for name in ("meminfo", "parent"):
        setattr(made, name, ir.Constant(getattr(made, name).type, None))
    for name in ("nitems", "itemsize"):
        setattr(made, name, ir.Constant(_WORD, 0))
    made.shape = cgutils.pack_array(builder, [ir.Constant(_WORD, length)])
    made.strides = cgutils.pack_array(builder, [ir.Constant(_WORD, 8)])
    return made._getvalue()
