"""Folders of pictures by class, ``FOLDER/CLASS/picture.png``, as for torchvision's ImageFolder.

All pictures must have one size, unless the caller names a size: nothing is scaled silently.
"""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastcnn.data.array_files import MAX_BYTES, DatasetError, Images, Labels
from fastcnn.data.pictures import ENDINGS, picture, size_and_channels

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
TEST_SHARE = 6
"""If there is no test set, every sixth picture of each class is held out for it."""


class Pictures(NamedTuple):
    """Images (N, H, W) or (N, H, W, 3) of bytes, labels (N,), and the classes' names in order."""

    images: Images
    labels: Labels
    names: tuple[str, ...]


def load_pictures(
    folder: str | os.PathLike[str],
    size: tuple[int, ...] | None = None,
    names: tuple[str, ...] | None = None,
    channels: int | None = None,
) -> Pictures:
    """Picture files in one folder for each class, all of one size.

    :func:`fastcnn.load_images` takes pictures of any sizes.

    Args:
        folder: its folders are the classes, numbered from 0 in the order of their names. Other
            files, and names that begin with a dot, are ignored.
        size: (H, W) of the result. The middle of each picture is cut out in these proportions and
            scaled. None means that all pictures must have one size.
        names: the classes, such as those of the training set; another class is an error. None means
            the folders' names.
        channels: 1 for grey or 3 for colours. None means grey if all pictures are grey, otherwise
            colours. Transparent pixels become white.

    Raises:
        FileNotFoundError: there is no such folder.
        DatasetError: there are no pictures, pictures of different sizes, more than 1 GiB of pixels,
            or a class that is not among ``names``.
        PictureError: a picture is damaged.
        ImportError: Pillow is not installed.

    Example:
        >>> import tempfile, PIL.Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, shade in (("dark", 0), ("light", 255)):
        ...         os.mkdir(f"{folder}/{name}")
        ...         PIL.Image.new("L", (5, 4), shade).save(f"{folder}/{name}/1.png")
        ...     images, labels, names = load_pictures(folder)
        >>> images.shape, labels, names
        ((2, 4, 5), array([0, 1]), ('dark', 'light'))
    """
    root = Path(folder)
    classes = class_folders(root)
    if names is None:
        names = tuple(one.name for one in classes)
    elif unknown := [one.name for one in classes if one.name not in names]:
        raise DatasetError(f"{root} has the class {unknown[0]!r}, which the training set lacks")
    files = [(path, names.index(one.name)) for one in classes for path in pictures_in(one)]
    if not files:
        raise DatasetError(f"{root} has no folders with pictures")
    shape = _shape(files, size, channels)
    total = len(files) * prod(shape)
    if total > MAX_BYTES:
        raise DatasetError(f"{root} holds {total:,} bytes of pixels, more than {MAX_BYTES:,}")
    images = np.empty((len(files), *shape), np.uint8)
    for i, (path, _) in enumerate(files):
        images[i] = picture(path, size, 3 if len(shape) == 3 else 1)
    return Pictures(images, np.array([label for _, label in files], np.int64), names)


def _shape(
    files: list[tuple[Path, int]], size: tuple[int, ...] | None, channels: int | None
) -> tuple[int, ...]:
    """The shape of the array of all images. Their pixels are not read."""
    first, first_size, colours = files[0][0], None, 1
    for path, _ in files:
        own, own_channels = size_and_channels(path)
        colours = max(colours, own_channels)
        if first_size is None:
            first_size = own
        elif own != first_size and size is None:
            raise DatasetError(
                f"{path} has {own[1]}×{own[0]} pixels, but {first} {first_size[1]}×"
                f"{first_size[0]}; size=(height, width) scales all pictures alike, and so does "
                f"`fastcnn train --images {folder_of(first)}`"
            )
    assert first_size is not None
    height, width = first_size if size is None else size
    return (height, width) if (channels or colours) == 1 else (height, width, 3)


def folder_of(picture_path: Path) -> Path:
    """The folder of the classes that a picture lies in."""
    return picture_path.parent.parent


def class_folders(folder: Path) -> list[Path]:
    """The folders inside that hold pictures, by name; ``FileNotFoundError`` without the folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of pictures: {folder}")
    inside = sorted(one for one in folder.iterdir() if one.is_dir() and one.name[0] != ".")
    return [one for one in inside if any(map(_is_picture, one.iterdir()))]


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a class, by name."""
    return sorted(filter(_is_picture, folder.iterdir()))


def _is_picture(path: Path) -> bool:
    return path.name[0] != "." and path.suffix.lower() in ENDINGS


def sets_of(folder: Path) -> tuple[Path, Path | None] | None:
    """The folders of the training and the test pictures; None if there are no pictures.

    The second is None if there is no folder for tests.
    """
    for train in TRAIN_FOLDERS:
        if (folder / train).is_dir() and class_folders(folder / train):
            tests = [folder / test for test in TEST_FOLDERS if (folder / test).is_dir()]
            return folder / train, next((one for one in tests if class_folders(one)), None)
    return (folder, None) if class_folders(folder) else None


def load_sets(
    folder: Path, size: tuple[int, ...] | None = None, classes: tuple[str, ...] | None = None
) -> tuple[tuple[Images, Labels], tuple[Images, Labels], tuple[str, ...]]:
    """Training and test set of a folder of :func:`sets_of`, and the classes' names.

    Without a test set, the sixth, twelfth, … picture of each class is held out as one.
    """
    sets = sets_of(folder)
    assert sets is not None
    train, test = sets
    images, labels, names = load_pictures(train, size, classes)
    if test is not None:
        shape = images.shape[1:]
        channels = 1 if images.ndim == 3 else 3
        test_set = load_pictures(test, size, names, channels)
        if test_set.images.shape[1:] != shape:
            raise DatasetError(
                f"{test} has pictures of {test_set.images.shape[1:]} pixels, but {train} of {shape}"
            )
        return (images, labels), (test_set.images, test_set.labels), names
    for_test = np.zeros(len(labels), bool)
    for label in range(len(names)):
        for_test[np.flatnonzero(labels == label)[TEST_SHARE - 1 :: TEST_SHARE]] = True
    if not for_test.any():
        raise DatasetError(
            f"{folder} has no folder test, and fewer than {TEST_SHARE} pictures of each class, of "
            f"which one in {TEST_SHARE} would be held out"
        )
    return (images[~for_test], labels[~for_test]), (images[for_test], labels[for_test]), names
