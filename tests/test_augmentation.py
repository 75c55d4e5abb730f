"""Augmentation: what each setting may do to an image, the two paths against each other, seeds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from limits import run

import fastcnn
from fastcnn.data import augmentation
from fastcnn.data.augmentation import Augment, blend_numpy, cut_out_numpy
from fastcnn.engine.numba.elementwise.augmentation import blend, cut_out

DTYPES = (np.uint8, np.float32, np.float64)
SETTINGS = (
    {"shift": 2},
    {"shift": (0, 3), "flip": True},
    {"crop": (5, 4), "shift": 1, "flip": True},
    {"crop": (12, 15), "fill": 7},
    {"rotate": 30},
    {"scale": 0.4, "fill": 3},
    {"shift": 3, "rotate": 180, "flip": True, "crop": (6, 11), "scale": 0.2, "fill": 9},
)


def batch(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).integers(0, 256, shape)
    return values.astype(dtype) if dtype == np.uint8 else (values / 17 - 5).astype(dtype)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def moved(image: Any, top: int, left: int, size: tuple[int, int], fill: Any) -> Any:
    """The window at (top, left), pixel by pixel."""
    window = np.full((*size, *image.shape[2:]), fill, image.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = top + i, left + j
            if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                window[i, j] = image[y, x]
    return window


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 7, 9), (40, 7, 9, 3)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("shift", "crop", "size", "tops", "lefts"),
    [
        ((1, 2), None, (7, 9), range(-1, 2), range(-2, 3)),
        (0, (5, 6), (5, 6), range(3), range(4)),
        (1, (5, 12), (5, 12), range(-1, 4), range(-4, 2)),
    ],
)
def test_whole_pixels_are_one_of_the_windows_and_all_of_them_come(
    dtype: Any,
    shape: tuple[int, ...],
    flip: bool,
    shift: Any,
    crop: Any,
    size: tuple[int, int],
    tops: range,
    lefts: range,
) -> None:
    image = batch(*shape[1:], dtype=dtype)
    images = np.repeat(image[np.newaxis], 400, axis=0)
    augment = Augment(shift=shift, crop=crop, flip=flip, fill=2)
    fast = augment(images, rng())
    assert fast.dtype == dtype
    windows = {
        (top, left, mirrored): moved(
            image[:, ::-1] if mirrored else image, top, left, size, 2
        ).tobytes()
        for top in tops
        for left in lefts
        for mirrored in ([False, True] if flip else [False])
    }
    assert {one.tobytes() for one in fast} == set(windows.values())


def exact(image: Any, map_: Any, size: tuple[int, int], fill: float) -> Any:
    """Bilinear interpolation as it is defined, in float64."""

    def at(y: int, x: int) -> Any:
        inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
        return image[y, x].astype(np.float64) if inside else np.float64(fill)

    result = np.zeros((*size, image.shape[2]))
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = map_ @ np.array([i, j, 1]) / 65536
            top, left = int(np.floor(y)), int(np.floor(x))
            for dy in (0, 1):
                for dx in (0, 1):
                    weight = (1 - abs(y - top - dy)) * (1 - abs(x - left - dx))
                    result[i, j] += weight * at(top + dy, left + dx)
    return result


def maps(n: int, seed: int = 0) -> Any:
    drawn = rng(seed).uniform(-1, 1, (n, 2, 3)) * [1, 1, 5] + [0, 0, 3]
    return np.rint(drawn * 65536).astype(np.int64)


@pytest.mark.parametrize("function", [blend, blend_numpy])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "size"), [((20, 7, 9, 1), (7, 9)), ((9, 6, 4, 3), (3, 8))])
def test_blend_is_bilinear_interpolation(
    function: Callable[..., Any], dtype: Any, shape: tuple[int, ...], size: tuple[int, int]
) -> None:
    images, where = batch(*shape, dtype=dtype), maps(shape[0])
    reference = np.stack([exact(a, m, size, 4) for a, m in zip(images, where, strict=True)])
    fast = function(images, size, where, 4)
    # Bytes: rounding by a half, and fractions cut to eight bits on both axes.
    bound = {np.uint8: 0.5 + 2 * 255 / 256, np.float32: 1e-5, np.float64: 1e-12}[dtype]
    assert np.abs(fast - reference).max() <= bound
    assert fast.std() > 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_two_paths_agree(dtype: Any, channels: int) -> None:
    images = batch(67, 8, 5, channels, dtype=dtype)
    images.setflags(write=False)
    places = rng(1).integers(-9, 10, (67, 2))
    flips = rng(2).random(67) < 0.5
    for size in ((8, 5), (3, 11), (13, 2)):
        reference = cut_out_numpy(images, size, places, flips, 6)
        np.testing.assert_array_equal(cut_out(images, size, places, flips, 6), reference)
        reference = blend_numpy(images, size, maps(67), 6)
        fast = blend(images, size, maps(67), 6)
        if dtype == np.uint8:
            np.testing.assert_array_equal(fast, reference)
        else:
            tolerance = 64 * np.finfo(dtype).eps
            np.testing.assert_allclose(fast, reference, rtol=0, atol=tolerance * 10)


def test_many_images_go_through_the_numpy_path_in_parts() -> None:
    images = batch(600, 28, 26, 1)
    reference = blend_numpy(images, (28, 26), maps(600), 0)
    np.testing.assert_array_equal(blend(images, (28, 26), maps(600), 0), reference)


def test_small_turn_and_scale_stay_near_the_image_and_a_half_turn_is_exact() -> None:
    image = batch(1, 9, 12, dtype=np.float64)
    maps_ = Augment(rotate=180)._maps(
        np.array([[0, 0, 1.0, 0.5, 0]]), np.zeros((1, 2)), np.zeros(1, bool), (9, 12)
    )
    turned = blend_numpy(image[..., np.newaxis], (9, 12), maps_, 0)[0, :, :, 0]
    np.testing.assert_allclose(turned, image[0, ::-1, ::-1], atol=1e-3)

    y, x = np.mgrid[:41, :31].astype(np.float64)
    plane = (2 * (y - 20) + 3 * (x - 15))[np.newaxis]
    scaled = Augment(scale=0.25)(np.repeat(plane, 50, axis=0), rng())[:, 15:26, 10:21]
    factors = scaled / np.where(plane == 0, np.nan, plane)[:, 15:26, 10:21]
    each = np.nanmedian(factors, axis=(1, 2))
    np.testing.assert_allclose(np.nanmax(np.abs(factors - each[:, None, None])), 0, atol=1e-3)
    grown = 1 / each
    assert 0.75 <= grown.min() < 0.8
    assert 1.2 < grown.max() <= 1.25


def test_rotation_keeps_within_its_angle() -> None:
    x = np.mgrid[:31, :31][1] - 15.0
    planes = np.repeat(x[np.newaxis], 200, axis=0)
    turned = Augment(rotate=20)(planes, rng())
    sine = turned[:, 16, 15] - turned[:, 15, 15]
    angles = np.degrees(np.arcsin(sine))
    assert -20 <= angles.min() < -18
    assert 18 < angles.max() <= 20
    assert abs(angles.mean()) < 3


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_depend_on_the_seed_alone(settings: dict[str, Any], dtype: Any) -> None:
    images = batch(300, 9, 14, dtype=dtype)
    before = images.copy()
    augment = Augment(**settings)
    reference = augment(images, rng(5))
    np.testing.assert_array_equal(images, before)
    threads = fastcnn.get_num_threads()
    try:
        for n in (1, 2, 3):
            fastcnn.set_num_threads(n)
            np.testing.assert_array_equal(augment(images, rng(5)), reference)
    finally:
        fastcnn.set_num_threads(threads)
    generator = rng(5)
    parts = [augment(images[:77], generator), augment(images[77:], generator)]
    np.testing.assert_array_equal(np.concatenate(parts), reference)
    assert not np.array_equal(augment(images, rng(6)), reference)
    again = Augment(**augment.config())
    np.testing.assert_array_equal(again(images, rng(5)), reference)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_layouts_do_not_matter(settings: dict[str, Any]) -> None:
    augment = Augment(**settings)
    plain = batch(11, 9, 14, 2, dtype=np.float32)
    reference = augment(plain, rng())
    swapped = plain.astype(plain.dtype.newbyteorder())
    for other in (np.asfortranarray(plain), plain[:, ::-1][:, ::-1], swapped):
        result = augment(other, rng())
        np.testing.assert_array_equal(result, reference)
        assert result.flags.c_contiguous
        assert result.dtype == np.float32
    one = augment(plain[..., 0], rng())
    np.testing.assert_array_equal(one, reference[..., 0])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_empty_batch_stays_empty(settings: dict[str, Any]) -> None:
    result = Augment(**settings)(np.empty((0, 9, 14, 3), np.uint8), rng())
    height, width = settings.get("crop", (9, 14))
    assert result.shape == (0, height, width, 3)


def test_centred_is_the_middle() -> None:
    images = batch(3, 9, 8)
    np.testing.assert_array_equal(Augment(crop=(4, 2)).centred(images), images[:, 2:6, 3:5])
    np.testing.assert_array_equal(Augment(shift=1, rotate=9).centred(images), images)
    wide = Augment(crop=(9, 10), fill=3).centred(images)
    np.testing.assert_array_equal(wide[:, :, 1:9], images)
    assert (wide[:, :, [0, 9]] == 3).all()


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "numba" else found(name)
import numpy as np
import fastcnn
from fastcnn.data.augmentation import Augment
assert "numba" not in fastcnn.engines()
images = np.random.default_rng(0).integers(0, 256, (40, 9, 14)).astype(np.uint8)
for settings in (dict(shift=2, flip=True), dict(shift=1, rotate=10, scale=0.1, flip=True)):
    print(Augment(**settings)(images, np.random.default_rng(0)).tobytes().hex())
"""


