"""``save_html``: a model as a page on which one draws, and on which the net runs.

The page is one HTML file without any outside asset. It is joined of the files in
``fastcnn/exchange/page``: the layers and the preparation of pictures in plain JavaScript, the code
of the page itself, its style and its frame. The net stands in it as JSON, in a form that cannot end
the element around it. A Content-Security-Policy allows the page's own script and style by their
hashes, and no request to anywhere.
"""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any, Literal, TypeAlias, get_args
from zlib import compress

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath, check_writable, write_whole
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import one_of
from fastcnn.data.datasets import BUNDLED, load_dataset
from fastcnn.data.preparation import MNIST
from fastcnn.exchange.html_layers import USUAL_KINDS, PageGraph, Value, write_layer
from fastcnn.exchange.onnx_model import OnnxModel
from fastcnn.exchange.onnx_operation import OnnxOperation
from fastcnn.models.described import picture_shape
from fastcnn.models.graph import Node
from fastcnn.models.input_gradients import graph_to
from fastcnn.models.inputs import samples as checked_samples
from fastcnn.models.model import Model
from fastcnn.models.summary import value_names
from fastcnn.nn.layers import Shape
from fastcnn.version import __version__

Weights: TypeAlias = Literal["float64", "float32", "float16"]
Bytes: TypeAlias = NDArray[np.uint8]

_PARTS = files("fastcnn.exchange") / "page"
_LARGEST = 100 << 20  # bytes of weights, because a browser holds the page several times
_MOST_SAMPLES = 1000
_FLOATS_OF_ONNX = (1, 10, 11)  # float32, float16 and float64, which hold every byte
_NOISE = 4  # random pictures, where there are no samples
_SCALES = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2}
"""How far from Python's outputs the page may be, as a share of the largest, before it warns."""


def save_html(
    model: Model,
    path: FilePath,
    samples: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    weights: Weights | None = None,
    title: str | None = None,
) -> None:
    """Write a page on which one draws, and which shows what the model predicts and computes.

    The page is one file without any outside asset, and needs no server. One draws with mouse,
    finger or keyboard, drops a picture, or chooses a sample; the page shows the probabilities and
    the feature maps of each layer while one draws. Pictures are prepared as ``fastcnn predict``
    prepares them. When the page is opened, it computes the samples and says how far its results are
    from Python's.

    Args:
        model: a built model that takes images (H, W, 1) or (H, W, 3) of bytes, and gives classes.
            All layers of :mod:`fastcnn.layers` are known.
        path: the file, which is written whole or not at all.
        samples: bytes (N, H, W) or (N, H, W, C), at most 1,000, which the page offers. By default
            the first test digit of each class of the bundled MNIST for a model of such digits; for
            other models the page offers none, and compares itself on random pictures.
        class_names: a text for each output; by default the model's classes, or their numbers.
        weights: the dtype of the weights in the file; by default the model's. "float16" makes a
            smaller file, whose results differ by about 0.1 %.
        title: of the page; by default the number of classes and layers.

    Raises:
        TypeError: samples that are no bytes, or class names that are no texts.
        ValueError: the model is not built, takes or gives something else, has more than
            100 MiB of weights, weights that are not finite, or a layer that the page does not
            compute; or another argument does not fit. The message names it. Nothing is written.
        OSError: the file cannot be written; an earlier file stays as it was.

    Example:
        >>> import tempfile, pathlib, fastcnn
        >>> from fastcnn.layers import Conv2D, Dense, Flatten
        >>> layers = [Conv2D(2, 3, strides=2), Flatten(), Dense(3)]
        >>> model = fastcnn.Sequential(layers, input_shape=(9, 7, 1), seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "net.html")
        ...     save_html(model, path, class_names=["left", "right", "both"])
        ...     path.read_text("utf-8").startswith("<!DOCTYPE html>")
        True
    """
    check_writable(path)
    if title is not None and not isinstance(title, str):
        raise TypeError(f"title must be text or None, got {quoted(title)}")
    description = described(model, samples, class_names, weights)
    write_whole(path, page_of(description, title).encode("utf-8", "replace"))


def page_of(description: JsonObject, title: str | None = None) -> str:
    """The page's text, from a result of :func:`described`."""
    if title is None:
        title = f"{len(description['classes'])} classes, {len(description['layers'])} layers"
    style = _part("page.css")
    script = "\n".join(_part(name) for name in scripts(description))
    hashes = {name: _hash(text) for name, text in (("script", script), ("style", style))}
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "base-uri 'none'; form-action 'none'"
    )
    fields = {
        "policy": policy,
        "version": __version__,
        "title": html.escape(title),
        "style": style,
        "net": in_script(description),
        "script": script,
    }
    before, *pieces = _part("page.html").split("{")
    for piece in pieces:  # not str.format, because a field may hold braces
        name, after = piece.split("}", 1)
        before += fields[name] + after
    return before


