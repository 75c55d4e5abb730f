"""Wrong arguments: one clear error that names the argument and its value, before any engine runs.

And what is no mistake: empty batches, which give empty results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from valid_calls import RIGHT, normal

import fastcnn
from fastcnn import ops
from fastcnn.core.settings import forget_choices
from fastcnn.engine import registry


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


CHANNELS = ("gamma", "beta", "mean", "variance")
FLOATS = ("dy", "x", "w", "a", "b", "logits", *CHANNELS)
OF_ANY_HEIGHT = (  # their dy, because nothing else tells the sides of the result
    "conv2d_bias_gradient", "zero_pad2d_backward", "crop2d_backward", "permute_backward",
    "resize2d_backward", "concatenate_backward",
)  # fmt: skip
ELEMENTWISE = (
    *("relu", "leaky_relu", "tanh", "sigmoid", "clipped_relu", "elu", "hard_sigmoid", "hard_swish"),
    *("swish", "gelu", "softplus"),
)

# Argument: its wrong values, each with the error and what the message must hold.
Wrong = tuple[Any, type[Exception], str]
STEPS: list[Wrong] = [
    (0, ValueError, "at least 1, got 0"),
    ((1, 0), ValueError, "at least 1, got (1, 0)"),
    (-1, ValueError, "at least 1, got -1"),
    (1.0, TypeError, "integers, got 1.0"),
    (True, TypeError, "integers, got True"),
    ("1", TypeError, "integers, got '1'"),
    ((1, 1, 1), ValueError, "got (1, 1, 1)"),
]
PADDINGS: list[Wrong] = [
    ("Same", ValueError, "got 'Same'"),
    (-1, ValueError, "negative, got -1"),
    (((0, 0), (0, -2)), ValueError, "negative, got ((0, 0), (0, -2))"),
    ((1, 1, 1, 1), ValueError, "got (1, 1, 1, 1)"),
    (0.5, TypeError, "integers, got 0.5"),
    (False, TypeError, "integers, got False"),
    (None, TypeError, "integers, got None"),
]
ENGINES: list[Wrong] = [
    ("fast", ValueError, "got 'fast'"),
    (3, TypeError, "got 3"),
    (["naive"], TypeError, "got ['naive']"),
]
DTYPES: list[Wrong] = [
    (np.complex64, TypeError, "complex64"),
    (np.complex128, TypeError, "complex128"),
    (np.longdouble, TypeError, np.dtype(np.longdouble).name),
    (object, TypeError, "object"),
    (str, TypeError, "<U"),
    (bytes, TypeError, "|S"),
    ("datetime64[s]", TypeError, "datetime64[s]"),
]


def same_for_all(function: str) -> Iterator[tuple[str, Any, type[Exception], str]]:
    """The mistakes that can be made with every function that has such an argument."""
    for name, value in RIGHT[function].items():
        if name in FLOATS and isinstance(value, np.ndarray):
            for dtype, error, text in DTYPES:
                yield name, value.astype(dtype), error, text
            yield name, [[1.0, 2.0], [3.0]], ValueError, "ragged"
            if name != "b":
                yield name, None, TypeError, "object"
            any_shape = function.startswith((*ELEMENTWISE, "concatenate")) or (
                name == "x"
                and ("softmax" in function or "norm" in function or function.startswith("prelu"))
            )
            if not any_shape and "cross_entropy" not in function:  # which takes logits of pixels
                yield name, value[None], ValueError, str(value[None].shape)
            if not any_shape:
                yield name, value[0], ValueError, str(value[0].shape)
            if name in CHANNELS and not function.startswith("layer_norm"):
                yield name, value[1:], ValueError, "one number per channel, (3,), got (2,)"
            if name == "dy" and function not in OF_ANY_HEIGHT:
                yield name, value[:, 1:], ValueError, str(value[:, 1:].shape)
            if name == "b":
                yield name, value[1:], ValueError, str(value[1:].shape)
        elif name == "engine":
            for wrong in ENGINES:
                yield name, *wrong
        elif name in ("rate", "epsilon", "top", "alpha", "beta", "bias", "offset") or (
            name == "slope" and not function.startswith("prelu")
        ):
            yield name, "0.1", TypeError, "must be a number, got '0.1'"
            yield name, None, TypeError, "must be a number, got None"
            yield name, True, TypeError, "must be a number, got True"
            yield name, float("nan"), ValueError, "must be finite, got nan"
            yield name, float("inf"), ValueError, "must be finite, got inf"
        elif name == "padding":
            for wrong in PADDINGS:
                yield name, *wrong
        elif name in ("stride", "dilation", "size", "kernel_size") and "norm" not in function:
            for wrong in STEPS:
                yield name, *wrong


CONV_ONLY: list[tuple[str, Any, type[Exception], str]] = [
    ("groups", 0, ValueError, "at least 1, got 0"),
    ("groups", -2, ValueError, "at least 1, got -2"),
    ("groups", 3, ValueError, "divide the channels of input and output, got 3"),
    ("groups", 5, ValueError, "divide the channels of input and output, got 5"),
    ("groups", 2.0, TypeError, "integers, got 2.0"),
    ("groups", True, TypeError, "integers, got True"),
    ("groups", None, TypeError, "integers, got None"),
]
W_OF_CONV: list[tuple[str, Any, type[Exception], str]] = [
    ("w", zeros(3, 2, 3, 6), ValueError, "IC/groups = 2 input channels, got 3"),
    ("w", zeros(3, 2, 4, 6), ValueError, "IC/groups = 2 input channels, got 4"),
    ("w", zeros(3, 2, 2, 0), ValueError, "(3, 2, 2, 0)"),
    ("w", zeros(0, 2, 2, 6), ValueError, "(0, 2, 2, 6)"),
]
X_OF_IMAGES: list[tuple[str, Any, type[Exception], str]] = [
    ("x", zeros(2, 0, 6, 4), ValueError, "height, got 0"),
    ("x", zeros(2, 5, 0, 4), ValueError, "width, got 0"),
    ("x", zeros(2, 5, 6, 0), ValueError, "(2, 5, 6, 0)"),
]
LABELS: list[tuple[str, Any, type[Exception], str]] = [
    ("labels", [0, 3], ValueError, "below 3, got 3"),
    ("labels", [-1, 0], ValueError, "at least 0 and below 3, got -1"),
    ("labels", np.array([2**63, 0], np.uint64), ValueError, f"got {2**63}"),
    ("labels", [0.0, 1.0], TypeError, "float64"),
    ("labels", [True, False], TypeError, "bool"),
    ("labels", ["0", "1"], TypeError, "<U1"),
    ("labels", None, TypeError, "object"),
    ("labels", [[0], [1, 2]], ValueError, "ragged"),
    ("labels", [0], ValueError, "(1,)"),
    ("labels", [], ValueError, "(0,)"),
    ("labels", [[0, 1]], ValueError, "(1, 2)"),
    ("logits", zeros(2, 0), ValueError, "(2, 0)"),
    ("reduction", "average", ValueError, "got 'average'"),
    ("reduction", None, ValueError, "got None"),
]
WINDOWS: list[tuple[str, Any, type[Exception], str]] = [
    ("padding", 2, ValueError, "(2, 2, 2, 2)"),
    ("padding", ((0, 0), (0, 3)), ValueError, "(0, 0, 0, 3)"),
    ("kernel", {"size": (6, 2)}, ValueError, "spans 6 pixels in height"),
    ("kernel", {"size": (2, 8)}, ValueError, "spans 8 pixels in width"),
    ("size", None, TypeError, "got None"),
]

MERGED: list[tuple[str, Any, type[Exception], str]] = [
    ("b", zeros(3, 1, 7, 1), ValueError, "got (2, 5, 7, 3) and (3, 1, 7, 1)"),
    ("b", zeros(2, 4, 7, 1), ValueError, "got (2, 5, 7, 3) and (2, 4, 7, 1)"),
    ("b", zeros(2), ValueError, "the same number of axes, at least 2"),
    ("b", None, TypeError, "got None"),
]
SHAPES: list[tuple[str, Any, type[Exception], str]] = [
    (f"{name}_shape", value, error, text)
    for name in ("a", "b")
    for value, error, text in (
        ((1, 1, 7, 1), ValueError, "(1, 1, 7, 1)"),
        ((2, 6, 7, 1), ValueError, "(2, 6, 7, 1)"),
        ((2, 7, 3), ValueError, "(2, 7, 3)"),
        ((2, 1, 7.0, 1), TypeError, "got (2, 1, 7.0, 1)"),
        ((2, 1, True, 1), TypeError, "got (2, 1, True, 1)"),
        ((2, -1, 7, 1), ValueError, "negative, got (2, -1, 7, 1)"),
        (7, TypeError, "got 7"),
        ("2571", TypeError, "got '2571'"),
        (None, TypeError, "got None"),
    )
]
TOPS: list[tuple[str, Any, type[Exception], str]] = [
    ("top", 0, ValueError, "must be above 0, got 0"),
    ("top", -6.0, ValueError, "must be above 0, got -6.0"),
]
FORMS: list[tuple[str, Any, type[Exception], str]] = [
    ("approximate", "tanh", TypeError, "must be True or False, got 'tanh'"),
    ("approximate", None, TypeError, "must be True or False, got None"),
    ("approximate", 1, TypeError, "must be True or False, got 1"),
]
SLOPES: list[tuple[str, Any, type[Exception], str]] = [
    ("slope", zeros(2), ValueError, "one number per channel, (3,), got (2,)"),
    ("slope", zeros(1, 3), ValueError, "one number per channel, (3,), got (1, 3)"),
    ("slope", 0.25, ValueError, "one number per channel, (3,), got ()"),
    ("slope", None, TypeError, "object"),
    ("slope", [[1.0, 2.0], [3.0]], ValueError, "ragged"),
    ("slope", np.zeros(3, np.complex64), TypeError, "complex64"),
]
TRANSPOSED: list[tuple[str, Any, type[Exception], str]] = [
    ("groups", 0, ValueError, "at least 1, got 0"),
    ("groups", -2, ValueError, "at least 1, got -2"),
    ("groups", 4, ValueError, "divide the channels of input and output, got 4 for 6 input and 8"),
    ("groups", 2.0, TypeError, "integers, got 2.0"),
    ("groups", True, TypeError, "integers, got True"),
    ("groups", None, TypeError, "integers, got None"),
    ("w", zeros(3, 2, 2, 5), ValueError, "IC = 6 input channels, got 5"),
    ("w", zeros(3, 2, 0, 6), ValueError, "(3, 2, 0, 6)"),
    ("w", zeros(0, 2, 2, 6), ValueError, "(0, 2, 2, 6)"),
    ("x", zeros(2, 0, 5, 6), ValueError, "at least one pixel and one channel, got (2, 0, 5, 6)"),
    ("x", zeros(2, 3, 5, 0), ValueError, "at least one pixel and one channel, got (2, 3, 5, 0)"),
    ("padding", 3, ValueError, "at least one pixel of the result, got 3, which leaves -1"),
    ("padding", ((0, 0), (4, 2)), ValueError, "at least one pixel of the result, got ((0, 0)"),
    ("output_padding", 1, ValueError, "below the stride, (1, 1), got 1"),
    ("output_padding", (0, 1), ValueError, "below the stride, (1, 1), got (0, 1)"),
    ("output_padding", -1, ValueError, "at least 0, got -1"),
    ("output_padding", 0.5, TypeError, "integers, got 0.5"),
    ("output_padding", "same", TypeError, "integers, got 'same'"),
]
CROPPINGS: list[tuple[str, Any, type[Exception], str]] = [
    ("cropping", "same", ValueError, "got 'same'"),
    ("cropping", -1, ValueError, "negative, got -1"),
    ("cropping", (1, 1, 1, 1), ValueError, "got (1, 1, 1, 1)"),
    ("cropping", ((0, 0, 0), 1), ValueError, "got ((0, 0, 0), 1)"),
    ("cropping", 0.5, TypeError, "integers, got 0.5"),
    ("cropping", False, TypeError, "integers, got False"),
    ("cropping", None, TypeError, "integers, got None"),
]
ORDERS: list[tuple[str, Any, type[Exception], str]] = [
    ("order", (1, 2), ValueError, "2 more axes, as many as order"),
    ("order", (0, 1, 2), ValueError, "once, counted from 1, got (0, 1, 2)"),
    ("order", (1, 2, 2), ValueError, "once, counted from 1, got (1, 2, 2)"),
    ("order", (1, 2, 4), ValueError, "once, counted from 1, got (1, 2, 4)"),
    ("order", (), ValueError, "once, counted from 1, got ()"),
    ("order", (1, 3, 2.0), TypeError, "integers, got (1, 3, 2.0)"),
    ("order", (True, 3, 2), TypeError, "integers, got (True, 3, 2)"),
    ("order", "312", TypeError, "a list of axes, got '312'"),
    ("order", 3, TypeError, "a list of axes, got 3"),
    ("order", None, TypeError, "a list of axes, got None"),
]
BLOCKS: list[tuple[str, Any, type[Exception], str]] = [
    ("block", 0, ValueError, "at least 1, got 0"),
    ("block", -2, ValueError, "at least 1, got -2"),
    ("block", 2.0, TypeError, "integers, got 2.0"),
    ("block", True, TypeError, "integers, got True"),
    ("block", (2, 2), TypeError, "integers, got (2, 2)"),
    ("block", None, TypeError, "integers, got None"),
    ("order", "dcr", ValueError, 'one of "DCR", "CRD", got \'dcr\''),
    ("order", None, ValueError, "got None"),
    ("order", 1, ValueError, "got 1"),
]
RESIZINGS: list[tuple[str, Any, type[Exception], str]] = [
    ("method", "linear", ValueError, 'one of "nearest", "bilinear", got \'linear\''),
    ("method", None, ValueError, "got None"),
    (
        "coordinates",
        "half",
        ValueError,
        '"half_pixel", "align_corners", "asymmetric", got \'half\'',
    ),
    ("coordinates", True, ValueError, "got True"),
    ("rounding", "round", ValueError, '"floor", "ceil", got \'round\''),
    ("rounding", ["floor"], ValueError, "got ['floor']"),
]

OWN: dict[str, list[tuple[str, Any, type[Exception], str]]] = {
    "conv2d": [
        *CONV_ONLY,
        *W_OF_CONV,
        *X_OF_IMAGES,
        ("b", zeros(6, 1), ValueError, "(6, 1)"),
        ("activation", "tanh", ValueError, "got 'tanh'"),
        ("activation", True, ValueError, "got True"),
        ("kernel", {"w": zeros(6, 2, 2, 6)}, ValueError, "spans 6 pixels in height"),
        ("kernel", {"dilation": (1, 6)}, ValueError, "spans 7 pixels in width"),
        ("kernel", {"dilation": 4, "padding": 1}, ValueError, "spans 9 pixels in height"),
    ],
    "conv2d_backward": [*CONV_ONLY, *W_OF_CONV, *X_OF_IMAGES],
    "conv2d_input_gradient": [
        *CONV_ONLY,
        *W_OF_CONV,
        ("x_shape", (2, 5, 6), ValueError, "(2, 5, 6)"),
        ("x_shape", (2, 5, 6.0, 4), TypeError, "(2, 5, 6.0, 4)"),
        ("x_shape", (2, 5, True, 4), TypeError, "(2, 5, True, 4)"),
        ("x_shape", (-2, 5, 6, 4), ValueError, "(-2, 5, 6, 4)"),
        ("x_shape", 5, TypeError, "got 5"),
        ("x_shape", None, TypeError, "got None"),
    ],
    "conv2d_filter_gradient": [
        *CONV_ONLY,
        *X_OF_IMAGES,
        ("dy", zeros(2, 3, 5, 0), ValueError, "(2, 3, 5, 0)"),
        ("kernel", {"kernel_size": (3, 7)}, ValueError, "spans 7 pixels in width"),
    ],
    "dense": [
        ("w", zeros(4, 3), ValueError, "(4, 3)"),
        ("w", zeros(5, 0), ValueError, "(5, 0)"),
        ("b", zeros(1), ValueError, "(1,)"),
        ("activation", "softmax", ValueError, "got 'softmax'"),
    ],
    "dense_backward": [("w", zeros(4, 3), ValueError, "(4, 3)")],
    "softmax": [("x", np.float32(1), ValueError, "()"), ("x", zeros(3, 0), ValueError, "(3, 0)")],
    "log_softmax": [
        ("x", np.float32(1), ValueError, "()"),
        ("x", zeros(3, 0), ValueError, "(3, 0)"),
    ],
    "conv2d_bias_gradient": [("dy", zeros(2, 3, 5, 0), ValueError, "(2, 3, 5, 0)")],
    "dropout": [
        ("rate", 1, ValueError, "at least 0 and below 1, got 1"),
        ("rate", -0.1, ValueError, "at least 0 and below 1, got -0.1"),
        ("mask", zeros(2, 3), TypeError, "must hold booleans, got dtype float32"),
        ("mask", np.ones((3, 2), bool), ValueError, "the shape of x, (2, 3), got (3, 2)"),
        ("mask", None, TypeError, "object"),
    ],
    "zero_pad2d": [("padding", "same", ValueError, "got 'same'")],
    "zero_pad2d_backward": [
        ("padding", "valid", ValueError, "got 'valid'"),
        ("padding", 3, ValueError, "larger than its padding, got (2, 5, 7, 3) with 3"),
    ],
    **{
        f"batch_norm{kind}": [
            ("x", zeros(3), ValueError, "(3,)"),
            ("epsilon", -1e-3, ValueError, "at least 0, got -0.001"),
        ]
        for kind in ("", "_inference")
    },
    **dict.fromkeys(("add", "subtract", "multiply", "maximum"), MERGED),
    **dict.fromkeys(("multiply_backward", "maximum_backward"), MERGED),
    **dict.fromkeys(("add_backward", "subtract_backward"), SHAPES),
    "concatenate": [
        ("arrays", [], ValueError, "at least one array, got none"),
        ("arrays", normal(2, 5, 3), TypeError, "a list or a tuple of arrays"),
        ("arrays", None, TypeError, "got None"),
        ("arrays", "ab", TypeError, "got 'ab'"),
        ("arrays", [normal(2, 5, 3), None], TypeError, "arrays[1] must hold real numbers"),
        ("arrays", [normal(2, 5, 3), normal(2, 4, 3)], ValueError, "[(2, 5, 3), (2, 4, 3)]"),
        ("arrays", [normal(2, 5, 3), normal(2, 5)], ValueError, "[(2, 5, 3), (2, 5)]"),
        ("arrays", [np.float32(1)], ValueError, "at least one axis, got the shape ()"),
        ("arrays", [normal(2), normal(2).astype(np.complex64)], TypeError, "arrays[1]"),
        ("axis", 3, ValueError, "at least -3 and below 3, got 3"),
        ("axis", -4, ValueError, "at least -3 and below 3, got -4"),
        ("axis", 1.0, TypeError, "integers, got 1.0"),
        ("axis", None, TypeError, "integers, got None"),
    ],
    "concatenate_backward": [
        ("sizes", (3, 2), ValueError, "along axis 2, 4, got (3, 2)"),
        ("sizes", (), ValueError, "got ()"),
        ("sizes", (5, -1), ValueError, "negative, got (5, -1)"),
        ("sizes", 4, TypeError, "got 4"),
        ("sizes", (3, 1.0), TypeError, "got (3, 1.0)"),
        ("axis", 3, ValueError, "at least -3 and below 3, got 3"),
        ("axis", True, TypeError, "integers, got True"),
    ],
    **{
        f"layer_norm{kind}": [
            ("x", zeros(3), ValueError, "gamma must have the shape of the last axes of x"),
            ("x", zeros(2, 5), ValueError, "got (3,) for x (2, 5)"),
            ("gamma", zeros(2), ValueError, "got (2,) for x (2, 5, 7, 3)"),
            ("gamma", zeros(2, 5, 7, 3), ValueError, "got (2, 5, 7, 3) for x (2, 5, 7, 3)"),
            ("epsilon", -1e-3, ValueError, "at least 0, got -0.001"),
        ]
        for kind in ("", "_backward")
    },
    **{
        f"group_norm{kind}": [
            ("x", zeros(3), ValueError, "(3,)"),
            ("groups", 2, ValueError, "divide the channels of x, got 2 for 3"),
            ("groups", 0, ValueError, "at least 1, got 0"),
            ("groups", 1.0, TypeError, "integers, got 1.0"),
            ("groups", None, TypeError, "got None"),
            ("epsilon", -1e-3, ValueError, "at least 0, got -0.001"),
        ]
        for kind in ("", "_backward")
    },
    **{
        f"local_response_norm{kind}": [
            ("x", np.float32(1), ValueError, "()"),
            ("x", zeros(2, 0), ValueError, "(2, 0)"),
            ("size", 0, ValueError, "at least 1, got 0"),
            ("size", 2.0, TypeError, "integers, got 2.0"),
            ("size", (1, 2), TypeError, "got (1, 2)"),
            ("alpha", -1, ValueError, "at least 0, got -1"),
            ("bias", -0.5, ValueError, "at least 0, got -0.5"),
        ]
        for kind in ("", "_backward")
    },
    "cross_entropy": LABELS,
    "cross_entropy_backward": LABELS,
    **{f"{kind}_pool2d": [*WINDOWS, *X_OF_IMAGES] for kind in ("max", "min", "avg")},
    **{f"{kind}_pool2d_backward": [*WINDOWS, *X_OF_IMAGES] for kind in ("max", "min", "avg")},
    **{f"clipped_relu{kind}": TOPS for kind in ("", "_backward")},
    **{f"gelu{kind}": FORMS for kind in ("", "_backward")},
    "prelu": [
        *SLOPES,
        ("x", zeros(3), ValueError, "(3,)"),
        ("x", zeros(2, 0), ValueError, "(2, 0)"),
    ],
    "prelu_backward": SLOPES,
    "conv2d_transpose": [
        *TRANSPOSED,
        ("b", zeros(4, 1), ValueError, "(4, 1)"),
        ("b", zeros(6), ValueError, "one bias per output channel, (4,), got (6,)"),
        ("activation", "tanh", ValueError, "got 'tanh'"),
    ],
    "conv2d_transpose_backward": TRANSPOSED,
    "crop2d": [
        *CROPPINGS,
        ("cropping", ((3, 2), 0), ValueError, "leave at least one pixel of x, (2, 5, 7, 3), got"),
        ("cropping", (0, 4), ValueError, "leave at least one pixel of x, (2, 5, 7, 3), got (0, 4)"),
    ],
    "crop2d_backward": CROPPINGS,
    "permute": ORDERS,
    "permute_backward": ORDERS,
    "depth_to_space": [
        *BLOCKS,
        ("x", zeros(2, 5, 7, 6), ValueError, "a multiple of block² = 4 channels, got (2, 5, 7, 6)"),
    ],
    "space_to_depth": [
        *BLOCKS,
        ("x", zeros(2, 5, 8, 3), ValueError, "sides that block = 2 divides, got (2, 5, 8, 3)"),
        ("x", zeros(2, 6, 7, 3), ValueError, "sides that block = 2 divides, got (2, 6, 7, 3)"),
    ],
    "resize2d": [
        *RESIZINGS,
        ("size", None, TypeError, "got None"),
        ("x", zeros(2, 0, 7, 3), ValueError, "at least one pixel and one channel, got (2, 0, 7, 3"),
        ("x", zeros(2, 5, 7, 0), ValueError, "at least one pixel and one channel, got (2, 5, 7, 0"),
    ],
    "resize2d_backward": [
        *RESIZINGS,
        (
            "dy",
            zeros(2, 0, 8, 3),
            ValueError,
            "at least one pixel and one channel, got (2, 0, 8, 3",
        ),
        ("dy", zeros(2, 9, 8, 4), ValueError, "the output's shape, (2, 9, 8, 3), got (2, 9, 8, 4)"),
        ("dy", zeros(1, 9, 8, 3), ValueError, "the output's shape, (2, 9, 8, 3), got (1, 9, 8, 3)"),
        ("x_shape", (2, 5, 7), ValueError, "(2, 5, 7)"),
        ("x_shape", (2, 5, 7.0, 3), TypeError, "(2, 5, 7.0, 3)"),
        ("x_shape", (2, 0, 7, 3), ValueError, "(2, 0, 7, 3)"),
        ("x_shape", None, TypeError, "got None"),
    ],
}

MISTAKES = [
    (function, *mistake)
    for function in RIGHT
    for mistake in (*same_for_all(function), *OWN.get(function, ()))
]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the operations that an engine was asked to compute."""
    ran: list[str] = []
    choose = registry.choose

    def watched(op: str, *problem: Any) -> Callable[..., Any]:
        function = choose(op, *problem)

        def run(*arguments: Any) -> Any:
            ran.append(op)
            return function(*arguments)

        return run

    monkeypatch.setattr(registry, "choose", watched)
    forget_choices()
    return ran


