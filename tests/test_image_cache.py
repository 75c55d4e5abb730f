"""Images of picture files in a cache: the same images, read anew where a picture changed."""

from __future__ import annotations

import errno
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fastcnn
from fastcnn import Augment, InputWarning, Sequential
from fastcnn.cli import app
from fastcnn.core.arguments import Array
from fastcnn.data import image_cache, picture_reading, read_ahead
from fastcnn.data.image_sets import ImageSet, LazyImages
from fastcnn.data.pictures import PictureError
from fastcnn.data.read_ahead import parts_ahead
from fastcnn.layers import Dense, Flatten
from fastcnn.models.model import Model
from fastcnn.recipes import training
from fastcnn.recipes.report import command_of
from fastcnn.train.callbacks import StopTraining

SIZE = (7, 5)
TIMES = count()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six pictures each."""
    rng, root = np.random.default_rng(0), tmp_path / "pictures"
    for k, name in enumerate(("a", "b")):
        (root / name).mkdir(parents=True)
        for i in range(6):
            save(root / name / f"{i}.{'png' if i % 2 else 'jpg'}", rng, 20 + i + k)
    return root


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded."""
    names = list[str]()
    read = picture_reading.picture

    def picture(path: Any, *arguments: Any) -> Any:
        names.append(Path(path).name)
        return read(path, *arguments)

    monkeypatch.setattr(picture_reading, "picture", picture)
    return names


def save(path: Path, rng: np.random.Generator, side: int) -> None:
    Image.fromarray(rng.integers(0, 255, (side, 30, 3), dtype=np.uint8)).save(path)
    changed(path)


def changed(path: Path) -> None:
    """Set the time of a change to a later one than of any file before, long ago."""
    os.utime(path, ns=(0, 10**18 + next(TIMES)))


def load(folder: Path, lazy: bool = True, **more: Any) -> ImageSet:
    cache = folder.parent / "cache"
    return fastcnn.load_images(folder, SIZE, lazy=lazy, cache=cache, progress=False, **more)


def file_of(folder: Path) -> Path:
    (file,) = (folder.parent / "cache").iterdir()
    return file


@pytest.mark.parametrize("lazy", [True, False])
def test_later_calls_and_epochs_decode_nothing(
    folder: Path, decoded: list[str], lazy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "_BLOCK", 5 * 105)  # five images at a time
    plain = fastcnn.load_images(folder, SIZE, progress=False)
    decoded.clear()
    first = load(folder, lazy)
    assert len(decoded) == 12
    decoded.clear()
    second = load(folder, lazy)
    for images in (first, second):
        assert isinstance(images.images, LazyImages) == lazy
        assert (np.asarray(images.images) == plain.images).all()
        assert images.files == plain.files
    some = second.images[np.array([7, 8, 3, 3, 11, 0])]
    assert (some == plain.images[np.array([7, 8, 3, 3, 11, 0])]).all()
    assert second.images[:0].shape == (0, *SIZE, 3)
    part = second.split(0.5)[1]
    rows = [plain.files.index(name) for name in part.files]
    assert (np.asarray(part.images) == plain.images[np.array(rows)]).all()
    models = [Sequential([Flatten(), Dense(2)], (*SIZE, 3), seed=0, engine="im2col") for _ in "ab"]
    uncached = fastcnn.load_images(folder, SIZE, lazy=lazy, check=False, progress=False)
    of_fit: dict[str, Any] = {"epochs": 2, "batch_size": 5, "augment": Augment(1), "seed": 3}
    decoded.clear()
    models[0].fit(second, verbose=0, **of_fit)
    assert not decoded
    models[1].fit(uncached, verbose=0, **of_fit)
    assert (models[0].get_weights()[0] == models[1].get_weights()[0]).all()
    assert file_of(folder).name.startswith("7x5x3-")


