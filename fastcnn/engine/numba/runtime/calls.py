"""Calls of compiled kernels by their address, from compiled code.

A kernel has two entries beside the one for Python. Both are C functions ``(address, start, stop)``
that run the kernel over ``range(start, stop)``. The **task entry** reads the kernel's arguments
from a frame: memory on the caller's stack, where they lie one after the other. The **step entry**
reads them from operands, one word for each argument: the address of an array's first element, an
integer, or a truth value. So compiled code can run a kernel if it knows nothing but its address.
Programs (:mod:`fastcnn.engine.numba.runtime.program`) call step entries. Threads
(:mod:`fastcnn.engine.numba.runtime.jobs`) call the task entry of an operation, or the step entry of
a program's step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.compiler import CompileResult
from numba.core.types.containers import UniTuple

from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.runtime import rehearsal
from fastcnn.engine.numba.runtime.intrinsics import Code, Declaration, intrinsic
from fastcnn.engine.numba.runtime.types import (
    Address,
    ArrayType,
    Builder,
    Context,
    IntType,
    Kernel,
    KernelType,
    LiteralType,
    TupleType,
    Types,
    Value,
    Values,
    Words,
)

NO_BOARD = np.zeros(0, np.int64)
"""The board of a call that is not shared out; see :mod:`fastcnn.engine.numba.runtime.jobs`."""
OFFER = CACHE_LINE // 8 + 1
"""The word of a board that holds the address of the step entry of ``jobs.offer``: the word after
``LEFT`` of the caller's slot. The words of a board are listed in
:mod:`fastcnn.engine.numba.runtime.jobs`."""

# Kernels whose addresses are known to programs; they live as long as the process.
_ADDRESSED: dict[int, Kernel] = {}

_WORD, _POINTER = ir.IntType(64), ir.IntType(8).as_pointer()
_ENTRY = ir.FunctionType(ir.VoidType(), [_POINTER, _WORD, _WORD])
_ENDLESS = 1 << 48  # elements of an array that is known by its address alone
_ASK = -1  # this number of tasks asks for the address of the step entry


def step_address(kernel: Kernel, *arguments: object) -> Address:
    """The address of a kernel's step entry for arguments of these types; compiles it if need be.

    The kernel stays in memory, because a program may outlive the cache that holds the kernel: when
    two threads make the same kernel at once, the cache keeps one of the two. The kernel itself
    returns the address, which the linker has put into its code, so no symbol is looked up. In a
    rehearsal the address is 0.

    Raises ``TypeError`` for an argument that cannot be an operand: see :func:`_is_operand`.
    """
    if rehearsal.active and rehearsal.list_kernel(kernel, (NO_BOARD, _ASK, 0, 0, *arguments)):
        return 0
    answer = np.zeros(1, np.int64)
    kernel(answer, _ASK, 0, 0, *arguments)
    if not answer[0]:
        raise TypeError(
            "a step's arguments must be C-contiguous arrays of one dimension, integers or truth "
            f"values, got {', '.join(map(_text_of, arguments))}"
        )
    _ADDRESSED[id(kernel)] = kernel
    return int(answer[0])


def _text_of(argument: object) -> str:
    if isinstance(argument, np.ndarray):
        return f"an array of shape {argument.shape}"
    return f"{argument!r}"


def _plain_launch(
    board: Words,
    tasks: int,
    start: int,
    stop: int,
    kernel: Kernel,
    arguments: tuple[Any, ...],
    wide: bool,
) -> None:
    kernel(start, stop, *arguments)


@intrinsic(_plain_launch)
def launch(
    board: ArrayType,
    tasks: IntType,
    start: IntType,
    stop: IntType,
    kernel: KernelType,
    arguments: TupleType,
    wide: LiteralType,
) -> Declaration:
    """Run the kernel over ``range(start, stop)``, cut into ``tasks`` if there is a board.

    The frame lies on the stack of this call, which returns when all tasks are done. If ``tasks`` is
    :data:`_ASK`, nothing runs, and ``board[0]`` becomes the address of the kernel's step entry, or
    0. The kernel answers itself, because its code alone knows the address. If ``wide`` is true, the
    kernel's loops take the widest vectors of the processor.
    """
    range_and_arguments = types.int64, types.int64, *arguments.types
    typing_context = kernel.dispatcher.typingctx
    of_kernel = kernel.get_call_type(typing_context, range_and_arguments, {}).args

    def generate(code: Code) -> Value:
        context, builder, values = code
        layout = _Frame(context, arguments.types)
        compiled = kernel.dispatcher.overloads[tuple(of_kernel)]
        task_entry = _task_entry(context, builder, compiled, layout)
        if wide.literal_value:
            # By default LLVM takes half of the width of AVX-512 on many processors. The method
            # ``add`` of llvmlite's own class knows no attribute that has a value.
            set.add(task_entry.attributes, '"prefer-vector-width"="512"')
        step_entry = _step_entry(builder, task_entry, layout)
        frame = layout.filled(builder, cgutils.unpack_tuple(builder, values[5]))
        asks = builder.icmp_signed("==", values[1], _WORD(_ASK))
        with builder.if_else(asks) as (answer, run):
            with answer:
                words = code.data(board, values[0])
                builder.store(builder.ptrtoint(step_entry, _WORD), words)
            with run:
                _run(code, board, values[0], values[1:4], task_entry, frame)
        return code.nothing()

    return types.none(board, tasks, start, stop, kernel, arguments, wide), generate


class _Frame:
    """How a kernel's arguments lie in a frame, one after the other."""

    def __init__(self, context: Context, types_of_arguments: Types) -> None:
        self.context, self.types = context, types_of_arguments
        self._models = [context.data_model_manager[each] for each in types_of_arguments]
        self._type = ir.LiteralStructType([model.get_data_type() for model in self._models])

    def filled(self, builder: Builder, values: Values) -> Value:
        """The address of a frame with these arguments, on the stack of the builder's function."""
        frame = cgutils.alloca_once(builder, self._type)
        for i, (model, value) in enumerate(zip(self._models, values, strict=True)):
            field = cgutils.gep_inbounds(builder, frame, 0, i)
            builder.store(model.as_data(builder, value), field)
        return builder.bitcast(frame, _POINTER)

    def values(self, builder: Builder, address: Value) -> Values:
        """The arguments in the frame at this address."""
        frame = builder.bitcast(address, self._type.as_pointer())
        return [
            model.from_data(builder, builder.load(cgutils.gep_inbounds(builder, frame, 0, i)))
            for i, model in enumerate(self._models)
        ]


