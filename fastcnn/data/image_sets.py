"""Images of one's own: a folder for each class, as arrays or read while a training runs.

Pictures may have any sizes and forms. Each becomes an image of one size and colour, in the same way
as ``fastcnn predict`` prepares a picture, so a net sees in prediction what it saw in training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.arguments import Array
from fastcnn.core.capacity import affordable
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, generator, truth
from fastcnn.data.array_files import DatasetError
from fastcnn.data.image_cache import ImageCache, cached
from fastcnn.data.on_demand import Samples, SamplesOnDemand
from fastcnn.data.picture_folders import class_folders, pictures_in
from fastcnn.data.picture_reading import Reading, in_threads, progress_bar, read_picture
from fastcnn.data.pictures import ENDINGS, PictureError
from fastcnn.data.scaling import warn

Color = Literal["rgb", "gray"]

CHANNELS = {"rgb": 3, "gray": 1}
_LISTED = 10  # broken files in a message


class _Source(NamedTuple):
    """Where images come from.

    Attributes:
        files: the paths of the pictures, an array of objects.
        size: (H, W) of the images.
        channels: 1 or 3.
        cache: holds the images, or None; its rows are those of the pictures.
        rows: the row of each picture in the cache.
    """

    files: NDArray[np.object_]
    size: tuple[int, int]
    channels: int
    cache: ImageCache | None
    rows: NDArray[np.int64]

    def subset(self, part: slice | Array) -> _Source:
        return self._replace(files=self.files[part], rows=self.rows[part])

    def read(self, workers: int) -> NDArray[np.uint8]:
        """All images, read by so many threads."""
        if self.cache is not None:
            return self.cache.read(self.rows)
        images = np.empty((len(self.files), *self.size, self.channels), np.uint8)

        def read(i: int) -> None:
            images[i] = read_picture(self.files[i], self.size, self.channels)

        for _ in in_threads(read, range(len(images)), workers):
            pass
        return images


class LazyImages(SamplesOnDemand):
    """Images that are read from their files when they are needed, by several threads.

    Args:
        source: the files, or the cache that holds their images.
        workers: number of threads that read.
        converts: functions of images (n, H, W, C) that are applied to what is read.
    """

    def __init__(
        self, source: _Source, workers: int, converts: tuple[Callable[[Array], Array], ...] = ()
    ) -> None:
        self._source, self.workers, self._converts = source, workers, converts
        one = np.zeros((1, *source.size, source.channels), np.uint8)
        for convert in converts:
            one = convert(one)
        self.shape, self.dtype = (len(self), *one.shape[1:]), one.dtype

    @classmethod
    def of_files(
        cls,
        files: Sequence[str],
        size: tuple[int, int],
        channels: int,
        workers: int,
        cache: ImageCache | None = None,
    ) -> LazyImages:
        """The images of these files."""
        paths: NDArray[np.object_] = np.empty(len(files), object)
        paths[:] = files
        return cls(_Source(paths, size, channels, cache, np.arange(len(files))), workers)

    @property
    def has_cache(self) -> bool:
        """Whether the images come from a cache, so that reading decodes nothing."""
        return self._source.cache is not None

    def __len__(self) -> int:
        return len(self._source.files)

    def __getitem__(self, part: slice | int | Array) -> Array:
        if isinstance(part, int | np.integer):
            number = range(len(self))[part]
            image: Array = self.read(slice(number, number + 1))[0]
            return image
        return self.read(part, self.workers)

    def read(self, part: slice | Array, workers: int = 1) -> Array:
        """Images of this part, read by so many threads; ``PictureError`` for a broken file."""
        images: Array = self._source.subset(part).read(workers)
        for convert in self._converts:
            images = convert(images)
        return images

    def then(self, convert: Callable[[Array], Array]) -> LazyImages:
        """The same images, converted once more."""
        return LazyImages(self._source, self.workers, (*self._converts, convert))

    def subset(self, part: slice | Array) -> LazyImages:
        """Some of the images, not read yet."""
        return LazyImages(self._source.subset(part), self.workers, self._converts)


class ImageSet:
    """Images with the numbers and names of their classes, for ``fit``, ``evaluate``, ``predict``.

    ``images, labels = image_set`` gives the two arrays alone.

    Attributes:
        images: (N, H, W, C) bytes, or :class:`LazyImages` that read them when they are needed.
        labels: (N,) int64.
        classes: the names of the classes, in the order of their numbers.
        files: the path of each image.
        broken: what was wrong with each file that could not be read.
    """

    def __init__(
        self,
        images: Samples,
        labels: NDArray[np.int64],
        classes: tuple[str, ...],
        files: tuple[str, ...],
        broken: tuple[str, ...] = (),
    ) -> None:
        self.images, self.labels, self.classes = images, labels, classes
        self.files, self.broken = files, broken

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.images, self.labels))

    def __repr__(self) -> str:
        sort = "read when needed" if isinstance(self.images, LazyImages) else "in memory"
        return (
            f"ImageSet({len(self):,} images of {self.images.shape[1:]}, {sort}, "
            f"{len(self.classes)} classes: {quoted(list(self.classes))})"
        )

    def subset(self, rows: Array) -> ImageSet:
        """The images of these rows, an array of indices or of booleans."""
        rows = np.arange(len(self))[rows]
        files = tuple(self.files[row] for row in rows)
        return ImageSet(some_of(self.images, rows), self.labels[rows], self.classes, files)

    def split(self, share: float, seed: int | None = 0) -> tuple[ImageSet, ImageSet]:
        """Two sets: one to train on, and one with this share of each class, drawn at random.

        Raises ``ValueError`` where ``share`` is not between 0 and 1, or a set would be empty.

        >>> labels = np.repeat([0, 1], [12, 8])
        >>> images = ImageSet(np.zeros((20, 2, 3, 1), np.uint8), labels, ("a", "b"), ("",) * 20)
        >>> [len(part) for part in images.split(0.25)]
        [15, 5]
        """
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ValueError(f"share must be above 0 and below 1, got {quoted(share)}")
        rng, held_out = generator("seed", seed), np.zeros(len(self), bool)
        for label in range(len(self.classes)):
            rows = rng.permutation(np.flatnonzero(self.labels == label))
            held_out[rows[: round(len(rows) * share)]] = True
        if held_out.all() or not held_out.any():
            raise ValueError(f"share={share} of {len(self)} images leaves a set without any")
        return self.subset(~held_out), self.subset(held_out)


def some_of(images: Samples, part: slice | Array) -> Samples:
    """Some rows of images; those that are read when needed are not read yet.

    >>> some_of(np.arange(5), slice(-2, None))
    array([3, 4])
    """
    return images.subset(part) if isinstance(images, LazyImages) else images[part]


def load_images(
    folder: str | os.PathLike[str],
    size: int | tuple[int, int],
    color: Color = "rgb",
    *,
    classes: Sequence[str] | None = None,
    lazy: bool = False,
    cache: str | os.PathLike[str] | None = None,
    broken: Literal["report", "raise"] = "report",
    check: bool = True,
    workers: int | None = None,
    progress: bool = True,
) -> ImageSet:
    """Images of a folder with one folder inside for each class.

    PNG, JPEG, GIF (the first frame), BMP and WebP files of any size are mixed freely. Of each the
    middle is cut out in the proportions of ``size`` and scaled. Pictures are turned upright as
    their camera noted (EXIF). Transparent pixels become white. Palettes and CMYK become RGB.
    16 bits become 8: the values of a grey picture are divided alike, by the smallest of 8, 10, 12,
    14 and 16 bits that holds them.

    Args:
        folder: its folders are the classes, numbered from 0 in the order of their names. Other
            files, and names that begin with a dot, are ignored.
        size: (H, W) of the images, or the side of square ones.
        color: "rgb" for three channels, "gray" for one.
        classes: the names of the classes in the order of their numbers, such as those of a training
            set or of ``model.classes``; a folder of another name is an error. None means the
            folders' names.
        lazy: whether files are read when a training or a prediction needs them, by threads that
            work ahead of it. Then a set that is larger than the memory trains. Augmentations run in
            these threads too. The results are the same for any number of threads.
        cache: a folder for the images in their final size, or None. The first call reads all
            pictures and writes the images into one file there, N·H·W·C bytes. Later calls and all
            epochs read that file, which takes a small part of the time of decoding. A picture whose
            size or time of change differs, and a new one, is read again; so is one that changed
            less than two seconds before it was read, because its time may then stay the same.
        broken: "report" leaves out files that cannot be read, and tells all of them in one
            :class:`fastcnn.InputWarning` at the end; "raise" ends with a ``PictureError`` for the
            first one.
        check: with ``lazy``, whether each file is read once before, so that broken files are known.
            Without it a broken file ends the training that meets it. A cache needs the check.
        workers: number of threads that read; None means one for each core, at most 8.
        progress: whether a terminal shows a bar.

    Returns:
        The images with their labels, as an :class:`ImageSet`: ``model.fit(images)`` trains on them,
        and then knows the names of the classes.

    Raises:
        FileNotFoundError: there is no such folder.
        DatasetError: there are no pictures, or a class is not among ``classes``.
        PictureError: a file is broken, with ``broken="raise"``, or all files are.
        MemoryError: the images do not fit into the machine's memory, which ``lazy=True`` avoids.
        TypeError, ValueError: an argument of another type or value.
        OSError: the cache cannot be written, or the disk is too full for it.
        ImportError: Pillow is not installed.

    Example:
        >>> import tempfile, PIL.Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, shade, ending in (("dark", 0, "png"), ("light", 255, "bmp")):
        ...         os.mkdir(f"{folder}/{name}")
        ...         PIL.Image.new("L", (50, 40), shade).save(f"{folder}/{name}/1.{ending}")
        ...     images = load_images(folder, size=(8, 6), color="gray")
        >>> images.images.shape, images.labels, images.classes
        ((2, 8, 6, 1), array([0, 1]), ('dark', 'light'))
    """
    sides = checked_size(size)
    _check_choices(color, broken)
    threads = min(os.cpu_count() or 1, 8) if workers is None else count("workers", workers)
    lazy, check, progress = truth("lazy", lazy), truth("check", check), truth("progress", progress)
    _check_cache(cache, check)
    names, files, labels = _files_of(Path(folder), classes)
    if not lazy:
        _check_memory((len(files), *sides, CHANNELS[color]))
    reading = Reading(files, sides, CHANNELS[color], threads, broken == "raise")
    images = _images(reading, Path(folder), lazy, cache, check, progress)
    result = ImageSet(images, labels, names, tuple(files))
    return _without_broken(result, reading.errors) if reading.errors else result


def _check_choices(color: str, broken: str) -> None:
    if color not in CHANNELS:
        raise ValueError(f'color must be "rgb" or "gray", got {quoted(color)}')
    if broken not in ("report", "raise"):
        raise ValueError(f'broken must be "report" or "raise", got {quoted(broken)}')


def _check_cache(cache: object, check: bool) -> None:
    if cache is not None and not check:
        raise ValueError("check must be True with a cache, which holds what the check reads")


def _check_memory(shape: tuple[int, ...]) -> None:
    """Raise ``MemoryError`` for images of bytes that do not fit into the machine's memory."""
    try:
        affordable("images", shape, np.uint8)
    except MemoryError as error:
        raise MemoryError(f"{error}; lazy=True reads them while a training runs") from None


