"""What every layer is: parameters, shapes, and which operations it calls.

A layer holds parameters; the mathematics is that of :mod:`fastcnn.ops`. Shapes are those of one
sample, without the batch: (H, W, C) or (features,). ``infer`` and the two ``specs`` are arithmetic
on shapes alone, so that a file can be checked before anything is allocated.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from copy import deepcopy
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import check_known, constructor_arguments, inherited_arguments
from fastcnn.core.class_registry import Registry, is_own
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import truth
from fastcnn.core.user_code import check_methods
from fastcnn.nn.layers.contract import CONTRACT
from fastcnn.nn.layers.initializers import Shape, Spec, draw
from fastcnn.nn.layers.ownership import INSTEAD, Ownership

Gradients = dict[str, Array]


class Arrays(dict[str, Array]):
    """The arrays of a layer that belongs to a model: an assignment writes into them.

    A model keeps all its parameters in one array and its compiled programs know their addresses.
    So ``layer.parameters["w"] = array`` copies the values of ``array``, and no array comes in
    place of another.

    Raises:
        ValueError: an array of another shape, or one that is not there.
        TypeError: an array is to be taken away.

    Example:
        >>> arrays = Arrays(w=np.zeros(3))
        >>> before = arrays["w"]
        >>> arrays["w"] = [1, 2, 3]
        >>> before
        array([1., 2., 3.])
    """

    def __init__(self, *arrays: Any, **more: Array) -> None:
        super().__init__(*arrays, **more)
        self._views = {name: array[...] for name, array in super().items()}

    def __getitem__(self, name: str) -> Array:
        array, view = super().__getitem__(name), self._views[name]
        if array.shape != view.shape or array.dtype != view.dtype:
            # Somebody has set these in place, and each array has them from its layer.
            array = view[...]
            super().__setitem__(name, array)
        return array

    def get(self, name: str, default: Any = None) -> Any:
        """The array of this name, or ``default``."""
        return self[name] if name in self else default  # noqa: SIM401  (that is this)

    def values(self) -> Any:
        """The arrays."""
        return [self[name] for name in self]

    def items(self) -> Any:
        """Names and arrays."""
        return [(name, self[name]) for name in self]

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        self.update({name: value})

    def update(self, *others: Any, **more: Any) -> None:
        """Write values into several arrays, after all of them were checked."""
        new = {name: np.asarray(value) for name, value in dict(*others, **more).items()}
        for name, values in new.items():
            if name not in self:
                raise ValueError(f"the layer has the arrays {', '.join(self)}, got {quoted(name)}")
            if values.shape != self[name].shape or values.dtype.kind not in "fiub":
                raise ValueError(
                    f"{name} must hold numbers of shape {self[name].shape}, got {values.dtype} of "
                    f"shape {values.shape}"
                )
        for name, values in new.items():
            self[name][...] = values

    def __ior__(self, other: Any) -> Arrays:  # type: ignore[override,misc]
        self.update(other)
        return self

    def _fixed(self, *_: Any, **__: Any) -> Any:
        raise TypeError("the arrays of a layer in a model cannot be taken away or added")

    __delitem__ = clear = pop = popitem = setdefault = _fixed

    def __reduce__(self) -> Any:
        return dict, (dict(self.items()),)  # a copied layer belongs to no model yet


class _NoArrays(dict[str, Array]):
    """The arrays of a layer that is not built: there are none, and a look at one says why."""

    def __missing__(self, name: str) -> Array:
        raise KeyError(
            f"{name!r}: this layer is not built. A model builds copies of the layers that it is "
            f"given; look at model.layers"
        )


class Layer:
    """Base class of all layers.

    A subclass has a constructor whose arguments stay readable as attributes of the same names
    (``config`` relies on it), ``infer``, ``forward`` and ``backward``, and the specs of its
    arrays where it has any. Neither ``forward`` nor ``backward`` keeps anything in the layer,
    but for BatchNorm's running statistics, which ``backward`` moves.

    The methods of a subclass get arrays that they cannot write to, and what they return is checked:
    shapes, dtypes, names, and gradients that are finite (:mod:`fastcnn.nn.layers.contract`). Lists,
    other dtypes of real numbers and other memory layouts are converted.

    A layer that belongs to a built model refuses a change of its constructor's arguments and of
    its shapes with an ``AttributeError``, because the model has derived programs from them. Other
    attributes of a user's own class stay free. The layers of fastcnn have no other attributes: to
    set one is an ``AttributeError`` that suggests a name. A copy or a pickle of a layer belongs to
    no model.

    Attributes:
        parameters: trainable arrays by name. In a model they are never replaced: an assignment
            writes into them, see :class:`Arrays`.
        state: other arrays that belong to the model, such as running means.
        input_shape, output_shape: of one sample; None before ``build``.
        trainable: whether training moves the parameters, True unless it is set; also for the
            layers inside of this one. It may be set before and after a model is built, and counts
            from the next step on. The parameters of a frozen layer do not move in any way: no
            weight decay, no momentum, and their gradient does not count for ``clip_norm``. A
            frozen BatchNorm uses its running statistics and leaves them as they are. Gradients
            before the first layer that trains are not computed.
    """

    known: ClassVar[Registry[Layer]] = Registry("layer")
    """Every layer class by name: what a model file may hold."""
    _owner: Ownership | None = None
    _trainable = True

    def __init__(self) -> None:
        self.parameters: dict[str, Array] = _NoArrays()
        self.state: dict[str, Array] = _NoArrays()
        self.input_shape: Shape | None = None
        self.output_shape: Shape | None = None

    def __init_subclass__(cls) -> None:
        if not cls.__name__.startswith("_"):
            Layer.known.add(cls.__name__, cls)
        check_methods(cls, CONTRACT)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("parameters", "state") and isinstance(old := getattr(self, name, None), Arrays):
            if not isinstance(value, dict) or value.keys() != old.keys():
                raise ValueError(f"{name} must be a dict of {', '.join(old) or 'nothing'}")
            old.update(value)
            return
        self._check_change(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if self._owner is not None and name in ("parameters", "state", "_trainable", "_owner"):
            raise AttributeError(f"{name} of a layer in a model cannot be taken away")
        self._check_change(name)
        super().__delattr__(name)

    def _check_change(self, name: str) -> None:
        """Raise the ``AttributeError`` for what a layer may not take, or not any more."""
        if name.startswith("_") and name != "__class__":
            return
        kind = type(self)
        arguments = inherited_arguments(kind)
        derived_from = name in ("input_shape", "output_shape", "__class__") or (
            name in arguments and name != "trainable"
        )
        if self._owner is not None and derived_from:
            raise AttributeError(
                f"{name} of {kind.__name__} cannot change, because the layer belongs to a model; "
                f"{INSTEAD}, or change a copy of the layer and give it to a new model"
            )
        if name in _METHODS:
            raise AttributeError(f"{name} is a method of {kind.__name__}; derive a class instead")
        check_known(kind, name, _ATTRIBUTES)

    def __copy__(self) -> Layer:
        return deepcopy(self)  # so that no two layers share arrays

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        if isinstance(state, tuple):  # of a class with __slots__
            return ({k: v for k, v in (state[0] or {}).items() if k != "_owner"}, *state[1:])
        return {k: v for k, v in (state or {}).items() if k != "_owner"}  # type: ignore[attr-defined]

    @property
    def trainable(self) -> bool:
        """Whether training moves the parameters."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._set_trainable(value)

    def _set_trainable(self, value: bool) -> None:
        chosen = truth("trainable", value)
        for layer in all_layers([self]):
            vars(layer)["_trainable"] = chosen
        if self._owner is not None:
            self._owner.changed()

    def trained_names(self) -> tuple[str, ...]:
        """Names of the parameters that training moves: those of no frozen layer.

        >>> from fastcnn.nn.layers import Dense
        >>> layer = Dense(2)
        >>> _ = layer.build((3,), np.random.default_rng(0))
        >>> layer.trained_names()
        ('w', 'b')
        >>> layer.trainable = False
        >>> layer.trained_names()
        ()
        """
        frozen = {
            id(array)
            for layer in all_layers([self])
            if not layer.trainable
            for array in layer.parameters.values()
        }
        return tuple(name for name, array in self.parameters.items() if id(array) not in frozen)

    def least_batch(self, input_shape: Shape) -> int:
        """The fewest samples that a training batch of such inputs may have; most often 1."""
        return 1

    def infer(self, input_shape: Shape) -> Shape:
        """The output's shape; ``ValueError`` where this input does not fit."""
        raise NotImplementedError

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        """What ``parameters`` will hold."""
        return {}

    def state_specs(self, input_shape: Shape) -> dict[str, Spec]:
        """What ``state`` will hold."""
        return {}

    def build(
        self,
        input_shape: Shape,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ) -> Shape:
        """Draw the parameters for this input; the output's shape.

        Raises ``ValueError`` where the input does not fit, saying what it needs.
        """
        self._check_change("input_shape")
        output = self.infer(input_shape)
        kind = np.dtype(dtype)
        specs = self.parameter_specs(input_shape)
        parameters = {name: draw(spec, rng, kind) for name, spec in specs.items()}
        specs = self.state_specs(input_shape)
        state = {name: draw(spec, rng, kind) for name, spec in specs.items()}
        self._check_change("input_shape")  # a signal handler may have built the model meanwhile
        self.parameters, self.state = parameters, state
        self.input_shape, self.output_shape = input_shape, output
        return output

    def adopt(self, parameters: dict[str, Array]) -> None:
        """Take these arrays in place of the parameters, by name; shapes and dtypes are equal."""
        self._check_change("input_shape")
        if any(array.shape != self.parameters[k].shape for k, array in parameters.items()):
            raise ValueError(f"parameters of {self!r} must keep their shapes")
        state = Arrays(self.state)
        vars(self).update(parameters=Arrays(parameters), state=state)

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Any]:
        """The output for a batch, and what ``backward`` needs of it.

        ``rng`` is drawn from only in training, and only by layers with chance.
        """
        raise NotImplementedError

    def backward(
        self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        """Gradients of input and parameters, from what ``forward`` saved.

        After ``forward`` in prediction these are the gradients of the prediction, and nothing in
        the layer moves. Without ``needs_dx`` the first may be None: the first layer's input needs
        none. The gradients of parameters may be left out where the layer is not ``trainable``.
        """
        raise NotImplementedError

    def input_gradient(self, dy: Array, saved: Any, engine: str | None) -> Array:
        """The gradient of the input alone, from what ``forward`` in prediction saved."""
        dx, _ = self.backward(dy, saved, engine)
        return dx  # type: ignore[return-value]  # backward gives it unless told otherwise

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON holds them: the layer again, unbuilt."""
        names = inspect.signature(type(self).__init__).parameters
        return {name: _plain(getattr(self, name)) for name in names if name != "self"}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """The layer of this ``config()``."""
        return cls(**config)

    def flops(self, input_shape: Shape) -> int:
        """Work for one sample: multiply-adds counted as 2, all else as 0."""
        return 0

    @property
    def size(self) -> int:
        """How many trainable numbers the layer holds."""
        return sum(array.size for array in self.parameters.values())

    def __repr__(self) -> str:
        signature = inspect.signature(type(self).__init__)
        arguments = []
        for name, parameter in signature.parameters.items():
            if name == "self":
                continue
            value = getattr(self, name)
            if parameter.default is inspect.Parameter.empty:
                arguments.append(repr(value))
            elif value != parameter.default:
                arguments.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"


_METHODS = frozenset(name for name, value in vars(Layer).items() if inspect.isfunction(value))
_ATTRIBUTES = ("parameters", "state", "input_shape", "output_shape", "trainable", "__class__")


def all_layers(layers: Iterable[Layer]) -> Iterator[Layer]:
    """The layers, each followed by the layers inside of it.

    >>> from fastcnn.nn.layers import Dense, Residual
    >>> list(all_layers([Residual([Dense(4)]), Dense(3)]))[1:]
    [Dense(4), Dense(3)]
    """
    return (layer for layer, _ in layers_with_depth(layers))


def layers_with_depth(layers: Iterable[Layer]) -> Iterator[tuple[Layer, int]]:
    """As :func:`all_layers`, each with the number of layers that it is inside of, and itself.

    >>> from fastcnn.nn.layers import Dense, Residual
    >>> list(layers_with_depth([Residual([Dense(4)]), Dense(3)]))[1:]
    [(Dense(4), 2), (Dense(3), 1)]
    """
    under = [iter(layers)]
    while under:
        layer = next(under[-1], None)
        if layer is None:
            under.pop()
            continue
        yield layer, len(under)
        inside = _inside(layer)
        if inside:
            under.append(iter(inside))


def _inside(layer: Layer) -> list[Layer]:
    """The layers that are attributes of a layer, or that its lists, tuples and dicts hold."""
    inside: list[Layer] = []
    for value in tuple(vars(layer).values()):
        if isinstance(value, Layer):
            inside.append(value)
        elif isinstance(value, _SEQUENCES):
            inside += [one for one in value if isinstance(one, Layer)]
        elif isinstance(value, dict):
            inside += [one for one in value.values() if isinstance(one, Layer)]
    return inside


_SEQUENCES = (list, tuple)


def settle(layers: Iterable[Layer]) -> None:
    """Check what was assigned to layers after their construction, as their constructors do.

    Raises the constructor's ``TypeError`` or ``ValueError``. Layers of a user's own are left alone.
    """
    for layer in all_layers(layers):
        kind = type(layer)
        if is_own(kind):
            names = constructor_arguments(kind)
            again = kind(**{name: getattr(layer, name) for name in names})
            vars(layer).update({name: vars(again)[name] for name in names})


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def image(layer: str, input_shape: Shape) -> tuple[int, int, int]:
    """``input_shape`` as (H, W, C), or the ``ValueError`` for what is no image."""
    if len(input_shape) != 3:
        raise ValueError(f"{layer} needs images (H, W, C), got {input_shape}")
    h, w, c = input_shape
    return h, w, c


def as_pair(value: tuple[int, int]) -> Any:
    """An int where both are equal: what a layer's repr shows."""
    return value[0] if value[0] == value[1] else value


def features(layer: str, input_shape: Shape) -> int:
    """``input_shape`` as a number of features, or the ``ValueError`` for what is no vector."""
    if len(input_shape) != 1:
        raise ValueError(
            f"{layer} needs vectors (features,), got {input_shape}; put a Flatten() before it, "
            f"which makes them ({prod(input_shape)},)"
        )
    return input_shape[0]
