"""Colours, cut-outs, mixed images, and several augmentations in a row."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest

from fastcnn import Sequential
from fastcnn.augmentation import Augment, ColorJitter, Compose, Cutout, Mixup
from fastcnn.layers import Dense, Flatten

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 7, 5, 3), dtype=np.uint8)
Y = RNG.integers(0, 3, 20)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_brightness_contrast_and_saturation_by_hand() -> None:
    draws = 2 * rng().random((20, 4)) - 1
    bright = ColorJitter(brightness=0.5)(X, rng())
    for image, result, draw in zip(X, bright, draws, strict=True):
        expected = np.clip(image * (1 + 0.5 * draw[0]), 0, 255)
        assert np.abs(result - expected).max() <= 0.5 + 1e-4
    shares = np.array([0.299, 0.587, 0.114])
    contrast = ColorJitter(contrast=0.9)(X, rng())
    grey = ColorJitter(saturation=0.9)(X, rng())
    for image, one, other, draw in zip(X, contrast, grey, draws, strict=True):
        mean = (image @ shares).mean()
        expected = np.clip((image - mean) * (1 + 0.9 * draw[1]) + mean, 0, 255)
        assert np.abs(one - expected).max() <= 0.5 + 1e-3
        own = (image @ shares)[..., None]
        expected = np.clip((image - own) * (1 + 0.9 * draw[2]) + own, 0, 255)
        assert np.abs(other - expected).max() <= 0.5 + 1e-3


def test_hues_are_turned_as_in_the_standard_library() -> None:
    x = RNG.random((6, 3, 4, 3))
    x[0, 0, 0], x[0, 0, 1], x[0, 1] = 0, 0.4, [0.7, 0.7, 0.2]  # black, grey, two largest
    for hue in (0.1, 0.5):
        draws = 2 * rng().random((6, 4)) - 1
        result = ColorJitter(hue=hue, low=0, high=1)(x, rng())
        for image, other, turn in zip(x, result, hue * draws[:, 3], strict=True):
            for pixel, new in zip(image.reshape(-1, 3), other.reshape(-1, 3), strict=True):
                h, s, v = colorsys.rgb_to_hsv(*pixel)
                expected = colorsys.hsv_to_rgb((h + turn) % 1, s, v)
                np.testing.assert_allclose(new, expected, atol=1e-12)
    red = np.zeros((1, 1, 1, 3), np.uint8)
    red[..., 0] = 200
    assert {*np.unique(ColorJitter(hue=0.5)(red, rng()))} <= {*range(201)}


AUGMENTATIONS = [
    ColorJitter(0.3, 0.3, 0.3),
    ColorJitter(hue=0.5),
    Cutout((3, 2), fill=9),
    Compose([Cutout(2)]),
]


@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=repr)
def test_a_batch_is_its_parts_one_after_the_other(augment: Any) -> None:
    before = X.copy()
    X.flags.writeable = False
    whole, one = augment(X, rng()), rng()
    parts = np.concatenate([augment(X[:7], one), augment(X[7:], one)])
    X.flags.writeable = True
    assert (whole == parts).all()
    assert (before == X).all()
    assert (whole != X).any()
    grey = augment(X[..., 0], rng())
    assert grey.shape == X.shape[:3]
    assert grey.dtype == np.uint8


def test_a_square_is_cut_out() -> None:
    result = Cutout((3, 2), fill=0)(np.full((200, 7, 5), 1, np.float32), rng())
    zeros = (result == 0).sum(axis=(1, 2))
    assert zeros.max() == 6
    assert zeros.min() >= 2  # at a corner
    assert (result == 0).any(axis=0).all()  # it reaches every pixel


def test_floats_need_their_range() -> None:
    x = (X / 255).astype(np.float32)
    with pytest.raises(ValueError, match="low and high must say what black and white are"):
        ColorJitter(0.2)(x, rng())
    result = ColorJitter(0.9, low=0, high=1)(x, rng())
    assert result.dtype == np.float32
    assert 0 <= result.min() <= result.max() <= 1


def test_mixup_mixes_images_and_targets_alike() -> None:
    images, rows = np.eye(6)[:, :, None, None] * 1.0, np.eye(6)
    mixed, targets = Mixup(1.0).mix(images, rows, rng())
    assert (mixed[:, :, 0, 0] == targets).all()
    assert np.abs(targets.sum(axis=1) - 1).max() < 1e-12
    bytes_, _ = Mixup(1.0).mix(X[:6], rows, rng())
    assert bytes_.dtype == np.uint8


def net() -> Sequential:
    return Sequential([Flatten(), Dense(3)], (7, 5, 3), seed=0, engine="im2col")


def same(some: Sequential, other: Sequential) -> bool:
    pairs = zip(some.get_weights(), other.get_weights(), strict=True)
    return all((mine == theirs).all() for mine, theirs in pairs)


def test_trainings_with_mixup_are_those_by_hand_and_repeat() -> None:
    augment = Compose([ColorJitter(0.2), Mixup(0.4)])
    model, other, by_hand = net(), net(), net()
    model.fit(X, Y, epochs=2, batch_size=20, shuffle=False, seed=1, augment=augment, verbose=0)
    other.fit(X, Y, epochs=2, batch_size=20, shuffle=False, seed=1, augment=augment, verbose=0)
    assert same(model, other)
    generator, rows = np.random.default_rng(1), np.eye(3, dtype=np.float32)[Y]
    from fastcnn.optimizers import SGD

    optimizer = SGD()
    for _ in range(2):
        images = ColorJitter(0.2)(X, generator)
        by_hand.train_on_batch(*Mixup(0.4).mix(images, rows, generator), optimizer)
    assert same(model, by_hand)
    with pytest.raises(ValueError, match="augment must not mix targets for Hinge"):
        net().fit(X, Y, loss="hinge", augment=Mixup(), verbose=0)


def test_results_of_ones_own_mixing_are_checked() -> None:
    class Bad:
        def __init__(self, result: Any) -> None:
            self.result = result

        def __call__(self, images: Any, rng: Any) -> Any:
            return images

        def mix(self, images: Any, targets: Any, rng: Any) -> Any:
            return self.result(images, targets)

    for result in (lambda x, y: x, lambda x, y: (x, y[:1]), lambda x, y: (x, y * np.nan)):
        model = net()
        before = model.get_weights()
        with pytest.raises((TypeError, ValueError), match=r"augment\.mix must return"):
            model.fit(X, Y, augment=Bad(result), verbose=0)
        pairs = zip(before, model.get_weights(), strict=True)
        assert all((a == b).all() for a, b in pairs)


def test_crops_in_a_row_are_centred_for_validation() -> None:
    augment = Compose([Augment(crop=(5, 4)), ColorJitter(0.1)])
    model = Sequential([Flatten(), Dense(3)], seed=0, engine="im2col")
    model.fit(X, Y, augment=augment, validation_data=(X, Y), verbose=0)
    assert model.input_shape == (5, 4, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColorJitter(1.0), "brightness must be .*below 1"),
        (lambda: ColorJitter(hue=0.6), "hue must be at most 0.5, half of the circle"),
        (lambda: ColorJitter(0.1, low=1, high=0), "low must be below high"),
        (lambda: ColorJitter(0.1, low=1), "low and high must both be given"),
        (lambda: Cutout(0), "size must be at least 1"),
        (lambda: Cutout(2, fill=300)(X, rng()), "fill must be an integer from 0 to 255"),
        (lambda: Cutout(2)(X.astype(np.int64), rng()), "images must be of uint8, float32"),
        (lambda: Mixup(0), "alpha must be above 0"),
        (lambda: Compose([3]), "steps must be called with images"),  # type: ignore[list-item]
    ],
)
def test_wrong_arguments(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
