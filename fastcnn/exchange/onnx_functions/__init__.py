"""ONNX's operators as functions of NumPy arrays, in the layout of the file.

They fold constants and the arithmetic on shapes, and compute what no layer of fastcnn computes. A
function takes its node and an array for each input of the node.
"""

from fastcnn.exchange.onnx_functions import (
    elementwise,
    indexing,
    moving,
    quantised,
    recurrent,
    reductions,
    resizing,
    windows,
)
from fastcnn.exchange.onnx_functions.nodes import FUNCTIONS, Array, OnnxFileError, OnnxNode

__all__ = [
    "FUNCTIONS",
    "Array",
    "OnnxFileError",
    "OnnxNode",
    "elementwise",
    "indexing",
    "moving",
    "quantised",
    "recurrent",
    "reductions",
    "resizing",
    "windows",
]