def test_every_public_function_is_here() -> None:
    assert set(RIGHT) == set(ops.EXPLAINABLE)


@pytest.mark.parametrize("function", RIGHT)
def test_what_is_right_passes(function: str, runs: list[str]) -> None:
    getattr(fastcnn, function)(**{**RIGHT[function], "engine": "im2col"})
    assert runs


def label(mistake: tuple[Any, ...]) -> str:
    function, name, value = mistake[:3]
    shown = (*value.shape, value.dtype.name) if isinstance(value, np.ndarray) else value
    return f"{function}-{name}={shown!r}"


@pytest.mark.parametrize(
    ("function", "name", "value", "error", "text"), MISTAKES, ids=map(label, MISTAKES)
)
def test_a_mistake_is_named_before_anything_runs(
    function: str, name: str, value: Any, error: type[Exception], text: str, runs: list[str]
) -> None:
    changes = value if name == "kernel" else {name: value}  # the kernel is no argument by itself
    call = {**RIGHT[function], **changes}
    with pytest.raises(error, match=re.escape(text)) as raised:
        getattr(fastcnn, function)(**call)
    # A shape that two arrays contradict each other in may be told as either's.
    told_of_dy = ("x", "w", "x_shape", "a", "b", "a_shape", "b_shape")
    names = {name, "dy"} if name in told_of_dy and "dy" in call else {name}
    assert any(re.search(rf"\b{one}\b", str(raised.value)) for one in names)
    assert runs == []


