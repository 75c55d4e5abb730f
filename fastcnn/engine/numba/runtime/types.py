"""Names for the types that stand in the signatures of the compiled engine.

Numba and LLVM have few type hints, so the type checker takes many of these names for ``Any``. For a
reader they tell three kinds of objects apart: a **kernel** as Python calls it; a **type** of Numba,
which the parameters of an intrinsic are; and a **value** of LLVM, such as a register, which exists
while code is generated. The module holds no code that runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from llvmlite import ir
from numba.core import base, types
from numba.core.types.abstract import Literal
from numba.core.types.containers import BaseTuple
from numba.core.typing import templates
from numpy.typing import NDArray

Address: TypeAlias = int
"""Where an array's first element lies, or a function, in bytes; an int64 in compiled code."""
Words: TypeAlias = NDArray[np.int64]
"""Words of 64 bits: a board, the steps of a program, a table of numbers or addresses."""
Number: TypeAlias = "np.number[Any]"
"""A number of the dtype of a kernel's arrays."""
Float: TypeAlias = np.float64
"""A float of the dtype of a kernel's arrays, float32 or float64; the type checker knows one."""

# --- kernels --------------------------------------------------------------------------------------

Types: TypeAlias = tuple[types.Type, ...]
"""Numba's types of a kernel's arguments."""


class Kernel(Protocol):
    """A compiled function as Python calls it: Numba's dispatcher.

    A kernel is called as ``kernel(board, tasks, start, stop, *arguments)``; the decorator
    :func:`.jit.kernel` puts the first two in front of its parameters.
    With ``NUMBA_DISABLE_JIT=1`` it is the Python function, without these attributes.

    Attributes:
        py_func: the Python function.
        overloads: the compiled code by the types of arguments.
        targetctx: Numba's target, which knows the processor.
        _cache: where the compiled code is kept on the disk.
    """

    py_func: Callable[..., Any]
    overloads: dict[Types, Any]
    targetctx: Context
    _cache: Any

    def __call__(self, *arguments: object) -> Any: ...

    def compile(self, signature: Types) -> Any: ...

    def typeof_pyval(self, argument: object) -> types.Type: ...


DeviceFunction: TypeAlias = Callable[..., Any]
"""A function that kernels inline; see the decorator ``device``."""

# --- intrinsics -----------------------------------------------------------------------------------

Context: TypeAlias = base.BaseContext
"""What Numba's code generator knows about the target and about the layout of types."""
Builder: TypeAlias = ir.IRBuilder
"""Appends LLVM instructions to a function."""
Value: TypeAlias = ir.Value
"""A value of LLVM: what an instruction takes and returns."""
Values: TypeAlias = list[ir.Value]
Signature: TypeAlias = templates.Signature
"""Numba's types of a call's result and arguments."""

ArrayType: TypeAlias = types.Array
IntType: TypeAlias = types.Integer
FloatType: TypeAlias = types.Float
LiteralType: TypeAlias = "Literal[Any]"
"""The type of an argument whose value is known when the kernel is compiled."""
TupleType: TypeAlias = BaseTuple
KernelType: TypeAlias = Any
"""The type of a kernel that compiled code calls, ``numba.core.types.Dispatcher``."""
