"""The compilation of all kernels that a model may need, before its first prediction and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.data.several import Data, Several
from fastcnn.models.net import Net
from fastcnn.nn.layers import Shape
from fastcnn.nn.losses import CrossEntropy, Loss
from fastcnn.nn.optimizers import Optimizer, optimizer_named
from fastcnn.train.output_losses import Goal, OutputLosses

if TYPE_CHECKING:
    from fastcnn.models.execution import Executor


def compile_kernels(
    model: Net,
    training: bool,
    optimizer: str | Optimizer | None,
    progress: Callable[[int, int], None] | None,
) -> int:
    """The number of kernels that were compiled; :meth:`fastcnn.Model.compile_kernels` says more."""
    shapes, loss = model._known_shapes(), model._loss()
    if optimizer is None:
        optimizer = "sgd" if model.progress is None else model.progress.optimizer
    optimizer = optimizer_named(optimizer)
    predicting = model._executor(model._trunk(model._predicting()))
    if predicting is None:
        return 0
    total = 0
    kinds = (
        [model.dtype] if model._knowledge.kind == "floats" else [model.dtype, np.dtype(np.uint8)]
    )

    def samples_of(kind: np.dtype[Any], executor: Executor, training: bool) -> list[Array]:
        parts = tuple(np.zeros((1, *shape), kind) for shape in shapes)
        return model._executor_inputs(Several(parts), executor, training=training)

    for kind in kinds:
        total += predicting.prepare_prediction(samples_of(kind, predicting, False), progress)
    # Maps have cross-entropy for a loss only where the user chose it.
    if training and (model._ends_in_vector or model.loss is not None or _of_numbers(loss)):
        learning = model._executor(model._trunk(loss))
        assert learning is not None
        targets = _targets(model, loss)
        for kind in kinds:
            like = samples_of(kind, learning, True)
            total += learning.prepare_training(like, targets, loss, optimizer, progress)
    return total


def _of_numbers(loss: Goal) -> bool:
    return isinstance(loss, Loss) and not isinstance(loss, CrossEntropy)


def _targets(model: Net, loss: Goal) -> Data:
    """Targets of one sample as ``fit`` would take them: class numbers, or zeros."""

    def zeros(loss: Loss, output: Shape) -> Array:
        if isinstance(loss, CrossEntropy):
            return np.zeros((1, *output[:-1]), np.int64)
        return np.zeros((1, *output), model.dtype)

    if isinstance(loss, OutputLosses):
        outputs = zip(loss.losses, model._outputs(loss), strict=True)
        return Several(tuple(zeros(one, output) for one, output in outputs))
    return zeros(loss, model._outputs(loss))
