"""State dictionaries that ``torch.save`` wrote, read without PyTorch and without running code.

Such a file is a zip file. Its record ``data.pkl`` is a pickle, which describes dictionaries and
tensors; the numbers of a tensor lie in a record ``data/…``, its storage. A pickle is a program for
a stack machine, and can call any function. The reader here is a stack machine of its own. It knows
the instructions that build containers, and two functions: one that makes an ordered dictionary, and
one that makes a tensor. It refuses every other name and every other instruction, and imports
nothing.

Source: the format as PyTorch's notes on serialization semantics describe it, and Python's
``pickletools`` for the instructions.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted
from fastcnn.exchange.file_arrays import bfloat16, checked_shape, refusal
from fastcnn.exchange.zip_files import Records

_LARGEST_PICKLE = 64 << 20  # bytes
_MOST_TENSORS = 1 << 20

_STORAGES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "u2",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1",
    "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
"""NumPy's dtypes of PyTorch's storages; bfloat16 is read as the integers of its bits."""

_WEIGHTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
"""Names under which training scripts put a state dictionary into a larger dictionary."""


class _Name(NamedTuple):
    """The name of a class or a function in a pickle, which is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Storage(NamedTuple):
    """The numbers of tensors: a record, its kind of numbers, and how many there are."""

    key: str
    kind: str
    size: int


class _Failure(Exception):
    """What is wrong with a pickle."""


