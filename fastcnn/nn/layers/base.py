"""The base class of layers, and functions on layers.

A layer holds parameters and calls the mathematics of :mod:`fastcnn.ops`. Its shapes are shapes of
one sample, without the batch: (H, W, C) or (features,). ``infer`` and the two ``specs`` compute
with shapes only, so that a file can be checked before anything is allocated.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from math import prod
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import (
    NamedArguments,
    check_known,
    constructor_arguments,
    inherited_arguments,
)
from fastcnn.core.class_registry import Registry, is_own
from fastcnn.core.docstrings import completed, entries
from fastcnn.core.geometry import Padding, Pair
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import truth
from fastcnn.core.user_code import check_methods
from fastcnn.nn.layers.arrays import Arrays, own_arrays
from fastcnn.nn.layers.contract import CONTRACT
from fastcnn.nn.layers.initializers import Shape, Spec, draw
from fastcnn.nn.layers.ownership import INSTEAD, Ownership
from fastcnn.nn.layers.tensors import Tensor, tensors_of

Gradients = dict[str, Array]
Saved: TypeAlias = Any
"""The values that ``forward`` returns for ``backward``; each layer has its own."""


_ARGUMENTS = """
filters: output channels.
dilation: pixels between filter taps, an int or a pair.
groups: the number of independent convolutions that share the channels.
activation: "relu" or None; for another activation put its layer after this one.
use_bias: whether a bias is added.
kernel_initializer: the weights' initialiser, a name of :data:`fastcnn.nn.layers.INITIALIZERS`.
epsilon: is added to the variance.
center: whether ``beta`` is added; it begins with zeros.
scale: whether the result is multiplied by ``gamma``, which begins with ones.
name: the name in a model, by which ``model.get_layer`` finds the layer. Default None.
"""
"""Descriptions of the constructor's arguments that several layers share."""
_RAISES = """
Raises:
    TypeError, ValueError: an argument of the wrong type or value, named in the message.
"""


class _NoArrays(dict[str, Array]):
    """The arrays of a layer that is not built: an empty dict whose errors explain why."""

    def __missing__(self, name: str) -> Array:
        raise KeyError(
            f"{name!r}: this layer is not built. A model builds copies of the layers that it is "
            f"given; look at model.layers"
        )


