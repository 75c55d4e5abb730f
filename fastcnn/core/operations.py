"""The operations, each declared once: the registry, the engines and the public functions read this.

An operation has one name everywhere. It is the name of the public function in :mod:`fastcnn.ops`,
of the function in the package of each engine, and of the list of implementations in
:mod:`fastcnn.engine.registry`. ARCHITECTURE says what the arguments and results of engines are.
"""

from __future__ import annotations


class Operation:
    """An operation that every engine computes.

    ``parameters`` and ``results`` name the arguments and results of the engines' functions. If
    ``by_algorithm`` is true, several algorithms compute the operation, and a caller may name one.
    """

    __slots__ = ("by_algorithm", "name", "parameters", "results")

    def __init__(
        self,
        name: str,
        parameters: tuple[str, ...],
        results: tuple[str, ...],
        by_algorithm: bool = False,
    ) -> None:
        self.name, self.parameters, self.results = name, parameters, results
        self.by_algorithm = by_algorithm

    @property
    def signature(self) -> str:
        """The line of the engine contract.

        >>> OPERATIONS["dense_backward"].signature
        'dense_backward(dy, x, w) -> (dx, dw, db)'
        """
        results = ", ".join(self.results)
        if len(self.results) > 1:
            results = f"({results})"
        return f"{self.name}({', '.join(self.parameters)}) -> {results}"


class Composite:
    """A public function that calls other operations, in this order, and computes nothing else."""

    __slots__ = ("name", "parts")

    def __init__(self, name: str, parts: tuple[str, ...]) -> None:
        self.name, self.parts = name, parts


_X, _DY_X = ("x",), ("dy", "x")
_A_B, _DY_A_B, _DY_SHAPES = ("a", "b"), ("dy", "a", "b"), ("dy", "a_shape", "b_shape")
_DA_DB = ("da", "db")

