"""Calls of compiled kernels by their address, from compiled code.

A function that is compiled to run kernels of which it knows only that they take so many arrays and
numbers: which ones they are is data. Beside :mod:`fastcnn.kernels.simd` the only place with LLVM.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastcnn.kernels.jit import NO_GATE

_WORD = ir.IntType(64)
_ENDLESS = 1 << 48


def address_of(kernel: Any, *arguments: Any) -> int:
    """Where the machine code of a kernel lies that takes such arguments; compiled if need be.

    It stays there as long as the kernel lives.
    """
    signature = tuple(kernel.typeof_pyval(a) for a in (NO_GATE, 0, 0, 0, *arguments))
    kernel.compile(signature)
    compiled = kernel.overloads[signature]
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
