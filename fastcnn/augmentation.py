"""Augmentations: images changed at random, for ``fit(augment=…)``."""

from __future__ import annotations

from fastcnn.data.augmentation import Augment
from fastcnn.data.pixel_augmentation import ColorJitter, Compose, Cutout, Mixup

__all__ = ["Augment", "ColorJitter", "Compose", "Cutout", "Mixup"]