def test_without_numba_the_same_bytes() -> None:
    printed = run([sys.executable, "-c", WITHOUT_NUMBA], check=True).stdout.split()
    images = rng().integers(0, 256, (40, 9, 14)).astype(np.uint8)
    settings = {"shift": 2, "flip": True}, {"shift": 1, "rotate": 10, "scale": 0.1, "flip": True}
    for one, hex_ in zip(settings, printed, strict=True):
        assert Augment(**one)(images, rng()).tobytes().hex() == hex_


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"shift": 1.5}, TypeError, "shift must be whole pixels, one number or two, got 1.5"),
        ({"shift": -1}, ValueError, "shift must be from 0 to 1048576 pixels, got -1"),
        ({"shift": (1, 2, 3)}, ValueError, "shift must be one or two numbers of pixels"),
        ({"shift": True}, TypeError, "shift must be whole pixels"),
        ({"crop": 0}, ValueError, "crop must be from 1 to"),
        ({"crop": (3, "4")}, TypeError, "crop must be whole pixels"),
        ({"rotate": -1}, ValueError, "rotate must be from 0 to 180 degrees, got -1"),
        ({"rotate": "9"}, TypeError, "rotate must be a number, got '9'"),
        ({"rotate": float("nan")}, ValueError, "rotate must be finite, got nan"),
        ({"scale": 1}, ValueError, "scale must be at least 0 and below 1, got 1"),
        ({"scale": -0.1}, ValueError, "scale must be at least 0 and below 1, got -0.1"),
        ({"flip": 1}, TypeError, "flip must be True or False, got 1"),
        ({"fill": float("inf")}, ValueError, "fill must be finite, got inf"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Augment(**settings)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 3, 4), np.int64), TypeError, "images must be of uint8, float32 or float64"),
        (np.zeros((3, 4), np.uint8), ValueError, r"images must have the shape \(N, H, W\)"),
        (np.zeros((2, 0, 4), np.uint8), ValueError, "with at least one pixel"),
        ("digits", TypeError, "images must be of uint8"),
    ],
)
def test_bad_images(images: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Augment(shift=1)(images, rng())


def test_bad_generator_and_fill() -> None:
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator, got 0"):
        Augment()(np.zeros((1, 2, 3), np.uint8), 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fill must be an integer from 0 to 255 for bytes"):
        Augment(fill=-0.5)(np.zeros((1, 2, 3), np.uint8), rng())


def test_fixed_point_is_the_same_in_both_paths() -> None:
    from fastcnn.engine.numba.elementwise import augmentation as compiled

    assert augmentation._FRACTION_BITS == compiled.FRACTION_BITS


@pytest.mark.parametrize("more", [{}, {"rotate": 1e-9}, {"crop": (1, 2)}], ids=str)
def test_half_of_the_images_are_mirrored(more: dict[str, Any]) -> None:
    count = 40_000
    images = np.broadcast_to(np.array([[0, 255]], np.uint8), (count, 1, 2))
    mirrored = (Augment(flip=True, **more)(images, rng())[:, 0, 0] > 127).sum()
    assert abs(mirrored / count - 0.5) < 5 * 0.5 / count**0.5  # five standard deviations


@pytest.mark.parametrize("shift", [1, (2, 0), (0, 3)])
def test_each_shift_is_as_likely(shift: Any) -> None:
    count = 40_000
    image = np.zeros((9, 9), np.uint8)
    image[4, 4] = 1
    moved = Augment(shift=shift)(np.broadcast_to(image, (count, 9, 9)), rng())
    down, right = (shift, shift) if isinstance(shift, int) else shift
    places = moved.sum(axis=0, dtype=np.int64)
    window = places[4 - down : 5 + down, 4 - right : 5 + right]
    assert window.sum() == count
    share = 1 / window.size
    assert np.abs(window / count - share).max() < 5 * (share * (1 - share) / count) ** 0.5


@pytest.mark.parametrize("crop", [(2, 3), (3, 2), (5, 8), 9])
def test_the_middle_of_an_image_that_is_not_square(crop: Any) -> None:
    images = np.arange(2 * 5 * 8, dtype=np.uint8).reshape(2, 5, 8) + 1
    height, width = (crop, crop) if isinstance(crop, int) else crop
    padded = np.pad(images, ((0, 0), (9, 9), (9, 9)))
    top, left = 9 + (5 - height) // 2, 9 + (8 - width) // 2
    expected = padded[:, top : top + height, left : left + width]
    np.testing.assert_array_equal(Augment(crop=crop).centred(images), expected)


def test_the_parts_of_a_map_are_drawn_apart() -> None:
    augment = Augment(shift=20, rotate=90, scale=0.5, flip=True)
    draws = rng().random((20_000, 5))
    places = augment._places(draws, (50, 60), (50, 60))
    maps = augment._maps(draws, places, draws[:, 4] < 0.5, (50, 60)) / (1 << 16)
    cosine, sine = maps[:, 0, 0], -maps[:, 0, 1]
    mirror = np.sign(maps[:, 1, 0] * sine)
    figures = np.array([*places.T, np.arctan2(sine, cosine), 1 / np.hypot(sine, cosine), mirror])
    correlation = np.corrcoef(figures) - np.eye(5)
    assert np.abs(correlation).max() < 5 / 20_000**0.5
    assert np.ptp(figures, axis=1).tolist() == pytest.approx([40, 40, np.pi, 1, 2], rel=0.01)
