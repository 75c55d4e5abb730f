"""The arrays of layers that belong to a model, and whether users may have written to them.

A model keeps all its parameters in one array, and what it derives from their values (transformed
filters, for instance) serves until they change. A write to an array tells nobody. Therefore an
:class:`Arrays` hands out an array only on request, and a :class:`Watch` knows whether one was
handed out since it was last asked, and whether one is still in somebody's hands. As long as one is,
its values may change at any time.
"""

from __future__ import annotations

from itertools import count as counter
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.quoting import quoted


class Watch:
    """What may have happened to the arrays of a model.

    Several threads may use it at once, without a lock: each number is drawn once, and each step
    that changes shared state is one call.

    Attributes:
        always: whether values must be taken as changed whenever they are asked for, because code of
            a user's has the model's own arrays.
    """

    def __init__(self) -> None:
        self.always = False
        self._numbers = counter(1)
        self._version = self._moved = 0
        self._touched = self._settled = 0  # equal if no array is in use
        self._handed: dict[int, ref[Array]] = {}

    def changed(self) -> None:
        """Note that values have changed; it must be called after the change."""
        self._version = next(self._numbers)

    def moved(self) -> None:
        """Note that parameters that train have changed, after the change."""
        self._moved = next(self._numbers)

    def hand_out(self, array: Array) -> None:
        """Note that somebody has the array from now on."""
        number = next(self._numbers)
        self._handed[number] = ref(array)
        self._touched = number

    def version(self) -> int:
        """A number that differs from earlier ones if any value may have changed since."""
        # Numbers are drawn in order, so the larger one is that of the last change.
        return max(self.frozen_version(), self._moved)

    def frozen_version(self) -> int:
        """The same for values that training does not move."""
        touched = self._touched
        if touched != self._settled or self.always:
            is_held = self._is_held()
            # The number comes after the look at the arrays, because a holder that is gone by then
            # wrote to its array before the look.
            self._version = next(self._numbers)
            if not is_held:
                self._settled = touched
        return self._version

    def _is_held(self) -> bool:
        """Whether one of the arrays is still in use; the others are forgotten."""
        is_held = False
        for number, array in list(self._handed.items()):
            if array() is not None:
                is_held = True
            else:
                self._handed.pop(number, None)
        return is_held


class _Memory:
    """The memory of an array, from which NumPy makes other arrays.

    A view in NumPy keeps the last array of its chain of bases alive. The chain of an array that is
    made of this ends with that array, because this is no array. Therefore each view of it keeps the
    array alive, and the watch sees that somebody still has it.
    """

    __slots__ = ("__array_interface__", "_array")

    def __init__(self, array: Array) -> None:
        self._array, self.__array_interface__ = array, array.__array_interface__


class Arrays(dict[str, Array]):
    """The arrays of a layer that belongs to a model: an assignment writes into them.

    A model keeps all its parameters in one array, and its compiled programs hold their addresses.
    Therefore ``layer.parameters["w"] = array`` copies the values of ``array``. It does not replace
    the layer's array.

    Raises:
        ValueError: a new array has another shape, or a name that the layer does not have.
        TypeError: an array is added or removed.

    Example:
        >>> arrays = Arrays(w=np.zeros(3))
        >>> before = arrays["w"]
        >>> arrays["w"] = [1, 2, 3]
        >>> before
        array([1., 2., 3.])
    """

    def __init__(self, *arrays: Any, **more: Array) -> None:
        super().__init__(*arrays, **more)
        self._own = {name: array[...] for name, array in super().items()}
        self._handed: dict[str, ref[Array]] = {}
        self.watch = Watch()
        for name, array in self._own.items():
            view = array[...]
            view.setflags(write=False)  # what C code reads, past the methods below
            super().__setitem__(name, view)

    def own(self) -> dict[str, Array]:
        """The arrays for compiled programs, which write nothing without telling the watch."""
        return self._own

    def __getitem__(self, name: str) -> Array:
        own, handed = self._own[name], self._handed.get(name)
        array = None if handed is None else handed()
        # Another shape or dtype: the user has set it in place.
        if array is None or array.shape != own.shape or array.dtype != own.dtype:
            array = np.asarray(_Memory(own))
            # The watch comes first, because a signal handler between the two steps may ask for
            # this array and write to it.
            self.watch.hand_out(array)
            self._handed[name] = ref(array)
        return array

    def __iter__(self) -> Any:
        return iter(self._own)  # so that dict(arrays) asks for each array by its name

    def keys(self) -> Any:
        """The names."""
        return self._own.keys()

    def get(self, name: str, default: Any = None) -> Any:
        """The array of this name, or ``default``."""
        return self[name] if name in self else default  # noqa: SIM401  (that is this)

    def values(self) -> Any:
        """The arrays."""
        return [self[name] for name in self._own]

    def items(self) -> Any:
        """Names and arrays."""
        return [(name, self[name]) for name in self._own]

    def copy(self) -> dict[str, Array]:
        """A plain dict of the same arrays."""
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        return dict(self.items()) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self.items())

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        self.update({name: value})

    def update(self, *others: object, **more: object) -> None:
        """Write values into several arrays, after a check of all of them."""
        new = {name: np.asarray(value) for name, value in dict(*others, **more).items()}
        for name, values in new.items():
            if name not in self:
                raise ValueError(f"the layer has the arrays {', '.join(self)}, got {quoted(name)}")
            if values.shape != self._own[name].shape or values.dtype.kind not in "fiub":
                raise ValueError(
                    f"{name} must hold numbers of shape {self._own[name].shape}, got "
                    f"{values.dtype} of shape {values.shape}"
                )
        try:
            for name, values in new.items():
                self._own[name][...] = values
        finally:
            self.watch.changed()

    def __ior__(self, other: Any) -> Arrays:  # type: ignore[override]
        self.update(other)
        return self

    def _fixed(self, *_: object, **__: object) -> Any:
        raise TypeError("the arrays of a layer in a model cannot be taken away or added")

    __delitem__ = clear = pop = popitem = setdefault = _fixed

    def __reduce__(self) -> Any:
        return dict, (dict(self.items()),)  # a copied layer belongs to no model yet


class JoinedArrays(Arrays):
    """The arrays of the layers inside of a layer, by names that begin with their paths."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        super().__init__(arrays)
        self._parts = arrays

    def __getitem__(self, name: str) -> Array:
        return self._parts[name]  # which its own layer has handed out


def own_arrays(arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays of a layer by name, as compiled programs take them."""
    return arrays.own() if isinstance(arrays, Arrays) else arrays


def note_moved(arrays: dict[str, Array]) -> None:
    """Note that training has changed the :func:`own_arrays` of a layer, after the change."""
    if isinstance(arrays, Arrays):
        arrays.watch.moved()
