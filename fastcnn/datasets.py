"""Data sets: MNIST, and those that come in files and folders."""

from __future__ import annotations

from fastcnn.data.datasets import (
    Dataset,
    default_folder,
    form_of,
    load_dataset,
    load_mnist,
)

__all__ = [
    "Dataset",
    "default_folder",
    "form_of",
    "load_dataset",
    "load_mnist",
]