def _images(
    reading: Reading,
    root: Path,
    lazy: bool,
    cache: str | os.PathLike[str] | None,
    check: bool,
    progress: bool,
) -> Samples:
    """The images of all files, where those of broken ones are undefined."""
    numbers = range(len(reading.files))
    with progress_bar(len(numbers), progress) as advance:
        if cache is None and not lazy:
            images = np.empty((len(numbers), *reading.shape), np.uint8)
            reading.read(numbers, images, advance)
            return images
        if cache is None and check:
            reading.read(numbers, None, advance)
        store = None if cache is None else cached(reading, root, cache, advance)
    of_files = LazyImages.of_files(
        reading.files, reading.size, reading.channels, reading.workers, store
    )
    return of_files if lazy else of_files[:]


def _without_broken(images: ImageSet, errors: dict[int, str]) -> ImageSet:
    """The set without the files that have errors, about which the user is warned."""
    numbers = sorted(errors)
    if len(numbers) == len(images):
        total = f"{len(images):,} pictures"
        raise PictureError(f"none of the {total} can be read: {errors[numbers[0]]}")
    good = np.ones(len(images), bool)
    good[numbers] = False
    result = images.subset(good)
    result.broken = tuple(errors[number] for number in numbers)
    _report(result.broken, len(images))
    return result


