"""The compiled fast path of models: a whole net over slices of a batch, in one call."""

from fastcnn.executor.executor import Executor, stands_alone
from fastcnn.kernels.program import compiles

__all__ = ["Executor", "compiles", "stands_alone"]