DECLARED: tuple[Operation | Composite, ...] = (
    Operation("conv2d", ("x", "w", "b", "activation", "g"), ("y",), by_algorithm=True),
    Composite(
        "conv2d_backward",
        ("conv2d_input_gradient", "conv2d_filter_gradient", "conv2d_bias_gradient"),
    ),
    Operation("conv2d_input_gradient", ("dy", "w", "g"), ("dx",), by_algorithm=True),
    Operation("conv2d_filter_gradient", ("dy", "x", "g"), ("dw",), by_algorithm=True),
    Operation("conv2d_bias_gradient", ("dy", "g"), ("db",)),
    Operation("max_pool2d", ("x", "g"), ("y",)),
    Operation("max_pool2d_backward", ("dy", "x", "g"), ("dx",)),
    Operation("min_pool2d", ("x", "g"), ("y",)),
    Operation("min_pool2d_backward", ("dy", "x", "g"), ("dx",)),
    Operation("avg_pool2d", ("x", "g"), ("y",)),
    Operation("avg_pool2d_backward", ("dy", "g"), ("dx",)),
    Operation("dense", ("x", "w", "b", "activation"), ("y",)),
    Operation("dense_backward", ("dy", "x", "w"), ("dx", "dw", "db")),
    Operation("relu", _X, ("y",)),
    Operation("relu_backward", _DY_X, ("dx",)),
    Operation("leaky_relu", ("x", "slope"), ("y",)),
    Operation("leaky_relu_backward", ("dy", "x", "slope"), ("dx",)),
    Operation("tanh", _X, ("y",)),
    Operation("tanh_backward", _DY_X, ("dx",)),
    Operation("sigmoid", _X, ("y",)),
    Operation("sigmoid_backward", _DY_X, ("dx",)),
    Operation("dropout", ("x", "mask", "rate"), ("y",)),
    Operation("zero_pad2d", ("x", "margins"), ("y",)),
    Operation("zero_pad2d_backward", ("dy", "margins"), ("dx",)),
    Operation("batch_norm", ("x", "gamma", "beta", "epsilon"), ("y", "mean", "variance")),
    Operation(
        "batch_norm_inference", ("x", "gamma", "beta", "mean", "variance", "epsilon"), ("y",)
    ),
    Operation(
        "batch_norm_backward",
        ("dy", "x", "gamma", "mean", "variance", "epsilon"),
        ("dx", "dgamma", "dbeta"),
    ),
    Operation("softmax", _X, ("y",)),
    Operation("softmax_backward", _DY_X, ("dx",)),
    Operation("log_softmax", _X, ("y",)),
    Operation("log_softmax_backward", _DY_X, ("dx",)),
    Operation("cross_entropy", ("logits", "labels"), ("losses",)),
    Operation("cross_entropy_backward", ("logits", "labels"), ("dlogits",)),
    Operation("add", _A_B, ("y",)),
    Operation("add_backward", _DY_SHAPES, _DA_DB),
    Operation("subtract", _A_B, ("y",)),
    Operation("subtract_backward", _DY_SHAPES, _DA_DB),
    Operation("multiply", _A_B, ("y",)),
    Operation("multiply_backward", _DY_A_B, _DA_DB),
    Operation("maximum", _A_B, ("y",)),
    Operation("maximum_backward", _DY_A_B, _DA_DB),
    Operation("concatenate", ("arrays", "axis"), ("y",)),
    Operation("concatenate_backward", ("dy", "sizes", "axis"), ("gradients",)),
    Operation("clipped_relu", ("x", "top"), ("y",)),
    Operation("clipped_relu_backward", ("dy", "x", "top"), ("dx",)),
    Operation("elu", ("x", "alpha"), ("y",)),
    Operation("elu_backward", ("dy", "x", "alpha"), ("dx",)),
    Operation("hard_sigmoid", ("x", "slope", "offset"), ("y",)),
    Operation("hard_sigmoid_backward", ("dy", "x", "slope", "offset"), ("dx",)),
    Operation("hard_swish", _X, ("y",)),
    Operation("hard_swish_backward", _DY_X, ("dx",)),
    Operation("swish", _X, ("y",)),
    Operation("swish_backward", _DY_X, ("dx",)),
    Operation("gelu", ("x", "approximate"), ("y",)),
    Operation("gelu_backward", ("dy", "x", "approximate"), ("dx",)),
    Operation("softplus", _X, ("y",)),
    Operation("softplus_backward", _DY_X, ("dx",)),
    Operation("prelu", ("x", "slope"), ("y",)),
    Operation("prelu_backward", ("dy", "x", "slope"), ("dx", "dslope")),
    Operation("conv2d_transpose", ("x", "w", "b", "activation", "g"), ("y",), by_algorithm=True),
    Composite(
        "conv2d_transpose_backward", ("conv2d", "conv2d_filter_gradient", "conv2d_bias_gradient")
    ),
    Composite("crop2d", ("zero_pad2d_backward",)),
    Composite("crop2d_backward", ("zero_pad2d",)),
    Operation("permute", ("x", "order"), ("y",)),
    Composite("permute_backward", ("permute",)),
    Composite("depth_to_space", ("permute",)),
    Composite("space_to_depth", ("permute",)),
    Operation("resize2d", ("x", "g"), ("y",)),
    Operation("resize2d_backward", ("dy", "g"), ("dx",)),
    Operation("layer_norm", ("x", "gamma", "beta", "epsilon"), ("y",)),
    Operation("layer_norm_backward", ("dy", "x", "gamma", "epsilon"), ("dx", "dgamma", "dbeta")),
    Operation("group_norm", ("x", "groups", "gamma", "beta", "epsilon"), ("y",)),
    Operation(
        "group_norm_backward",
        ("dy", "x", "groups", "gamma", "epsilon"),
        ("dx", "dgamma", "dbeta"),
    ),
    Operation("local_response_norm", ("x", "size", "alpha", "beta", "bias"), ("y",)),
    Operation(
        "local_response_norm_backward", ("dy", "x", "size", "alpha", "beta", "bias"), ("dx",)
    ),
)
"""All public functions of the mathematics, in the order in which messages list them."""

OPERATIONS = {one.name: one for one in DECLARED if isinstance(one, Operation)}
"""The operations that every engine computes, by name."""

PUBLIC = tuple(one.name for one in DECLARED)
"""Names of the public functions: the operations and the composites."""
