"""Calls of compiled kernels by their address, from compiled code.

Each kernel has two entries beside the one for Python, both functions of a place in memory, a start
and a stop. The **task** reads the kernel's arguments from a frame, where its caller has laid them
down as they are. The **step** reads them from operands, one word of 64 bits for each argument: the
address of an array's first element, an integer, or a truth value. So compiled code can run kernels
of which it knows the address alone, and which ones these are is data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic

from fastcnn.engine.numba.runtime import rehearsal
from fastcnn.engine.numba.runtime.intrinsics import or_in_python

NO_BOARD = np.zeros(0, np.int64)
"""The board of a call that nobody shares; see :mod:`fastcnn.engine.numba.runtime.jobs`."""
SHARE = 9
"""The word of a board that holds the address of ``jobs.share``, as a step."""

# Kernels that have handed out addresses.
_ADDRESSED: dict[int, Callable[..., None]] = {}

_WORD, _POINTER = ir.IntType(64), ir.IntType(8).as_pointer()
_TASK = ir.FunctionType(ir.VoidType(), [_POINTER, _WORD, _WORD])
_ENDLESS = 1 << 48  # elements of an array that is given by its address alone
_ASK = -1  # pieces of a call that asks for the step's address


def step_address(kernel: Callable[..., None], *arguments: object) -> int:
    """The address of a kernel's step for arguments of these types; compiled if need be.

    It stays there for good, because a program may outlive whoever made the kernel: of two threads
    that make the same kernel at once, a cache keeps one. The kernel itself tells the address: the
    linker has put it into the code, so no symbol is looked up. In a rehearsal it is 0.

    Raises ``TypeError`` for an argument that no operand can be: see :func:`_is_operand`.
    """
    if rehearsal.active and rehearsal.requested(kernel, (NO_BOARD, _ASK, 0, 0, *arguments)):
        return 0
    answer = np.zeros(1, np.int64)
    kernel(answer, _ASK, 0, 0, *arguments)
    if not answer[0]:
        raise TypeError(
            "a step's arguments must be C-contiguous arrays of one dimension, integers or truth "
            f"values, got {', '.join(map(_described, arguments))}"
        )
    _ADDRESSED[id(kernel)] = kernel
    return int(answer[0])


def _described(argument: object) -> str:
    if isinstance(argument, np.ndarray):
        return f"an array of shape {argument.shape}"
    return f"{argument!r}"


def _plain_launch(
    board: Any, pieces: int, start: int, stop: int, kernel: Any, arguments: Any
) -> None:
    kernel(start, stop, *arguments)


@or_in_python(_plain_launch)
def launch(
    typing_context: Any, board: Any, pieces: Any, start: Any, stop: Any, kernel: Any, arguments: Any
) -> Any:
    """Run the kernel over ``range(start, stop)``, shared out in ``pieces`` if there is a board.

    The frame with the arguments is the caller's, which returns when all pieces are done.
    """
    part = kernel.get_call_type(
        typing_context, (types.int64, types.int64, *arguments.types), {}
    ).args

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        frame_of = _Frame(context, arguments.types)
        task = _task(context, builder, kernel.dispatcher.overloads[tuple(part)], frame_of)
        step = _step(builder, task, frame_of)
        frame = frame_of.filled(builder, cgutils.unpack_tuple(builder, values[5]))
        array = context.make_array(board)(context, builder, values[0])
        alone = builder.or_(
            builder.icmp_signed("==", array.nitems, _WORD(0)),
            builder.and_(
                builder.icmp_signed("<=", values[1], _WORD(1)),
                builder.icmp_signed("!=", values[1], _WORD(_ASK)),
            ),
        )
        with builder.if_else(alone) as (here, elsewhere):
            with here:
                builder.call(task, [frame, *values[2:4]])
            with elsewhere:
                asked = builder.icmp_signed("==", values[1], _WORD(_ASK))
                with builder.if_else(asked) as (answer, share):
                    with answer:
                        builder.store(builder.ptrtoint(step, _WORD), array.data)
                    with share:
                        _share(builder, array.data, values[1:4], task, frame)
        return context.get_dummy_value()

    return types.none(board, pieces, start, stop, kernel, arguments), generate


class _Frame:
    """The memory that holds a task's arguments, one after the other."""

    def __init__(self, context: Any, kinds: tuple[Any, ...]) -> None:
        self.context, self.kinds = context, kinds
        self._models = [context.data_model_manager[kind] for kind in kinds]
        fields = [model.get_data_type() for model in self._models]
        self._type = ir.LiteralStructType(fields)

    def filled(self, builder: Any, values: list[Any]) -> Any:
        """The address of a frame of the function that is being built, with these arguments."""
        place = cgutils.alloca_once(builder, self._type)
        for i, (model, value) in enumerate(zip(self._models, values, strict=True)):
            field = cgutils.gep_inbounds(builder, place, 0, i)
            builder.store(model.as_data(builder, value), field)
        return builder.bitcast(place, _POINTER)

    def values(self, builder: Any, address: Any) -> list[Any]:
        """The arguments that lie there."""
        place = builder.bitcast(address, self._type.as_pointer())
        return [
            model.from_data(builder, builder.load(cgutils.gep_inbounds(builder, place, 0, i)))
            for i, model in enumerate(self._models)
        ]