def described(
    model: Model,
    samples: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    weights: Weights | None = None,
) -> JsonObject:
    """The net, its samples and Python's predictions for them, as JSON values."""
    kinds: tuple[Weights, ...] = get_args(Weights)
    precision = None if weights is None else one_of("weights", weights, kinds)
    if not isinstance(model, Model):
        raise TypeError(f"model must be a model of fastcnn, got {quoted(model)}")
    shape = picture_shape(model)
    if shape[2] not in (1, 3):
        raise ValueError(f"the model must take images of one channel or three, got {shape}")
    dtype = model.dtype.name
    if precision == "float64" and dtype == "float32":
        raise ValueError("weights must be float32 or float16 for a model of float32, got 'float64'")
    kind: Weights = precision or ("float64" if dtype == "float64" else "float32")
    graph, output = _layers_of(model, kind)
    classes = _classes(model, class_names)
    pixels = _default_samples(model, shape) if samples is None else _samples(samples, shape)
    is_noise = pixels is None
    if pixels is None:
        noise = np.random.default_rng(0).integers(0, 256, (_NOISE, *shape))
        pixels = noise.astype(np.uint8)
    try:
        predictions = np.asarray(model.predict(pixels), model.dtype)
    except TypeError:  # of the model of an ONNX file
        raise ValueError(
            "the model must take bytes (uint8 images), whose scaling it knows, but its file "
            "declares other numbers; if these are scaled bytes, set model.scaling and "
            "model.trained_on = 'uint8'"
        ) from None
    largest = float(np.max(np.abs(predictions), initial=1.0))
    return {
        "input": list(shape),
        "dtype": dtype,
        "scaling": [one.ravel().tolist() for one in _factors(model)],
        "layers": graph.layers,
        "output": output.number,
        "classes": classes,
        "preparation": None if model.preparation is None else model.preparation.as_dict(),
        "type": kind,
        "weights": _packed(graph.arrays, kind),
        "tolerance": largest * _SCALES[kind],
        "samples": {
            "count": len(pixels),
            "shown": not is_noise,
            "pixels": _packed([pixels], "uint8"),
            "predictions": _packed([predictions], dtype),
        },
    }


def _factors(model: Model) -> tuple[Array, Array]:
    """The factor of each byte, and what is subtracted; bytes of an ONNX file's own stay bytes."""
    if isinstance(model, OnnxModel) and model.input_dtypes[0] == np.uint8:
        return np.ones((), model.dtype), np.zeros((), model.dtype)
    return model.scaling.factors(model.dtype)


def scripts(description: JsonObject) -> list[str]:
    """The names of the script's parts, in the order in which they are joined."""
    is_usual = all(layer["kind"] in USUAL_KINDS for layer in description["layers"])
    rare_layers = [] if is_usual else ["more_layers.js"]
    return ["layers.js", *rare_layers, "net.js", "pixels.js", "preparation.js", "page.js"]


def in_script(value: JsonObject) -> str:
    """A JSON value as text that cannot end the script element around it.

    >>> in_script({"name": "</script><!--"})
    '{"name": "\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _layers_of(model: Model, kind: Weights) -> tuple[PageGraph, Value]:
    """The described layers, and the value that is the prediction."""
    graph = graph_to(model, "predictions")
    shapes = graph.infer(model._known_shapes())
    names = value_names(graph, model._input_names())
    result = PageGraph(np.dtype(kind), model.dtype)
    values = [Value(0, shapes[0])]
    for node in graph.nodes:
        inputs = [values[value] for value in node.inputs]
        if _makes_floats_of_bytes(model, node):  # on the page all numbers are floats
            values.append(inputs[0])
            continue
        values.append(
            write_layer(result, node.layer, names[node.output], inputs, shapes[node.output])
        )
        if result.length * np.dtype(kind).itemsize > _LARGEST:
            raise ValueError(
                f"the model must have at most {_LARGEST:,} bytes of weights, because they stand in "
                f"the page, and has more"
            )
    return result, values[graph.outputs[0]]


def _makes_floats_of_bytes(model: Model, node: Node) -> bool:
    """Whether a call only converts the bytes of an ONNX file's input to floats."""
    layer = node.layer
    return (
        isinstance(model, OnnxModel)
        and model.input_dtypes[0] == np.uint8
        and isinstance(layer, OnnxOperation)
        and layer.operator == "Cast"
        and layer.attributes.get("to") in _FLOATS_OF_ONNX
        and layer.order is None
        and node.inputs == (0,)
    )


def _classes(model: Model, names: Sequence[str] | None) -> list[str]:
    """A name for each output."""
    (count,) = model._output_shapes()[0]
    if names is None:
        # A single output of two classes is the probability of the second one.
        first = 1 if count == 1 and model.classes else 0
        return [model.class_name(first + number) for number in range(count)]
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"class_names must be a list of texts, got {quoted(names)}")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"class_names must hold texts, got {quoted(name)}")
    if len(names) != count:
        raise ValueError(
            f"class_names must hold {count} names, one for each class, got {len(names)}"
        )
    return [str(name).encode("utf-8", "replace").decode() for name in names]


def _samples(samples: ArrayLike, shape: Shape) -> Bytes:
    """Samples as bytes (N, H, W, C)."""
    array: Any = checked_samples("samples", samples, shape)
    if array.dtype != np.uint8:
        raise TypeError(f"samples must be bytes (uint8), as pictures are, got {array.dtype}")
    if not 1 <= len(array) <= _MOST_SAMPLES:
        raise ValueError(f"samples must hold 1 to {_MOST_SAMPLES:,} pictures, got {len(array):,}")
    result: Bytes = np.array(array, order="C")
    return result


def _default_samples(model: Model, shape: Shape) -> Bytes | None:
    """The first test digit of each class for a model of MNIST's digits, None for another."""
    if shape != (28, 28, 1) or model.preparation != MNIST:
        return None
    images, labels = load_dataset(BUNDLED).test
    _, first = np.unique(labels, return_index=True)
    return np.ascontiguousarray(images[first].reshape(-1, *shape))


def _packed(arrays: Sequence[Array | Bytes | NDArray[np.floating]], kind: str) -> str:
    """The numbers of arrays one after the other, in little-endian order, deflated, in base64."""
    dtype = np.dtype(kind).newbyteorder("<")
    data = b"".join(array.astype(dtype).tobytes() for array in arrays)
    return b64encode(compress(data, 9)).decode("ascii")


def _part(name: str) -> str:
    """A file of the page, with the same lines on every system."""
    return (_PARTS / name).read_text("utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    """A source expression of a Content-Security-Policy that allows this text."""
    return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
