"""The compiled fast path of models: a whole net over slices of a batch, in one call."""

from fastcnn.executor.executor import Executor

__all__ = ["Executor"]