def _internal(module: Any, name: str) -> tuple[Any, Any]:
    """A new function (address, start, stop) of this module, and a builder in it."""
    function = ir.Function(module, _TASK, name)
    function.linkage = "internal"
    function.attributes.add("noinline")  # a kernel's code is large, and should be there once
    return function, ir.IRBuilder(function.append_basic_block())


def _task(context: Any, builder: Any, part: Any, frame_of: _Frame) -> Any:
    task, inside = _internal(builder.module, f"{builder.function.name}.task")
    values = frame_of.values(inside, task.args[0])
    context.add_linking_libs([part.library])
    function = context.declare_function(builder.module, part.fndesc)
    context.call_conv.call_function(
        inside, function, part.fndesc.restype, part.fndesc.argtypes, [*task.args[1:], *values]
    )
    inside.ret_void()
    return task


def _step(builder: Any, task: Any, frame_of: _Frame) -> Any:
    """The task with its arguments given by operands; null where one is no array, int or bool."""
    if not all(_is_operand(kind) for kind in frame_of.kinds):
        return ir.Constant(_TASK.as_pointer(), None)
    step, inside = _internal(builder.module, f"{builder.function.name}.step")
    operands = inside.bitcast(step.args[0], _WORD.as_pointer())
    values = []
    for i, kind in enumerate(frame_of.kinds):
        value = inside.load(inside.gep(operands, [_WORD(i)]))
        if isinstance(kind, types.Array):
            value = _endless(frame_of.context, inside, kind, value)
        elif kind == types.boolean:
            value = inside.icmp_unsigned("!=", value, _WORD(0))
        values.append(value)
    inside.call(task, [frame_of.filled(inside, values), *step.args[1:]])
    inside.ret_void()
    return step


def _is_operand(kind: Any) -> bool:
    if isinstance(kind, types.Array):
        return kind.ndim == 1 and kind.layout == "C"
    return kind in (types.int64, types.boolean)


def _share(builder: Any, board: Any, values: list[Any], task: Any, arguments: Any) -> None:
    """Call ``jobs.share`` for values (pieces, start, stop) by its address."""
    pieces, start, stop = values
    words = [builder.ptrtoint(board, _WORD), pieces]
    words += [builder.ptrtoint(pointer, _WORD) for pointer in (task, arguments)]
    share = builder.load(builder.gep(board, [_WORD(SHARE)]))
    function = builder.inttoptr(share, _TASK.as_pointer())
    builder.call(function, [_laid_down(builder, words), start, stop])


def _laid_down(builder: Any, words: list[Any]) -> Any:
    """The address of these words in the frame of the function that is being built."""
    place = cgutils.alloca_once(builder, _WORD, len(words))
    for i, word in enumerate(words):
        builder.store(word, builder.gep(place, [_WORD(i)]))
    return builder.bitcast(place, _POINTER)


