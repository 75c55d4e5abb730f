"""``load_weights``: weights of PyTorch and Keras in a model of the same architecture."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import number
from fastcnn.data.scaling import Kind
from fastcnn.exchange import weight_files
from fastcnn.exchange.doubts import doubts_of, norms_of
from fastcnn.exchange.feature_order import FeatureOrders
from fastcnn.exchange.layouts import Slot, arrays_of, slots_of
from fastcnn.exchange.matching import Modules, Names, matched
from fastcnn.exchange.weight_files import Library, WeightsFile
from fastcnn.models.expansion import expand
from fastcnn.models.model import Model
from fastcnn.nn.layers import Layer, Shape, change_argument


class WeightsWarning(UserWarning):
    """A model probably computes something else than the net whose weights it has."""


@dataclass(frozen=True)
class Match:
    """An array of a file, and the array of a layer that has its numbers.

    Attributes:
        layer: the name of the layer, with a path inside of it.
        array: the name of the layer's array.
        shape: its shape.
        source: the name of the array in the file; None if the file has none, and ``value`` stands
            for it.
        source_shape: its shape there.
        value: the number of all elements without a source.
    """

    layer: str
    array: str
    shape: Shape
    source: str | None
    source_shape: Shape | None = None
    value: float | None = None


@dataclass(frozen=True, repr=False)
class WeightsReport:
    """What :func:`load_weights` did.

    Attributes:
        path: the file.
        library: "pytorch" or "keras", whose layout the arrays have.
        matches: which array went where.
        left_out: arrays of the file that are in no layer, because the caller left their module out
            or because they are no weights.
        kept: layers that kept their values.
        notes: what the file cannot tell, and what differs from the library's usual behaviour; each
            was also a :class:`WeightsWarning`.
    """

    path: str
    library: Library
    matches: tuple[Match, ...]
    left_out: tuple[str, ...]
    kept: tuple[str, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        rows = [("layer", "array", "shape", "from", "shape")]
        for match in self.matches:
            source = match.source or f"all {match.value:g}: the file has none"
            shape = "" if match.source_shape is None else str(match.source_shape)
            rows.append((match.layer, match.array, str(match.shape), source, shape))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [f"{len(self.matches)} arrays of {self.path} ({self.library})"]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(("  " + "  ".join(cells)).rstrip())
        for title, names in (("left out", self.left_out), ("kept", self.kept)):
            if names:
                lines.append(f"{title}: {', '.join(names)}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


@unreported
def load_weights(
    model: Model,
    path: FilePath,
    names: Names | None = None,
    *,
    keep: Sequence[str] = (),
    epsilon: float | None = None,
    flatten: str = "channels_first",
) -> WeightsReport:
    """Put the weights of a net that was trained in PyTorch or Keras into a model.

    The model has the net's architecture, written in layers of fastcnn. Arrays of the file are
    matched with its layers, turned into their layout (filters HWIO; rows of a ``Dense`` behind a
    ``Flatten`` in the order of channels last), and written. If anything does not fit, an error says
    what, and nothing is written. Afterwards ``model.trained_on`` is "floats", so the model refuses
    bytes, because it does not know how the net's inputs were scaled.

    Args:
        model: a built model.
        path: a safetensors file or a file of ``torch.save`` with a state dictionary; a
            ``.weights.h5`` or ``.keras`` file of Keras 3, which needs ``fastcnn[keras]``.
        names: pairs that are fixed, ``{"features.0": "conv2d"}``, from a module of the file to a
            layer's name; None in place of the layer leaves the module out. Or a function that
            returns the layer's name, or None, for each module. By default all are matched in order.
            Names of layers inside of a ``Residual`` are such as "residual.layers.0"; those of the
            two convolutions of a ``SeparableConv2D`` end in ".depthwise" and ".pointwise".
        keep: names of layers that keep their values.
        epsilon: what all normalisations add to the variance from now on. A state dictionary does
            not hold it; PyTorch's default is 1e-5. None leaves it as it is in the model.
        flatten: "channels_first" if the PyTorch net flattens images (C, H, W), "channels_last" if
            it moves the channels to the end before. It has no effect on files of Keras.

    Returns:
        A report, whose text shows which array went where.

    Raises:
        ModelFileError: the file is damaged, or of another kind.
        ValueError, TypeError: a wrong argument; arrays that do not fit the model.
        ImportError: a file of Keras, without h5py.
        OSError: the file cannot be opened.

    Warns:
        WeightsWarning: the model differs from what PyTorch usually computes: the epsilon, a
            padding of "same" with strides, an average of padding, a reshape.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from safetensors.numpy import save_file
        >>> from fastcnn import Sequential
        >>> from fastcnn.nn.layers import Dense
        >>> model = Sequential([Dense(2)], (3,))
        >>> state = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32)}
        >>> with TemporaryDirectory() as folder:
        ...     save_file(state, f"{folder}/net.safetensors")
        ...     report = load_weights(model, f"{folder}/net.safetensors")
        >>> [(match.layer, match.array, match.source) for match in report.matches]
        [('dense', 'w', 'fc.weight'), ('dense', 'b', 'fc.bias')]
    """
    _check_arguments(model, epsilon, flatten)
    report = _transfer(model, weight_files.weights_of(path), names, keep, epsilon, flatten)
    for note in report.notes:
        warnings.warn(note, WeightsWarning, stacklevel=3)
    return report


def _transfer(
    model: Model,
    file: WeightsFile,
    names: Names | None,
    keep: Sequence[str],
    epsilon: float | None,
    flatten: str,
) -> WeightsReport:
    """Match the arrays of a file with the layers, and write them after all checks."""
    shapes = model._graph.infer(model._known_shapes())
    orders = None
    if file.library == "pytorch" and flatten == "channels_first":
        graph = expand(model._graph)  # the vectors inside of layers have an order too
        orders = FeatureOrders(graph, graph.infer(model._known_shapes()))
    named = [(layer.name, layer) for layer in model.layers]
    slots = slots_of(named, file.library, orders)
    unchanged = _slots_of_layers(keep, slots)
    targets = [slot for slot in slots if slot.name not in unchanged]
    pairs = matched(modules_of(file), targets, names, file.ordered)
    matches, new = _converted(pairs, file, model.dtype)
    notes = doubts_of(model, shapes, orders, file.library, epsilon)
    _write(model, new, epsilon)
    in_layers = {match.source for match in matches}
    return WeightsReport(
        path=file.path,
        library=file.library,
        matches=tuple(matches),
        left_out=tuple(name for name in file.arrays if name not in in_layers),
        kept=tuple(unchanged),
        notes=tuple(notes),
    )


def modules_of(file: WeightsFile) -> Modules:
    """The shapes of the arrays of each module, by the name of the array in it."""
    modules: dict[str, dict[str, Shape]] = {}
    for name, array in file.arrays.items():
        module, _, array_name = name.rpartition(".")
        modules.setdefault(module, {})[array_name] = array.shape
    return modules


def _check_arguments(model: object, epsilon: float | None, flatten: object) -> None:
    if not isinstance(model, Model):
        raise TypeError(f"model must be a Model or a Sequential, got {quoted(model)}")
    if not model.built:
        raise ValueError("model must be built: give its input_shape to Sequential")
    if epsilon is not None:
        number("epsilon", epsilon)
    if flatten not in ("channels_first", "channels_last"):
        raise ValueError(
            f'flatten must be "channels_first" or "channels_last", got {quoted(flatten)}'
        )


def _slots_of_layers(keep: Sequence[str], slots: Sequence[Slot]) -> list[str]:
    """The names of the slots of the layers in ``keep``, which keep their values."""
    if isinstance(keep, str) or not isinstance(keep, Iterable):
        raise TypeError(f'keep must be a list of names such as ["dense"], got {quoted(keep)}')
    result = list[str]()
    for name in keep:
        inside = [s.name for s in slots if s.name == name or s.name.startswith(f"{name}.")]
        if not isinstance(name, str) or not inside:
            known = ", ".join(slot.name for slot in slots)
            raise ValueError(f"keep must name layers with parameters, {known}, got {quoted(name)}")
        result += inside
    return result


def _converted(
    pairs: Sequence[tuple[Slot, str]], file: WeightsFile, dtype: np.dtype[np.floating]
) -> tuple[list[Match], list[tuple[Layer, str, Array]]]:
    """The new values of the layers' arrays, with where each comes from; nothing is written."""
    matches, new = list[Match](), list[tuple[Layer, str, Array]]()
    for slot, module in pairs:
        for part in slot.parts:
            shape = arrays_of(slot.layer)[part.target].shape
            source = f"{module}.{part.source}" if module else part.source
            array = file.arrays.get(source)
            if array is None:
                assert part.absent is not None
                matches.append(Match(slot.name, part.target, shape, None, None, part.absent))
                new.append((slot.layer, part.target, np.full(shape, part.absent, dtype)))
                continue
            if array.dtype.kind != "f":
                raise ValueError(
                    f"{source} must hold floats, got {array.dtype}; quantised weights are not read"
                )
            with np.errstate(over="ignore"):
                values = part.convert(array).astype(dtype)
            if np.isfinite(array).all() and not np.isfinite(values).all():
                raise ValueError(f"{source} has numbers that {dtype} does not hold")
            matches.append(Match(slot.name, part.target, shape, source, array.shape))
            new.append((slot.layer, part.target, values))
    return matches, new


def _write(model: Model, new: Sequence[tuple[Layer, str, Array]], epsilon: float | None) -> None:
    for layer, name, values in new:
        arrays = layer.parameters if name in layer.parameters else layer.state
        arrays[name] = values
    inputs = model._graph.inputs
    floats: Kind = "floats"
    model.trained_on = floats if inputs == 1 else (floats,) * inputs
    if epsilon is not None:
        for _, layer in norms_of(model):
            change_argument(layer, "epsilon", float(epsilon))