_MARK = object()
_ORDERED_DICT = _Name("collections", "OrderedDict")
_TENSOR = _Name("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = _Name("torch._utils", "_rebuild_parameter")


def read(name: str, records: Records) -> dict[str, Array]:
    """The arrays of a state dictionary by name, as read-only views of its storages.

    Raises ``ModelFileError`` for a file that is damaged or holds anything else.
    """
    pickles = [key for key in records if key.count("/") == 1 and key.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise refusal(name, "it is a zip file without one data.pkl, so torch.save did not write it")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in records:
        raise refusal(
            name,
            "it is a TorchScript program; save its weights in PyTorch: "
            "torch.save(torch.jit.load(path).state_dict(), path)",
        )
    if records.size(pickles[0]) > _LARGEST_PICKLE:
        raise refusal(name, f"its pickle has more than {_LARGEST_PICKLE} bytes")
    storages = _Storages(name, records, root)
    try:
        described = _Machine(storages).run(records[pickles[0]])
        arrays = _state_dictionary(described)
    except _Failure as failure:
        raise refusal(name, str(failure)) from None
    except RecursionError:
        raise refusal(name, "its pickle is nested too deeply") from None
    return arrays


class _Storages:
    """The storages of a file, each read once, when the first tensor needs it."""

    def __init__(self, name: str, records: Records, root: str) -> None:
        self._name, self._records, self._root = name, records, root
        order = records.get(f"{root}byteorder", b"little")
        if order not in (b"little", b"big"):
            raise refusal(name, f"its byte order is {quoted(order)}")
        self._order = "<" if order == b"little" else ">"
        self._arrays: dict[str, Array] = {}
        self._kinds: dict[str, str] = {}
        self.tensors = 0

    def check(self, storage: _Storage) -> None:
        """Compare the size of a storage with that of its record."""
        record = f"{self._root}data/{storage.key}"
        if record not in self._records:
            raise _Failure(f"the record {quoted(record)} is missing")
        size = storage.size * np.dtype(_STORAGES[storage.kind]).itemsize
        if self._records.size(record) != size:
            raise _Failure(
                f"the record {quoted(record)} has {self._records.size(record)} bytes, but "
                f"{storage.size} numbers of {storage.kind} have {size}"
            )
        if self._kinds.setdefault(storage.key, storage.kind) != storage.kind:
            raise _Failure(f"the record {quoted(record)} has two kinds of numbers")

    def array(self, storage: _Storage) -> Array:
        """The numbers of a storage, (count,)."""
        if storage.key not in self._arrays:
            data = self._records[f"{self._root}data/{storage.key}"]
            dtype = np.dtype(self._order + _STORAGES[storage.kind])
            array = np.frombuffer(data, dtype)
            if self._order == ">":
                array = array.astype(dtype.newbyteorder("="))
            if storage.kind == "BFloat16Storage":
                array = bfloat16(array)
            array.flags.writeable = False
            self._arrays[storage.key] = array
        return self._arrays[storage.key]

    def tensor(self, arguments: tuple[Any, ...]) -> Array:
        """The tensor of the arguments of PyTorch's function, checked: a view of its storage."""
        self.tensors += 1
        if self.tensors > _MOST_TENSORS:
            raise _Failure(f"it has more than {_MOST_TENSORS} tensors")
        if len(arguments) < 4:
            raise _Failure(f"a tensor has the arguments {quoted(arguments)}")
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0:
            raise _Failure(f"a tensor has the arguments {quoted(arguments[:4])}")
        sides = checked_shape(self._name, f"of {storage.key}", shape)
        steps = checked_shape(self._name, f"of {storage.key}", strides)
        if len(sides) != len(steps):
            raise _Failure(f"a tensor has the shape {sides} and the strides {steps}")
        array = self.array(storage)
        size = prod(sides)
        if size > storage.size:
            raise _Failure(
                f"a tensor of shape {sides} repeats the {storage.size} numbers of its storage; "
                f"save tensor.contiguous() instead"
            )
        last = offset + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
        if size and last >= storage.size:
            raise _Failure(
                f"a tensor of shape {sides}, strides {steps} and offset {offset} exceeds the "
                f"{storage.size} numbers of its storage"
            )
        if not size:
            return array[:0].reshape(sides)
        itemsize = array.itemsize
        result: Array = np.lib.stride_tricks.as_strided(
            array[offset:], sides, [step * itemsize for step in steps], writeable=False
        )
        return result


class _Machine:
    """The stack machine: it builds containers and tensors, and refuses the rest."""

    def __init__(self, storages: _Storages) -> None:
        self._storages = storages
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """The object that a pickle describes."""
        try:
            for instruction, argument, _ in pickletools.genops(data):
                if instruction.name == "STOP":
                    return self._pop()
                self._step(instruction.name, argument)
        except (ValueError, UnicodeError, OverflowError, MemoryError) as error:
            raise _Failure(f"its pickle is damaged: {error}") from None
        raise _Failure("its pickle does not end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            self._stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._top()
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise _Failure("its pickle is damaged: it gets what it has not put")
            self._stack.append(self._memo[argument])
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        elif name == "GLOBAL":
            self._stack.append(_known(*argument.split(" ", 1)))
        elif name not in ("PROTO", "FRAME"):
            raise _Failure(
                f"its pickle has the instruction {name}, which could do more than to build "
                f"arrays; save a state dictionary in PyTorch: torch.save(net.state_dict(), path)"
            )

    def _top(self) -> Any:
        if not self._stack:
            raise _Failure("its pickle is damaged: its stack is empty")
        return self._stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self._stack.pop()
        if value is _MARK:
            raise _Failure("its pickle is damaged: a mark in place of a value")
        return value

    def _to_mark(self) -> list[Any]:
        """The values above the last mark, which is taken away."""
        for i in range(len(self._stack) - 1, -1, -1):
            if self._stack[i] is _MARK:
                values = self._stack[i + 1 :]
                del self._stack[i:]
                return values
        raise _Failure("its pickle is damaged: there is no mark")

    def mark(self) -> None:
        self._stack.append(_MARK)

    def tuple_of(self, count: int) -> None:
        """A tuple of the last values."""
        self._stack.append(tuple([self._pop() for _ in range(count)][::-1]))

    def tuple_to_mark(self) -> None:
        """A tuple of the values above the last mark."""
        self._stack.append(tuple(self._to_mark()))

    def append(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise _Failure("its pickle is damaged: it appends to what is no list")
        target += values

    def set_items(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(values) % 2:
            raise _Failure("its pickle is damaged: it sets items of what is no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int, float, bool, type(None)):
                raise _Failure(f"a dictionary has the key {quoted(key)}")
            target[key] = value

    def one(self) -> list[Any]:
        """The last value."""
        return [self._pop()]

    def two(self) -> list[Any]:
        """The last two values, in the order in which they came."""
        return [self._pop() for _ in range(2)][::-1]

    def storage(self) -> None:
        """A storage, from its description."""
        described = self._pop()
        if not isinstance(described, tuple) or len(described) < 5:
            raise _Failure(f"its pickle refers to {quoted(described)}, which is no storage")
        _, kind, key, _, count = described[:5]
        if not isinstance(kind, _Name) or kind.name not in _STORAGES:
            raise _Failure(f"a storage has the kind {quoted(kind)}")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise _Failure(f"a storage is described as {quoted(described)}")
        storage = _Storage(key, kind.name, count)
        self._storages.check(storage)
        self._stack.append(storage)

    def reduce(self) -> None:
        """The result of one of the three functions that are known."""
        function, arguments = self.two()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _Failure("its pickle is damaged: it calls what is no function")
        if function == _ORDERED_DICT and arguments == ():
            self._stack.append({})
        elif function == _TENSOR:
            self._stack.append(self._storages.tensor(arguments))
        elif function == _PARAMETER and arguments and isinstance(arguments[0], np.ndarray):
            self._stack.append(arguments[0])
        else:
            raise _Failure(f"its pickle calls {quoted(function)} with {quoted(arguments)}")

    def build(self) -> None:
        """Drop the attributes of an ordered dictionary, which are versions of modules."""
        target, _ = self.two()
        if type(target) is not dict:
            raise _Failure("its pickle sets attributes of what is no dictionary")
        self._stack.append(target)

    def pop(self) -> None:
        self._top()
        self._stack.pop()

    def empty_list(self) -> None:
        self._stack.append([])

    def empty_dict(self) -> None:
        self._stack.append({})


_CONSTANTS: dict[str, Any] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (),
}  # fmt: skip
_VALUES = frozenset(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")
)
_ACTIONS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
    "APPEND": lambda machine: machine.append(machine.one()),
    "APPENDS": lambda machine: machine.append(machine._to_mark()),
    "SETITEM": lambda machine: machine.set_items(machine.two()),
    "SETITEMS": lambda machine: machine.set_items(machine._to_mark()),
    "BINPERSID": _Machine.storage,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "POP": _Machine.pop,
}


def _known(module: str, name: str) -> _Name:
    """A name of the pickle, if it is one of those that the machine knows."""
    symbol = _Name(module, name)
    if symbol in (_ORDERED_DICT, _TENSOR, _PARAMETER) or (module == "torch" and name in _STORAGES):
        return symbol
    if module == "torch" and name.endswith("Storage"):
        raise _Failure(f"it has tensors of the kind {name}; convert them to floats in PyTorch")
    raise _Failure(
        f"it holds {quoted(str(symbol))}, and reading it would run code of its own; save a state "
        f"dictionary in PyTorch: torch.save(net.state_dict(), path)"
    )


def _state_dictionary(described: Any) -> dict[str, Array]:
    """The arrays of a state dictionary, or of the one inside of a checkpoint of a training."""
    if not isinstance(described, dict):
        raise _Failure(
            "it holds no dictionary; save one in PyTorch: torch.save(net.state_dict(), path)"
        )
    if not any(isinstance(value, np.ndarray) for value in described.values()):
        candidates = [key for key in _WEIGHTS if isinstance(described.get(key), dict)]
        if len(candidates) == 1:
            return _state_dictionary(described[candidates[0]])
        raise _Failure(
            f"it holds no arrays, but {quoted([*described])}; save the state dictionary alone in "
            f"PyTorch: torch.save(net.state_dict(), path)"
        )
    arrays = dict[str, Array]()
    for key, value in described.items():
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise _Failure(f"{quoted(key)} is no array by name; save net.state_dict() alone")
        arrays[key] = value
    return arrays