def _new_entry(builder: Builder, suffix: str) -> tuple[ir.Function, Builder]:
    """A new entry of the function that is being built, and a builder of the entry's body."""
    entry = ir.Function(builder.module, _ENTRY, f"{builder.function.name}.{suffix}")
    entry.linkage = "internal"
    entry.attributes.add("noinline")  # because a kernel's code is large, one copy must do
    return entry, ir.IRBuilder(entry.append_basic_block())


def _task_entry(
    context: Context, builder: Builder, compiled: CompileResult, layout: _Frame
) -> ir.Function:
    """The function that runs a compiled kernel with the arguments of a frame."""
    entry, body = _new_entry(builder, "task")
    values = layout.values(body, entry.args[0])
    context.add_linking_libs([compiled.library])
    kernel = compiled.fndesc
    function = context.declare_function(builder.module, kernel)
    arguments = [*entry.args[1:], *values]
    context.call_conv.call_function(body, function, kernel.restype, kernel.argtypes, arguments)
    body.ret_void()
    return entry


def _step_entry(builder: Builder, task_entry: Value, layout: _Frame) -> Value:
    """The C function that runs a kernel on operands; null if an argument cannot be one."""
    if not all(map(_is_operand, layout.types)):
        return ir.Constant(_ENTRY.as_pointer(), None)
    entry, body = _new_entry(builder, "step")
    operands = body.bitcast(entry.args[0], _WORD.as_pointer())
    values = []
    for i, each in enumerate(layout.types):
        value = body.load(body.gep(operands, [_WORD(i)]))
        if isinstance(each, types.Array):
            value = _endless_array(layout.context, body, each, value)
        elif each == types.boolean:
            value = body.icmp_unsigned("!=", value, _WORD(0))
        values.append(value)
    body.call(task_entry, [layout.filled(body, values), *entry.args[1:]])
    body.ret_void()
    return entry


