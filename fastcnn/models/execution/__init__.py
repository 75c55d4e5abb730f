"""The compiled fast path of models: a whole net over slices of a batch, in one call."""

from fastcnn.engine.numba.runtime.program import compiles
from fastcnn.models.execution.executor import Executor
from fastcnn.models.execution.lowering import stands_alone

__all__ = ["Executor", "compiles", "stands_alone"]