class Layer(NamedArguments):
    """Base class of all layers.

    A subclass keeps the arguments of its constructor as attributes of the same names, because
    ``config`` reads them. It defines ``infer``, ``forward`` and ``backward``, and the specs of its
    arrays if it has any. ``forward`` and ``backward`` change nothing in the layer, except that
    ``backward`` of BatchNorm updates the running statistics.

    The methods of a subclass get read-only arrays. Their results are checked: shapes, dtypes,
    names, and finite gradients (:mod:`fastcnn.nn.layers.contract`). Lists, other dtypes of real
    numbers and other memory layouts are converted.

    In a built model, an assignment to a constructor's argument or a shape of a layer raises an
    ``AttributeError``, because the model has derived programs from them. Other attributes of a
    user's class may be set. fastcnn's own layers have no other attributes: an assignment to one
    raises an ``AttributeError`` that suggests a name. A copy or a pickle of a layer belongs to no
    model.

    Attributes:
        parameters: trainable arrays by name. In a model an assignment writes into an array instead
            of replacing it, see :class:`Arrays`.
        state: other arrays that belong to the model, such as running means.
        input_shape, output_shape: shapes of one sample; None before ``build``.
        trainable: whether training moves the parameters of this layer and of the layers inside of
            it. Default True. It may be set before and after a model is built, and takes effect with
            the next step. The parameters of a frozen layer never move: weight decay and momentum do
            not apply to them, and their gradient does not count for ``clip_norm``. A frozen
            BatchNorm uses its running statistics and does not update them. No gradients are
            computed before the first trainable layer.
    """

    registry: ClassVar[Registry[Layer]] = Registry("layer")
    """Every layer class by name. A model file may hold these layers."""
    takes_several: ClassVar[bool] = False
    """Whether the layer has several inputs, see :class:`fastcnn.nn.layers.Merge`."""
    _owner: Ownership | None = None
    _trainable = True
    _name: str | None = None
    _own_name: str | None = None
    _outputs: tuple[Tensor, ...] = ()
    # Of a shared layer the shapes of input and output of each call.
    _calls: tuple[tuple[Shape, Shape], ...] = ()

    def __init__(self, *, name: str | None = None) -> None:
        if name is not None:
            self.name = name
        self.parameters: dict[str, Array] = _NoArrays()
        self.state: dict[str, Array] = _NoArrays()
        self.input_shape: Shape | None = None
        self.output_shape: Shape | None = None

    @property
    def lacks_gradient(self) -> str | None:
        """Why the layer has no gradient, as a clause for messages; None if it has one."""
        return None

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if not (abstract or cls.__name__.startswith("_")):
            Layer.registry.add(cls.__name__, cls)
            if is_own(cls) and cls.__doc__ is not None:  # python -OO leaves docstrings out
                names = constructor_arguments(cls)
                cls.__doc__ = completed(cls.__doc__, names, entries(_ARGUMENTS), _RAISES)
        check_methods(cls, CONTRACT)

    def __call__(self, inputs: Tensor | Sequence[Tensor]) -> Tensor:
        """The result of the layer on a tensor, or on a list of tensors, as part of a graph.

        Nothing is computed: :class:`fastcnn.Model` makes a net of inputs and outputs. A layer that
        is called several times is shared, and all calls use the same parameters.

        Raises:
            TypeError: ``inputs`` are no tensors, or several for a layer that takes one.
            ValueError: the layer does not fit the shape of the tensor; the message says what does.

        Example:
            >>> from fastcnn.nn.layers import Dense, Input
            >>> Dense(10)(Input((784,)))
            <Tensor of shape (10,) from Dense(10)>
        """
        tensors = tensors_of(self, inputs)
        shapes = tuple(tensor.shape for tensor in tensors)
        shape = shapes if self.takes_several else shapes[0]
        try:
            output = self.infer(shape)  # type: ignore[arg-type]  # as a merging layer takes it
        except ValueError as error:
            raise ValueError(f"{quoted(self)} got an input of shape {shape}: {error}") from None
        result = Tensor(output, self, tensors)
        if self._owner is None:  # else ``output`` stays that in the layer's model
            vars(self)["_outputs"] = (*self._outputs, result)
        return result

    @property
    def name(self) -> str:
        """The name, by which ``model.get_layer`` finds the layer.

        The constructors of fastcnn's layers take it as ``name=``, and it may be set before the
        layer belongs to a model. A model gives each other layer a name that its class and its place
        tell: "conv2d", "conv2d_1". It refuses two layers that were given one name.

        >>> from fastcnn.nn.layers import Conv2D
        >>> Conv2D(8, 3, name="stem"), Conv2D(8, 3).name
        (Conv2D(8, 3, name='stem'), 'conv2d')
        """
        return self._own_name or self._name or snake_case(type(self).__name__)

    @name.setter
    def name(self, value: str | None) -> None:
        if value is not None and (not isinstance(value, str) or not value):
            raise TypeError(f"name must be text, not empty, or None, got {quoted(value)}")
        if self._owner is not None:
            raise AttributeError(
                "name cannot change, because the layer belongs to a model; " + INSTEAD
            )
        vars(self)["_own_name"] = value

    @property
    def output(self) -> Tensor:
        """The tensor that the layer's call returned, from which another model can begin.

        For a layer that belongs to a model it is the tensor of that model, also after the layer
        was called on other tensors. Raises ``ValueError`` if the layer was not called, or several
        times.

        >>> from fastcnn import Input, Model
        >>> from fastcnn.nn.layers import Dense
        >>> inputs = Input((4,))
        >>> model = Model(inputs, Dense(2)(Dense(3)(inputs)))
        >>> Model(model.inputs, model.layers[0].output).output_shape
        (3,)
        """
        if len(self._outputs) != 1:
            raise ValueError(
                f"output of {quoted(self)} must be that of one call, but the layer was called "
                f"{len(self._outputs)} times; keep the tensors that the calls return"
            )
        return self._outputs[0]

    def __setattr__(self, name: str, value: object) -> None:
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
        """Raise an ``AttributeError`` if the attribute may not be set, or not in a built model."""
        if name.startswith("_") and name != "__class__":
            return
        kind = type(self)
        arguments = inherited_arguments(kind)
        derived_from = name in ("input_shape", "output_shape", "__class__") or (
            name in arguments and name not in ("trainable", "name")
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
        if isinstance(state, tuple):  # the class has __slots__
            return (_for_copies(state[0] or {}), *state[1:])
        return _for_copies(state or {})

    @property
    def trainable(self) -> bool:
        """Whether training moves the parameters."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._set_trainable(value)

    def _set_trainable(self, value: bool) -> None:
        flag = truth("trainable", value)
        for layer in all_layers([self]):
            vars(layer)["_trainable"] = flag
        if self._owner is not None:
            self._owner.changed()

    def trained_names(self) -> tuple[str, ...]:
        """Names of the parameters that training moves: all but the parameters of frozen layers.

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
            _address(array)
            for layer in all_layers([self])
            if not layer.trainable
            for array in own_arrays(layer.parameters).values()
        }
        names = own_arrays(self.parameters).items()
        return tuple(name for name, array in names if _address(array) not in frozen)

    def least_batch(self, input_shape: Shape) -> int:
        """The fewest samples that a training batch of such inputs may have. Default 1."""
        return 1

    def inner_layers(self) -> tuple[tuple[str, Layer], ...]:
        """The layers that this layer is made of, with the path that begins their arrays' names."""
        return ()

    def infer(self, input_shape: Shape) -> Shape:
        """The output's shape; ``ValueError`` if this input does not fit."""
        raise undefined(self, "infer(self, input_shape)", "the shape of the output")

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        """The specs of the arrays in ``parameters``."""
        return {}

    def state_specs(self, input_shape: Shape) -> dict[str, Spec]:
        """The specs of the arrays in ``state``."""
        return {}

    def build(
        self,
        input_shape: Shape,
        rng: np.random.Generator,
        dtype: Any = np.float32,
    ) -> Shape:
        """Draw the parameters for this input, and return the output's shape.

        Raises ``ValueError`` if the input does not fit; the message says which inputs do.
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
        """Replace the parameters by these arrays, by name; shapes and dtypes are equal."""
        self._check_change("input_shape")
        if any(array.shape != self.parameters[k].shape for k, array in parameters.items()):
            raise ValueError(f"parameters of {self!r} must keep their shapes")
        state = Arrays(self.state)
        vars(self).update(parameters=Arrays(parameters), state=state)

    @property
    def _own_parameters(self) -> dict[str, Array]:
        """The parameters for methods that only read them, so that nothing need be made anew."""
        return own_arrays(self.parameters)

    @property
    def _own_state(self) -> dict[str, Array]:
        """The state for methods that only read it."""
        return own_arrays(self.state)

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        """The output for a batch, and the values that ``backward`` needs.

        Only layers that use randomness draw from ``rng``, and only in training.
        """
        raise undefined(
            self,
            "forward(self, x, training, rng, engine)",
            "the output for a batch, and what backward needs",
        )

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        """Gradients of input and parameters, from the values that ``forward`` saved.

        After ``forward`` with ``training=False`` these are the gradients of the prediction, and
        nothing in the layer changes. Without ``needs_dx`` the input's gradient may be None, because
        nothing uses it. A layer that is not ``trainable`` may omit its parameters' gradients.
        """
        raise undefined(
            self,
            "backward(self, dy, saved, engine, needs_dx=True)",
            "the gradient of the input, and a dict of those of the parameters",
        )

    def input_gradient(self, dy: Array, saved: Saved, engine: str | None) -> Array:
        """The gradient of the input alone, after ``forward`` with ``training=False``."""
        dx, _ = self.backward(dy, saved, engine)
        return dx  # type: ignore[return-value]  # not None, because needs_dx is true

    def config(self) -> JsonObject:
        """The constructor's arguments as JSON values, for :meth:`from_config`.

        It holds the name if the layer was given one.

        >>> from fastcnn.nn.layers import ReLU
        >>> ReLU(6, name="first").config(), ReLU().config()
        ({'max_value': 6.0, 'name': 'first'}, {'max_value': None})
        """
        return {name: _plain(value) for name, (_, value) in self._constructor_values().items()}

    def _constructor_values(self) -> dict[str, tuple[inspect.Parameter, object]]:
        """The constructor's parameters and their values; the name only if the layer was given one.

        An attribute of a model's layer is the name that the model gave, which tells nothing.
        """
        parameters = dict(inspect.signature(type(self).__init__).parameters)
        del parameters["self"]
        if self._own_name is None:
            parameters.pop("name", None)
        return {name: (one, getattr(self, name)) for name, one in parameters.items()}

    @classmethod
    def from_config(cls, config: JsonObject) -> Layer:
        """A layer that is not built yet, from the result of :meth:`config`."""
        return cls(**config)

    def flops(self, input_shape: Shape) -> int:
        """Work for one sample: a multiply-add counts as 2, everything else as 0."""
        return 0

    @property
    def size(self) -> int:
        """How many trainable numbers the layer holds."""
        return sum(array.size for array in self.parameters.values())

    def __repr__(self) -> str:
        return self._described()

    def _described(self, without: tuple[str, ...] = ()) -> str:
        """The class with the arguments that differ from their defaults, except some of them."""
        arguments = []
        for name, (parameter, value) in self._constructor_values().items():
            if name in without:
                continue
            if parameter.default is inspect.Parameter.empty:
                arguments.append(repr(value))
            elif value != parameter.default:
                arguments.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"


def undefined(layer: Layer, method: str, result: str) -> NotImplementedError:
    """The error for a method that the class of a layer must define.

    >>> undefined(Layer(), "infer(self, input_shape)", "the shape of the output")
    NotImplementedError('Layer must define infer(self, input_shape), which returns the shape of the
    output')
    """
    return NotImplementedError(
        f"{type(layer).__name__} must define {method}, which returns {result}"
    )


def repr_without_name(layer: Layer) -> str:
    """The repr of a layer, without its name unless a class has a repr of its own.

    >>> from fastcnn.nn.layers import Dense
    >>> repr_without_name(Dense(3, name="scores"))
    'Dense(3)'
    """
    if type(layer).__repr__ is not Layer.__repr__:
        return repr(layer)
    return layer._described(without=("name",))


def repr_of_structure(layer: Layer, named: bool = False) -> str:
    """The repr of a layer without the initialiser of its weights, for tables.

    Args:
        layer: a layer.
        named: whether the name is in it, if the layer was given one.

    >>> from fastcnn.nn.layers import Dense
    >>> repr_of_structure(Dense(3, name="scores", kernel_initializer="zeros"))
    'Dense(3)'
    """
    if type(layer).__repr__ is not Layer.__repr__:
        return repr(layer)
    return layer._described(without=("kernel_initializer", *(() if named else ("name",))))


def _address(array: Array) -> int:
    """Where an array begins; parameters never share memory."""
    return int(array.__array_interface__["data"][0])


def _for_copies(attributes: Any) -> dict[str, Any]:
    """A layer's attributes without those that tell of its model and its calls."""
    return {name: value for name, value in attributes.items() if name not in _OF_ONE}


def snake_case(name: str) -> str:
    """The name of a class in small letters.

    >>> snake_case("GlobalAvgPool2D"), snake_case("Conv2DTranspose")
    ('global_avg_pool2d', 'conv2d_transpose')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=\dD)(?=[A-Z])", "_", name).lower()


_OF_ONE = frozenset(("_owner", "_name", "_outputs", "_calls"))
_METHODS = frozenset(name for name, value in vars(Layer).items() if inspect.isfunction(value))
_ATTRIBUTES = (
    "parameters", "state", "input_shape", "output_shape", "trainable", "name", "__class__"
)  # fmt: skip


def all_layers(layers: Iterable[Layer]) -> Iterator[Layer]:
    """The layers, each one followed by the layers inside of it.

    >>> from fastcnn.nn.layers import Dense, Residual
    >>> list(all_layers([Residual([Dense(4)]), Dense(3)]))[1:]
    [Dense(4), Dense(3)]
    """
    return (layer for layer, _ in layers_with_depth(layers))


def layers_with_depth(layers: Iterable[Layer]) -> Iterator[tuple[Layer, int]]:
    """The layers of :func:`all_layers`, each with its depth; the depth of an outer layer is 1.

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
    """The layers in the attributes of a layer, and in their lists, tuples and dicts, each once."""
    inside: list[Layer] = []
    for value in tuple(vars(layer).values()):
        if isinstance(value, Layer):
            inside.append(value)
        elif isinstance(value, _SEQUENCES):
            inside += [one for one in value if isinstance(one, Layer)]
        elif isinstance(value, dict) and not isinstance(value, Arrays):  # these would hand out
            inside += [one for one in value.values() if isinstance(one, Layer)]
    return [*{id(one): one for one in inside}.values()] if len(inside) > 1 else inside


_SEQUENCES = (list, tuple)


def settle(layers: Iterable[Layer]) -> None:
    """Check attributes that were set after construction, as the layers' constructors do.

    Raises the constructor's ``TypeError`` or ``ValueError``. Users' layers are not checked.
    """
    for layer in all_layers(layers):
        kind = type(layer)
        if is_own(kind):
            names = [name for name in constructor_arguments(kind) if name != "name"]
            again = kind(**{name: getattr(layer, name) for name in names})
            vars(layer).update({name: vars(again)[name] for name in names})


def change_argument(layer: Layer, name: str, value: object) -> None:
    """Change an argument of a layer's constructor, also in a built model, which then runs anew.

    It is for arguments that no shape depends on, such as the epsilon of a normalisation. The error
    for a wrong value is that of the constructor.

    >>> from fastcnn.nn.layers import BatchNorm
    >>> layer = BatchNorm()
    >>> change_argument(layer, "epsilon", 1e-5)
    >>> layer
    BatchNorm(epsilon=1e-05)
    """
    kind = type(layer)
    arguments = {one: getattr(layer, one) for one in constructor_arguments(kind)}
    vars(layer)[name] = vars(kind(**arguments | {name: value}))[name]
    if layer._owner is not None:
        layer._owner.changed()


def _plain(value: object) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def image(layer: str, input_shape: Shape) -> tuple[int, int, int]:
    """``input_shape`` as (H, W, C); ``ValueError`` if it is no image's shape."""
    if len(input_shape) != 3:
        raise ValueError(f"{layer} needs images (H, W, C), got {input_shape}")
    h, w, c = input_shape
    return h, w, c


def as_pair(value: tuple[int, int]) -> Pair:
    """The pair as a layer's repr shows it: an int if both sides are equal."""
    return value[0] if value[0] == value[1] else value


def as_tuples(padding: Padding) -> Padding:
    """The padding with tuples in place of lists, as files hold them."""
    if isinstance(padding, str | int):
        return padding
    sides = tuple(tuple(side) if isinstance(side, list | tuple) else side for side in padding)
    return cast(Padding, sides)


def features(layer: str, input_shape: Shape) -> int:
    """``input_shape`` as a number of features; ``ValueError`` if it is no vector's shape."""
    if len(input_shape) != 1:
        raise ValueError(
            f"{layer} needs vectors (features,), got {input_shape}; put a Flatten() before it, "
            f"which makes them ({prod(input_shape)},)"
        )
    return input_shape[0]