def test_changed_new_and_lost_pictures(folder: Path, decoded: list[str]) -> None:
    rng = np.random.default_rng(5)
    load(folder)
    save(folder / "b" / "4.jpg", rng, 44)
    save(folder / "a" / "new.png", rng, 33)
    (folder / "a" / "0.jpg").unlink()
    status = (folder / "b" / "1.png").stat()  # other contents of the same length, at another time
    pixels = np.asarray(Image.open(folder / "b" / "1.png"))
    Image.fromarray(pixels[::-1]).save(folder / "b" / "1.png")
    with (folder / "b" / "1.png").open("r+b") as file:
        file.truncate(max(status.st_size, file.seek(0, os.SEEK_END)))
    os.utime(folder / "b" / "1.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    decoded.clear()
    images = load(folder)
    assert sorted(decoded) == ["1.png", "4.jpg", "new.png"]
    assert (np.asarray(images.images) == fastcnn.load_images(folder, SIZE).images).all()
    decoded.clear()
    assert len(load(folder)) == 12
    assert not decoded


def test_broken_pictures_are_remembered(folder: Path, decoded: list[str]) -> None:
    (folder / "b" / "2.jpg").write_bytes(b"\xff\xd8 no picture")
    changed(folder / "b" / "2.jpg")
    plain = fastcnn.load_images(folder, SIZE, check=True, progress=False, broken="report")
    for _ in range(2):
        decoded.clear()
        with pytest.warns(InputWarning, match="1 of 12 pictures cannot be read") as record:
            images = load(folder)
        assert len(record) == 1
        assert images.broken == plain.broken
        assert (np.asarray(images.images) == plain.images).all()
    assert not decoded
    with pytest.raises(PictureError, match=r"2\.jpg is no PNG"):
        load(folder, broken="raise")
    shutil.rmtree(folder.parent / "cache")
    with pytest.raises(PictureError, match=r"2\.jpg is no PNG"):
        load(folder, broken="raise")
    assert not list((folder.parent / "cache").iterdir())  # nothing half written


def test_errors_of_the_system_are_not_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = picture_reading.picture

    def refused(path: Any, *arguments: Any) -> Any:
        if Path(path).name == "3.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, *arguments)

    monkeypatch.setattr(picture_reading, "picture", refused)
    with pytest.warns(InputWarning, match="2 of 12 pictures"):
        load(folder)
    monkeypatch.undo()
    images = load(folder)
    assert (np.asarray(images.images) == fastcnn.load_images(folder, SIZE).images).all()


@pytest.mark.parametrize(("age", "times"), [(0.0, 2), (1.5, 2), (60.0, 1), (-60.0, 1)])
def test_a_picture_that_changed_just_before_is_read_anew(
    folder: Path, decoded: list[str], age: float, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stamp = folder / "b" / "new.png", 15 * 10**17
    monkeypatch.setattr(image_cache, "time_ns", lambda: stamp + int(age * 1e9))
    for shade in (10, 200):
        Image.new("RGB", (40, 30), (shade,) * 3).save(path, compress_level=0)
        os.utime(path, ns=(stamp, stamp))  # as a file system with a coarse clock
        images = load(folder)
    assert decoded.count("new.png") == times
    assert images.images[12].max() == (200 if times == 2 else 10)
    decoded.clear()
    load(folder)
    assert decoded == (["new.png"] if times == 2 else [])


def test_another_process_replaces_the_cache_while_it_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fastcnn.load_images(folder, SIZE)
    write, one, other = image_cache.write_whole, folder / "a" / "0.jpg", folder / "a" / "z.jpg"
    calls = list[int]()

    def overtaken(path: Path, blocks: Any) -> None:
        write(path, blocks)
        calls.append(0)
        if len(calls) == 1:  # another process sees another name, and as many pictures
            one.rename(other)
            load(folder)
            other.rename(one)

    monkeypatch.setattr(image_cache, "write_whole", overtaken)
    images = load(folder)
    assert (np.asarray(images.images) == plain.images).all()
    assert images.files == plain.files
    assert len(calls) == 3


def test_sizes_colours_and_folders_have_files_of_their_own(folder: Path) -> None:
    cache = folder.parent / "cache"
    load(folder)
    gray = fastcnn.load_images(folder, SIZE, "gray", cache=cache)
    small = fastcnn.load_images(folder, 3, cache=cache)
    other = shutil.copytree(folder, folder.parent / "others")
    fastcnn.load_images(other, SIZE, cache=cache)
    assert len([*cache.iterdir()]) == 4
    assert gray.images.shape == (12, *SIZE, 1)
    assert small.images.shape == (12, 3, 3, 3)


@pytest.mark.parametrize("damage", ["cut", "longer", "index", "magic", "empty", "sizes", "json"])
def test_a_damaged_cache_is_made_anew(folder: Path, decoded: list[str], damage: str) -> None:
    plain = np.asarray(load(folder).images)
    file = file_of(folder)
    data = bytearray(file.read_bytes())
    pixels = 12 * 105
    if damage == "cut":
        data = data[:-100]
    elif damage == "longer":
        data = data[:pixels] + b"\0" + data[pixels:]
    elif damage == "index":
        data[data.index(b'.png", ', pixels) + 7] ^= 1  # a digit of a picture's size
    elif damage == "magic":
        data[-80] ^= 1
    elif damage == "sizes":
        data[-72:-64] = (2**63).to_bytes(8, "little")
    elif damage == "json":
        text = b'{"settings": "' + image_cache._settings().encode() + b'", "pictures": [[1]]}'
        sizes = 1, *SIZE, 3, len(text)
        digest = image_cache.sha256(text).digest()
        data = data[:105] + text + image_cache._TRAILER.pack(b"fastcnn1", *sizes, digest)
    else:
        data = data[:0]
    file.write_bytes(data)
    decoded.clear()
    assert (np.asarray(load(folder).images) == plain).all()
    assert len(decoded) == 12


def test_another_version_of_pillow_makes_it_anew(
    folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder)
    monkeypatch.setattr("PIL.__version__", "1.2.3")
    decoded.clear()
    load(folder)
    assert len(decoded) == 12


def test_images_of_a_replaced_cache_are_refused(folder: Path) -> None:
    images = load(folder)
    save(folder / "a" / "0.jpg", np.random.default_rng(1), 25)
    assert len(load(folder)) == 12
    with pytest.raises(PictureError, match=r"replaced, because pictures changed; call load_images"):
        images.images[:3]


def test_a_cache_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file = folder.parent / "file"
    a_file.write_text("")
    with pytest.raises(ValueError, match=r"cache must be a folder, got .*, which is a file"):
        fastcnn.load_images(folder, SIZE, cache=a_file)
    (folder.parent / "link").symlink_to(folder.parent / "nowhere")
    with pytest.raises(ValueError, match=r"cache must be a folder, got .*, which is a link to n"):
        fastcnn.load_images(folder, SIZE, cache=folder.parent / "link")
    with pytest.raises(ValueError, match="cache must be the path of a folder, got an empty text"):
        fastcnn.load_images(folder, SIZE, cache="")
    with pytest.raises(TypeError, match="cache must be the path of a folder, or None, got 3"):
        fastcnn.load_images(folder, SIZE, cache=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="check must be True with a cache"):
        load(folder, check=False)
    usage = shutil.disk_usage(folder)._replace(free=500)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="the cache needs 1,260 bytes, and 500 are free") as error:
        load(folder)
    assert error.value.errno == errno.ENOSPC


@pytest.mark.parametrize("task", [1, 500, 1 << 20])
def test_parts_that_a_thread_reads_at_once(
    folder: Path, task: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "_TASK", task)
    images = load(folder).images
    assert isinstance(images, LazyImages)
    parts = [np.array([4, 1]), np.array([], np.int64), slice(9, 12), slice(5, 1, -2)]
    results = [*parts_ahead(images, parts)]
    for part, result in zip(parts, results, strict=True):
        assert (result == images[part]).all()
        assert result.flags.c_contiguous

    def fails(some: Array, number: int) -> Array:
        if number == 2:
            raise RuntimeError("planned")
        return some

    before = list[int]()
    with pytest.raises(RuntimeError, match="planned"):
        before.extend(len(one) for one in parts_ahead(images, parts, fails))
    assert before == [2, 0]


def test_a_read_that_gives_some_of_the_bytes_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load(folder).images
    whole = images[:]

    def some(file: int, part: memoryview, place: int) -> int:
        return os.preadv(file, [part[:50]], place)

    monkeypatch.setattr(image_cache, "_read_at", some)
    assert (images[:] == whole).all()
    monkeypatch.undo()
    monkeypatch.delattr(os, "preadv")
    assert (images[:] == whole).all()


# --- fastcnn train --cache ------------------------------------------------------------------------


@pytest.fixture
def more(folder: Path) -> Path:
    """The folder with so many pictures that some are held out."""
    rng = np.random.default_rng(8)
    for name in ("a", "b"):
        for i in range(10, 20):
            save(folder / name / f"{i}.png", rng, 25)
    return folder


def settings(folder: Path, cache: Path | None = None) -> training.Settings:
    place = None if cache is None else str(cache)
    changes = {"data": str(folder), "color": "rgb", "size": 12, "cache": place}
    return training.settings_for("article", epochs=2, batch_size=3, **changes)


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def weights_of(model: Model) -> bytes:
    return b"".join(one.tobytes() for one in model.get_weights())


def test_a_training_from_a_cache_has_the_same_result(
    more: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = training.train(settings(more))
    for place in (more.parent / "new" / "one", more, more / "a"):
        for pictures, held in ((32, 1000), (0, 1 << 20)):
            monkeypatch.setattr(training, "IN_MEMORY", held)
            decoded.clear()
            result = training.train(settings(more, place))
            assert len(decoded) == pictures
            assert isinstance(result.test_data[0], LazyImages) == (held == 1000)
            assert weights_of(result.model) == weights_of(plain.model)
            assert result.test == plain.test
            assert result.model.preparation == plain.model.preparation
            assert result.model.classes == ("a", "b")


def test_the_command_trains_from_a_cache_and_resumes(
    more: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = more.parent / "model.safetensors", more.parent / "cache"
    words = ("train", "--net", "article", "--images", more, "--size", 12, "--epochs", 2)
    words = (*words, "--batch-size", 3, "--save", model, "--cache", cache)

    class Watch(training._Watch):
        def on_batch_end(self, model: Any, batch: int, logs: dict[str, float]) -> None:
            if batch == 4 and not self.interrupted:
                self.interrupted = True
                raise StopTraining

    Watch.__name__ = "_Watch"
    with monkeypatch.context() as patch:
        patch.setattr(training, "_Watch", Watch)
        assert run(*words).exit_code == 130
    assert len(decoded) == 32
    decoded.clear()
    checkpoint = training.checkpoint_of(model)
    monkeypatch.setattr(training, "IN_MEMORY", 0)
    assert training.settings_of(checkpoint).cache == str(cache)
    assert run("train", "--resume", checkpoint).exit_code == 0
    assert not decoded
    plain = training.train(settings(more))
    assert weights_of(fastcnn.load_model(model)) == weights_of(plain.model)


def test_bad_folders_of_the_command(more: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file, cache = more.parent / "file", more.parent / "cache"
    a_file.write_text("")
    usage = shutil.disk_usage(more)._replace(free=500)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    images = ("--images", more, "--size", 12)
    cases: list[tuple[tuple[object, ...], str]] = [
        ((*images, "--cache", a_file), f"cache must be a folder, got {str(a_file)!r}, which is a"),
        ((*images, "--cache", cache), f"{cache}: the cache needs 13,824 bytes, and 500 are free"),
        (("--cache", cache), "--cache needs --images"),
    ]
    for words, message in cases:
        done = run("train", *words, "--save", more.parent / "model.safetensors")
        assert done.exit_code == 2
        assert done.output.startswith(f"fastcnn: {message}"), done.output
        assert done.output.count("\n") == 1
    assert not [*cache.iterdir()]


def test_the_report_names_the_command_that_repeats_a_training_on_pictures() -> None:
    command = command_of(settings(Path("my pictures"), Path("cache")), shards=4)
    end = "--images 'my pictures' --color rgb --size 12 --cache cache --shards 4"
    assert command.endswith(f" --seed 0 {end}")
    assert "--data" not in command
