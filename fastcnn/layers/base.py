"""What every layer is: parameters, shapes, and which operations it calls.

A layer holds parameters; the mathematics is that of :mod:`fastcnn.ops`. Shapes are those of one
sample, without the batch: (H, W, C) or (features,). ``infer`` and the two ``specs`` are arithmetic
on shapes alone, so that a file can be checked before anything is allocated.
"""

from __future__ import annotations

import inspect
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.arguments import Array
from fastcnn.layers.initializers import Shape, Spec, draw
from fastcnn.registry import Registry

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

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        self.update({name: value})

    def update(self, *others: Any, **more: Any) -> None:
        """Write values into several arrays, after all of them were checked."""
        new = {name: np.asarray(value) for name, value in dict(*others, **more).items()}
        for name, values in new.items():
            if name not in self:
                raise ValueError(f"the layer has the arrays {', '.join(self)}, got {name!r}")
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
        return dict, (dict(self),)  # a copied layer belongs to no model yet


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

    Attributes:
        parameters: trainable arrays by name. In a model they are never replaced: an assignment
            writes into them, see :class:`Arrays`.
        state: other arrays that belong to the model, such as running means.
        input_shape, output_shape: of one sample; None before ``build``.
    """

    known: ClassVar[Registry[Layer]] = Registry("layer")
    """Every layer class by name: what a model file may hold."""

    def __init__(self) -> None:
        self.parameters: dict[str, Array] = _NoArrays()
        self.state: dict[str, Array] = _NoArrays()
        self.input_shape: Shape | None = None
        self.output_shape: Shape | None = None

    def __init_subclass__(cls) -> None:
        if not cls.__name__.startswith("_"):
            Layer.known.add(cls.__name__, cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("parameters", "state") and isinstance(vars(self).get(name), Arrays):
            old = getattr(self, name)
            if not isinstance(value, dict) or value.keys() != old.keys():
                raise ValueError(f"{name} must be a dict of {', '.join(old) or 'nothing'}")
            old.update(value)
        else:
            super().__setattr__(name, value)

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
        output = self.infer(input_shape)
        kind = np.dtype(dtype)
        specs = self.parameter_specs(input_shape)
        self.parameters = {name: draw(spec, rng, kind) for name, spec in specs.items()}
        specs = self.state_specs(input_shape)
        self.state = {name: draw(spec, rng, kind) for name, spec in specs.items()}
        self.input_shape, self.output_shape = input_shape, output
        return output

    def adopt(self, parameters: dict[str, Array]) -> None:
        """Take these arrays in place of the parameters, by name; shapes and dtypes are equal."""
        assert all(array.shape == self.parameters[k].shape for k, array in parameters.items())
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
        """Gradients of input and parameters, from what ``forward`` in training saved.

        Without ``needs_dx`` the first may be None: the first layer's input needs none.
        """
        raise NotImplementedError

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
        told = []
        for name, parameter in signature.parameters.items():
            if name == "self":
                continue
            value = getattr(self, name)
            if parameter.default is inspect.Parameter.empty:
                told.append(repr(value))
            elif value != parameter.default:
                told.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(told)})"


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