OPERANDS = 7
"""Operands of a step in a list of steps; a kernel reads as many as it has arguments."""
# Words of a step in such a list: function, start, stop, the operands' bases, their offsets.
_BASES, _OFFSETS = 3, 3 + OPERANDS
STEP_WORDS = _OFFSETS + OPERANDS


@intrinsic  # type: ignore[untyped-decorator]
def call_step(typing_context: Any, steps: Any, i: Any, places: Any, first: Any) -> Any:
    """Run step ``i`` of a list of steps on this thread.

    ``steps`` are words of 64 bits, :data:`STEP_WORDS` for each step. An operand is
    ``places[first + base] + offset``. The kernel must know how far it may go: it sees arrays
    without end.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        table = context.make_array(steps)(context, builder, values[0]).data
        bases = context.make_array(places)(context, builder, values[2]).data
        row = builder.gep(table, [builder.mul(values[1], _WORD(STEP_WORDS))])
        row_of_bases = builder.gep(bases, [values[3]])

        def word(column: int) -> Any:
            return builder.load(builder.gep(row, [_WORD(column)]))

        operands = []
        for k in range(OPERANDS):
            base = builder.load(builder.gep(row_of_bases, [word(_BASES + k)]))
            operands.append(builder.add(base, word(_OFFSETS + k)))
        function = builder.inttoptr(word(0), _TASK.as_pointer())
        builder.call(function, [_laid_down(builder, operands), word(1), word(2)])
        return context.get_dummy_value()

    return types.none(steps, types.int64, places, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def share_step(
    typing_context: Any, board: Any, pieces: Any, start: Any, stop: Any, step: Any, operands: Any
) -> Any:
    """Run the step at this address with these operands, shared out if there is a board."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = builder.inttoptr(values[4], _TASK.as_pointer())
        words = _laid_down(builder, cgutils.unpack_tuple(builder, values[5]))
        array = context.make_array(board)(context, builder, values[0])
        alone = builder.or_(
            builder.icmp_signed("==", array.nitems, _WORD(0)),
            builder.icmp_signed("<=", values[1], _WORD(1)),
        )
        with builder.if_else(alone) as (here, elsewhere):
            with here:
                builder.call(function, [words, *values[2:4]])
            with elsewhere:
                _share(builder, array.data, values[1:4], function, words)
        return context.get_dummy_value()

    words = UniTuple(types.int64, len(operands))
    return types.none(board, *[types.int64] * 4, words), generate


@intrinsic  # type: ignore[untyped-decorator]
def address_in(typing_context: Any, array: Any, index: Any) -> Any:
    """The address of an element of a one-dimensional array."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(array)(context, builder, values[0]).data
        return builder.ptrtoint(builder.gep(data, [values[1]]), _WORD)

    return types.int64(array, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def run_part(typing_context: Any, task: Any, arguments: Any, start: Any, stop: Any) -> Any:
    """Run the task at this address over ``range(start, stop)``, with the arguments at another."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        function = builder.inttoptr(values[0], _TASK.as_pointer())
        builder.call(function, [builder.inttoptr(values[1], _POINTER), *values[2:]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


def _endless(context: Any, builder: Any, kind: Any, address: Any) -> Any:
    """An array that begins at an address and has no end."""
    array = context.make_array(kind)(context, builder)
    array.data = builder.inttoptr(address, array.data.type)
    for name in ("meminfo", "parent"):
        setattr(array, name, ir.Constant(getattr(array, name).type, None))
    itemsize = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    array.nitems, array.itemsize = ir.Constant(_WORD, _ENDLESS), ir.Constant(_WORD, itemsize)
    array.shape = cgutils.pack_array(builder, [ir.Constant(_WORD, _ENDLESS)])
    array.strides = cgutils.pack_array(builder, [ir.Constant(_WORD, itemsize)])
    return array._getvalue()