@pytest.mark.parametrize("name", ["Naive", "", 3, None])
def test_use_engine_refuses_what_is_no_engine(name: Any) -> None:
    message = re.escape(f"got {name!r}")
    with pytest.raises((ValueError, TypeError), match=message), fastcnn.use_engine(name):
        raise AssertionError("entered")


@pytest.mark.parametrize("op", ["conv3d", "choose", "", None, 3])
def test_explain_refuses_what_is_no_operation(op: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {op!r}")):
        fastcnn.explain(op, (1, 4, 4, 1))


def test_explain_raises_what_the_call_would() -> None:
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        fastcnn.explain("conv2d", (1, 4, 4, 1), (3, 3, 1, 1), stride=0)


@pytest.mark.parametrize("helper", ["nchw_to_nhwc", "nhwc_to_nchw", "oihw_to_hwio", "hwio_to_oihw"])
def test_layout_helpers_refuse_other_ranks(helper: str) -> None:
    with pytest.raises(ValueError, match=r"\b[xw] must have the shape .* got \(2, 3, 4\)"):
        getattr(fastcnn, helper)(np.zeros((2, 3, 4)))


# Function: the results' shapes for a batch of none.
EMPTY: dict[str, list[tuple[int, ...]]] = {
    "conv2d": [(0, 3, 5, 6)],
    "conv2d_backward": [(0, 5, 6, 4), (3, 2, 2, 6), (6,)],
    "conv2d_input_gradient": [(0, 5, 6, 4)],
    "conv2d_filter_gradient": [(3, 2, 2, 6)],
    **{f"{kind}_pool2d": [(0, 2, 2, 3)] for kind in ("max", "min", "avg")},
    **{f"{kind}_pool2d_backward": [(0, 5, 7, 3)] for kind in ("max", "min", "avg")},
    "dense": [(0, 3)],
    "dense_backward": [(0, 5), (5, 3), (3,)],
    "conv2d_bias_gradient": [(6,)],
    **{f"{op}{kind}": [(0, 3)] for op in ELEMENTWISE if op != "relu" for kind in ("", "_backward")},
    "dropout": [(0, 3)],
    "zero_pad2d": [(0, 8, 10, 3)],
    "zero_pad2d_backward": [(0, 2, 4, 3)],
    "batch_norm": [(0, 5, 7, 3), (3,), (3,)],
    "batch_norm_inference": [(0, 5, 7, 3)],
    "batch_norm_backward": [(0, 5, 7, 3), (3,), (3,)],
    "relu": [(0, 3)],
    "relu_backward": [(0, 3)],
    "softmax": [(0, 3)],
    "softmax_backward": [(0, 3)],
    "log_softmax": [(0, 3)],
    "log_softmax_backward": [(0, 3)],
    "cross_entropy": [()],
    "cross_entropy_backward": [(0, 3)],
    **{op: [(0, 5, 7, 3)] for op in ("add", "subtract", "multiply", "maximum")},
    **{
        f"{op}_backward": [(0, 5, 7, 3), (0, 1, 7, 1)]
        for op in ("add", "subtract", "multiply", "maximum")
    },
    **{f"{op}_norm": [(0, 5, 7, 3)] for op in ("layer", "group", "local_response")},
    **{f"{op}_norm_backward": [(0, 5, 7, 3), (3,), (3,)] for op in ("layer", "group")},
    "local_response_norm_backward": [(0, 5, 7, 3)],
    "concatenate": [(0, 5, 4)],
    "concatenate_backward": [(0, 5, 3), (0, 5, 1)],
    "prelu": [(0, 5, 7, 3)],
    "prelu_backward": [(0, 5, 7, 3), (3,)],
    "conv2d_transpose": [(0, 5, 6, 4)],
    "conv2d_transpose_backward": [(0, 3, 5, 6), (3, 2, 2, 6), (4,)],
    "crop2d": [(0, 2, 4, 3)],
    "crop2d_backward": [(0, 8, 10, 3)],
    "permute": [(0, 3, 5, 7)],
    "permute_backward": [(0, 5, 7, 3)],
    "depth_to_space": [(0, 10, 14, 3)],
    "space_to_depth": [(0, 3, 4, 12)],
    "resize2d": [(0, 9, 8, 3)],
    "resize2d_backward": [(0, 5, 7, 3)],
}


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", EMPTY)
def test_empty_batches_give_empty_results(function: str, dtype: type, engine: str) -> None:
    call = dict(RIGHT[function], engine=engine)
    for name, value in call.items():
        if name == "mask":
            call[name] = value[:0]
        elif name in ("dy", "x", "logits", "a") or (name == "b" and "a" in call):
            call[name] = value[:0].astype(dtype)
        elif name == "arrays":
            call[name] = [array[:0].astype(dtype) for array in value]
        elif name in ("w", "b", *CHANNELS, "slope") and isinstance(value, np.ndarray):
            call[name] = value.astype(dtype)
        elif name == "labels":
            call[name] = []
        elif name in ("x_shape", "a_shape", "b_shape"):
            call[name] = (0, *value[1:])
    results = getattr(fastcnn, function)(**call)
    results = results if isinstance(results, tuple) else (results,)
    assert [result.shape for result in results] == EMPTY[function]
    assert {result.dtype for result in results} == {np.dtype(dtype)}
    # What has a shape of its own (gradients of parameters, the mean loss) is 0 of nothing.
    assert all((np.asarray(result) == 0).all() for result in results)


@pytest.mark.parametrize("engine", fastcnn.engines())
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_empty_losses(reduction: Any, engine: str) -> None:
    losses = fastcnn.cross_entropy(np.zeros((0, 4)), [], reduction=reduction, engine=engine)
    assert np.shape(losses) == ((0,) if reduction == "none" else ())