def _is_operand(argument: types.Type) -> bool:
    """Whether an argument of this type can be one word."""
    if isinstance(argument, types.Array):
        return argument.ndim == 1 and argument.layout == "C"
    return argument in (types.int64, types.boolean)


def _run(
    code: Code, kind: ArrayType, board: Value, values: Values, entry: Value, frame: Value
) -> None:
    """Call an entry for ``values`` (tasks, start, stop): on this thread, or as tasks.

    This thread runs all of the range if the board is empty, or if there is one task.
    """
    context, builder, _ = code
    tasks, start, stop = values
    array = context.make_array(kind)(context, builder, board)
    alone = builder.or_(
        builder.icmp_signed("==", array.nitems, _WORD(0)),
        builder.icmp_signed("<=", tasks, _WORD(1)),
    )
    with builder.if_else(alone) as (here, elsewhere):
        with here:
            builder.call(entry, [frame, start, stop])
        with elsewhere:
            _offer(builder, array.data, values, entry, frame)


def _offer(builder: Builder, board: Value, values: Values, entry: Value, frame: Value) -> None:
    """Call ``jobs.offer`` by its address, for ``values`` (tasks, start, stop)."""
    tasks, start, stop = values
    words = [builder.ptrtoint(board, _WORD), tasks]
    words += [builder.ptrtoint(pointer, _WORD) for pointer in (entry, frame)]
    offer = builder.load(builder.gep(board, [_WORD(OFFER)]))
    function = builder.inttoptr(offer, _ENTRY.as_pointer())
    builder.call(function, [_on_stack(builder, words), start, stop])


def _on_stack(builder: Builder, words: Values) -> Value:
    """The address of these words on the stack of the builder's function."""
    memory = cgutils.alloca_once(builder, _WORD, len(words))
    for i, word in enumerate(words):
        builder.store(word, builder.gep(memory, [_WORD(i)]))
    return builder.bitcast(memory, _POINTER)


OPERANDS = 10
"""Operands of a step in a list of steps; a kernel reads as many as it has arguments."""
# Words of a step in such a list: the entry's address, start, stop, then the operands' bases, then
# their offsets.
_BASES, _OFFSETS = 3, 3 + OPERANDS
STEP_WORDS = _OFFSETS + OPERANDS


@intrinsic()
def call_step(steps: ArrayType, i: IntType, bases: ArrayType, first: IntType) -> Declaration:
    """Run step ``i`` of a list of steps on this thread.

    Reads :data:`STEP_WORDS` words of ``steps`` for the step, and the words of ``bases`` from
    ``first`` on. With the step's words as ``row``, operand k is ``bases[first + row[_BASES + k]] +
    row[_OFFSETS + k]``. The kernel sees arrays without an end, and must know from its other
    arguments how far it may read and write.
    """

    def generate(code: Code) -> Value:
        _, builder, values = code
        table, data = code.data(steps, values[0]), code.data(bases, values[2])
        entry, operands, start, stop = _load_step(builder, table, data, values[1], values[3])
        builder.call(entry, [operands, start, stop])
        return code.nothing()

    return types.none(steps, types.int64, bases, types.int64), generate


