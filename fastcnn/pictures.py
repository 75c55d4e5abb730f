"""From a picture file to what a net takes."""

from __future__ import annotations

from fastcnn.data.pictures import (
    PictureError,
    Prepared,
    drawing,
    picture,
    prepare,
)

__all__ = [
    "PictureError",
    "Prepared",
    "drawing",
    "picture",
    "prepare",
]