def checked_size(size: object) -> tuple[int, int]:
    """The argument ``size`` as (H, W); ``TypeError`` or ``ValueError`` for anything else.

    >>> checked_size(32), checked_size((3, 5))
    ((32, 32), (3, 5))
    """
    if isinstance(size, tuple | list):
        if len(size) != 2:
            raise ValueError(f"size must be a side or (height, width), got {quoted(size)}")
        return count("size", size[0]), count("size", size[1])
    side = count("size", size)
    return side, side


def _files_of(
    folder: Path, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str], NDArray[np.int64]]:
    """The names of the classes, the paths of the pictures, and the class of each."""
    folders = class_folders(folder)
    names = tuple(one.name for one in folders) if classes is None else tuple(map(str, classes))
    if unknown := [one.name for one in folders if one.name not in names]:
        raise DatasetError(
            f"{folder} has the class {unknown[0]!r}, which is not among classes, {quoted(names)}"
        )
    files, labels = list[str](), list[int]()
    for one in folders:
        paths = pictures_in(one)
        files += map(str, paths)
        labels += [names.index(one.name)] * len(paths)
    if not files:
        raise DatasetError(
            f"{folder} has no folder with pictures in it, {', '.join(ENDINGS)}; pictures belong "
            f"into a folder for each class, {folder}/CLASS/picture.png"
        )
    return names, files, np.array(labels, np.int64)


def _report(broken: tuple[str, ...], total: int) -> None:
    ending = f"\n… and {len(broken) - _LISTED:,} more" if len(broken) > _LISTED else ""
    warn(
        f"{len(broken):,} of {total:,} pictures cannot be read and are left out:\n"
        + "\n".join(broken[:_LISTED])
        + ending
    )