@intrinsic()
def offer_step(
    board: ArrayType,
    tasks: IntType,
    steps: ArrayType,
    i: IntType,
    bases: ArrayType,
) -> Declaration:
    """Run step ``i`` of a list of steps, cut into at most ``tasks`` if there is a board.

    Reads what :func:`call_step` reads.
    """

    def generate(code: Code) -> Value:
        _, builder, values = code
        table, data = code.data(steps, values[2]), code.data(bases, values[4])
        entry, operands, start, stop = _load_step(builder, table, data, values[3], _WORD(0))
        count = builder.sub(stop, start)
        fewer = builder.icmp_signed("<", count, values[1])
        limited_tasks = builder.select(fewer, count, values[1])
        _run(code, board, values[0], [limited_tasks, start, stop], entry, operands)
        return code.nothing()

    return types.none(board, types.int64, steps, types.int64, bases), generate


def _load_step(
    builder: Builder, table: Value, bases: Value, i: Value, first: Value
) -> tuple[Value, Value, Value, Value]:
    """Entry, operands, start and stop of step ``i`` of a table, with the bases from ``first`` on.

    The operands are words on the stack.
    """
    row = builder.gep(table, [builder.mul(i, _WORD(STEP_WORDS))])
    row_of_bases = builder.gep(bases, [first])

    def word(column: int) -> Value:
        return builder.load(builder.gep(row, [_WORD(column)]))

    operands = []
    for k in range(OPERANDS):
        base = builder.load(builder.gep(row_of_bases, [word(_BASES + k)]))
        operands.append(builder.add(base, word(_OFFSETS + k)))
    entry = builder.inttoptr(word(0), _ENTRY.as_pointer())
    return entry, _on_stack(builder, operands), word(1), word(2)


@intrinsic()
def offer_entry(
    board: ArrayType,
    tasks: IntType,
    start: IntType,
    stop: IntType,
    step: IntType,
    operands: TupleType,
) -> Declaration:
    """Run a kernel over ``range(start, stop)``, cut into ``tasks`` if there is a board.

    ``step`` is the address of its step entry, ``operands`` are its arguments as integers.
    """

    def generate(code: Code) -> Value:
        _, builder, values = code
        entry = builder.inttoptr(values[4], _ENTRY.as_pointer())
        words = _on_stack(builder, cgutils.unpack_tuple(builder, values[5]))
        _run(code, board, values[0], values[1:4], entry, words)
        return code.nothing()

    words = UniTuple(types.int64, len(operands))
    return types.none(board, *[types.int64] * 4, words), generate


@intrinsic()
def address_in(array: ArrayType, index: IntType) -> Declaration:
    """The address of an element of a one-dimensional array."""

    def generate(code: Code) -> Value:
        _, builder, values = code
        data = code.data(array, values[0])
        return builder.ptrtoint(builder.gep(data, [values[1]]), _WORD)

    return types.int64(array, types.int64), generate


@intrinsic()
def run_entry(entry: IntType, frame: IntType, start: IntType, stop: IntType) -> Declaration:
    """Run the entry at an address over ``range(start, stop)``, with the frame at an address."""

    def generate(code: Code) -> Value:
        _, builder, values = code
        function = builder.inttoptr(values[0], _ENTRY.as_pointer())
        builder.call(function, [builder.inttoptr(values[1], _POINTER), *values[2:]])
        return code.nothing()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


def _endless_array(context: Context, builder: Builder, kind: ArrayType, address: Value) -> Value:
    """An array of this type that begins at an address and has no end."""
    array = context.make_array(kind)(context, builder)
    array.data = builder.inttoptr(address, array.data.type)
    for name in ("meminfo", "parent"):
        setattr(array, name, ir.Constant(getattr(array, name).type, None))
    itemsize = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    array.nitems, array.itemsize = ir.Constant(_WORD, _ENDLESS), ir.Constant(_WORD, itemsize)
    array.shape = cgutils.pack_array(builder, [ir.Constant(_WORD, _ENDLESS)])
    array.strides = cgutils.pack_array(builder, [ir.Constant(_WORD, itemsize)])
    return array._getvalue()
