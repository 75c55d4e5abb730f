"""Models as compiled programs.

Nets of small layers run over slices of a batch; in other nets the threads share each step.
"""

from fastcnn.engine.numba.runtime.program import compiles
from fastcnn.models.execution.executor import Executor
from fastcnn.models.execution.lowering import stands_alone

__all__ = ["Executor", "compiles", "stands_alone"]
