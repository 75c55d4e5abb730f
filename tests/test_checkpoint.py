"""Model files, and trainings that go on from them to the same bits."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import net, stripes

import fastcnn
from fastcnn.callbacks import Callback, EarlyStopping, StopTraining
from fastcnn.layers import AvgPool2D, BatchNorm, Conv2D, Dense, Dropout, Flatten, Layer, Residual
from fastcnn.losses import BinaryCrossEntropy, CrossEntropy, MeanSquaredError
from fastcnn.models.sequential import Sequential, load_model
from fastcnn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from fastcnn.schedules import Cosine
from fastcnn.train import checkpoint
from fastcnn.train.checkpoint import ModelFileError


def bits(model: Sequential) -> list[bytes]:
    return [array.tobytes() for array in model.get_weights()]


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The safetensors header as JSON, and the bytes behind it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path: Path, header: dict[str, Any], rest: bytes) -> None:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    Sequential(net(), (9, 8), seed=0).save(path)
    return path


# --- saving and loading ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_as_it_was(tmp_path: Path, dtype: Any) -> None:
    x, y = stripes(20)
    layers: list[Layer] = [
        Conv2D(4, (3, 2), (1, 2), ((0, 1), (2, 0)), kernel_initializer="he_normal"),
        Residual([Conv2D(3, 1, activation="relu")], [AvgPool2D(1), Conv2D(3, 1, use_bias=False)]),
        Flatten(),
        Dense(3),
    ]
    model = Sequential(layers, seed=0, dtype=dtype)
    model.fit(x, y, loss=CrossEntropy(label_smoothing=0.1), verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert bits(again) == bits(model)
    assert repr(again) == repr(model)
    assert repr(again.loss) == repr(model.loss) == "CrossEntropy(label_smoothing=0.1)"
    assert (again.trained_on, again.dtype) == ("uint8", np.dtype(dtype))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.train_on_batch(x, y) == model.train_on_batch(x, y)
    assert bits(again) == bits(model)


@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossEntropy()])
def test_the_loss_is_remembered(tmp_path: Path, loss: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 5)), rng.random((12, 2))
    model = Sequential([Dense(2)], seed=0)
    model.fit(x, y, loss=loss, verbose=0)
    model.save(tmp_path / "m")
    again = load_model(str(tmp_path / "m"))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.evaluate(x, y) == model.evaluate(x, y)


def test_the_file_is_plain_safetensors_with_hwio_weights(saved: Path) -> None:
    from safetensors.numpy import load_file

    arrays = load_file(saved)
    assert {name: a.shape for name, a in arrays.items()} == {
        "layers.0.w": (3, 2, 1, 4), "layers.0.b": (4,), "layers.3.w": (84, 6),
        "layers.3.b": (6,), "layers.4.w": (6, 3), "layers.4.b": (3,),
    }  # fmt: skip
    header, _ = read(saved)
    assert header["__metadata__"]["format"] == "fastcnn model"
    assert header["__metadata__"]["version"] == "1"
    description = json.loads(header["__metadata__"]["model"])
    assert description["layers"][0]["class"] == "Conv2D"
    assert description["bytes"] == "x / 255 - 0.5"


def test_the_same_model_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    # Of four entries in any order, eight times the same by chance: once in 24 ** 8.
    model = fastcnn.load_model(saved)
    for i in range(8):
        model.save(tmp_path / f"{i}.safetensors")
        assert (tmp_path / f"{i}.safetensors").read_bytes() == saved.read_bytes()


def test_a_failed_write_leaves_the_earlier_file_and_no_other(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    model = Sequential(net(), (9, 8), seed=1)
    for failing in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise OSError("the disk is full")

            patch.setattr(os, failing, fail)
            with pytest.raises(OSError, match="the disk is full"):
                model.save(saved)
        assert saved.read_bytes() == before
        assert os.listdir(saved.parent) == [saved.name]
    model.save(saved)
    assert bits(load_model(saved)) == bits(model)
    assert os.listdir(saved.parent) == [saved.name]


def test_who_has_opened_a_file_reads_that_one_whole(saved: Path) -> None:
    # A training that saves between the header and the arrays: the old one or the new one, no mix.
    first, second = load_model(saved), Sequential(net(), (9, 8), seed=1)
    file = checkpoint.read(saved)
    second.save(saved)
    arrays = file.arrays()
    for name, array in first._arrays():
        np.testing.assert_array_equal(arrays[name], array)
    assert bits(load_model(saved)) == bits(second)


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b))[1])
    Sequential(net(), (9, 8)).save(saved)
    assert done[:2] == ["fsync", "replace"]


def test_a_link_stays_one_and_permissions_are_kept(saved: Path) -> None:
    saved.chmod(0o640)
    link = saved.with_name("latest")
    link.symlink_to(saved)
    model = Sequential(net(), (9, 8), seed=2)
    model.save(link)
    assert link.is_symlink()
    assert bits(load_model(saved)) == bits(model)
    assert saved.stat().st_mode & 0o777 == 0o640


# --- files that cannot be used --------------------------------------------------------------------


def test_every_truncation_is_told(saved: Path) -> None:
    data = saved.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match=r"model\.safetensors cannot be loaded: "):
            load_model(saved)


def test_an_edit_anywhere_is_told(saved: Path) -> None:
    data = saved.read_bytes()
    _, rest = read(saved)
    start = len(data) - len(rest)
    places = [*range(0, start, 7), *range(start, len(data), 31), len(data) - 1]
    for place in places:
        spoilt = bytearray(data)
        spoilt[place] ^= 1
        if place < start and not re.sub(rb"\s", b"", spoilt[place : place + 1]):
            continue  # padding of the header
        saved.write_bytes(spoilt)
        with pytest.raises(ModelFileError, match="cannot be loaded: "):
            load_model(saved)


def test_other_files_are_told(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "other"
    save_file({"w": np.zeros(3)}, path)
    with pytest.raises(ModelFileError, match="it holds no model of fastcnn"):
        load_model(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelFileError, match=r"fastcnn\.load_weights.* of PyTorch and Keras"):
        load_model(path)
    path.write_bytes(bytes(7))
    with pytest.raises(ModelFileError, match="truncated, or no safetensors file"):
        load_model(path)
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08pytorch")
    with pytest.raises(ModelFileError, match=r"it is an ONNX file, which fastcnn\.load_onnx reads"):
        load_model(tmp_path / "net.onnx")
    model = Sequential([Dense(2)], (3,))
    for save in (model.save, model.save_checkpoint):
        with pytest.raises(ValueError, match=r"path must not end in \.onnx, .*save_onnx writes"):
            save(tmp_path / "new.onnx")
    assert not (tmp_path / "new.onnx").exists()
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "absent")


Edit = Callable[[dict[str, Any]], object]
EDITS: dict[str, tuple[Edit, str]] = {
    "unknown-layer": (
        lambda m: m["layers"][1].update({"class": "Attention"}),
        "layer 'Attention' is unknown to this version of fastcnn",
    ),
    "private-layer": (lambda m: m["layers"][1].update({"class": "_Pooling"}), "is unknown"),
    "unknown-argument": (lambda m: m["layers"][0]["config"].update(rank=2), "rank"),
    "wrong-argument": (lambda m: m["layers"][0]["config"].update(filters=-1), "filters must be"),
    "no-argument": (lambda m: m["layers"][0]["config"].pop("filters"), "filters"),
    "other-width": (
        lambda m: m["layers"][0]["config"].update(filters=5),
        r"layers.0.w is float32 of shape \(3, 2, 1, 4\), but the architecture needs .* 1, 5\)",
    ),
    "gigantic": (
        lambda m: m["layers"][3]["config"].update(units=10**15),
        r"the architecture needs float32 of shape \(84, 1000000000000000\)",
    ),
    "other-dtype": (lambda m: m.update(dtype="float64"), "but the architecture needs float64"),
    "strange-dtype": (lambda m: m.update(dtype="int8"), "dtype must be"),
    "no-layers": (lambda m: m.pop("layers"), "its architecture: no 'layers'"),
    "layers-text": (
        lambda m: m.update(layers="Dense"),
        "its architecture: layers must be a list, got 'D",
    ),
    "empty": (lambda m: m.update(layers=[]), "layers must hold at least one layer"),
    "one-layer-less": (lambda m: m["layers"].pop(), "the architecture has no array layers.4.b"),
    "one-layer-more": (
        lambda m: m["layers"].append({"class": "Dense", "config": {"units": 2}}),
        "the array layers.5.w is missing",
    ),
    "unfit": (lambda m: m["layers"].pop(2), "layer 2, Dense.*needs vectors"),
    "input-shape": (lambda m: m.update(input_shape=[9, -8, 1]), "input_shape must be at least 1"),
    "loss": (lambda m: m.update(loss={"name": "quartic"}), "loss must be one of"),
    "scaling": (lambda m: m.update(bytes="x / 127"), "its bytes are scaled as 'x / 127'"),
    "trained-on": (lambda m: m.update(trained_on="words"), "its bytes"),
    "number-beyond-floats": (
        lambda m: m["layers"].insert(1, {"class": "Dropout", "config": {"rate": 10**400}}),
        "rate must be a finite number",
    ),
    "window-beyond-integers": (
        lambda m: m["layers"][1]["config"].update(pool_size=10**30),
        "pool_size must be at most 2147483647",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_another_architecture_is_told_before_anything_is_read(
    name: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, text = EDITS[name]
    header, rest = read(saved)
    description = json.loads(header["__metadata__"]["model"])
    edit(description)
    header["__metadata__"]["model"] = json.dumps(description)
    write(saved, header, rest)

    def never(*_: Any) -> None:
        raise AssertionError("arrays were read or drawn")

    monkeypatch.setattr(checkpoint.ModelFile, "arrays", never)
    monkeypatch.setattr(Layer, "build", never)
    with pytest.raises(ModelFileError, match=text):
        load_model(saved)


def test_other_versions_and_nonsense_are_told(saved: Path) -> None:
    header, rest = read(saved)
    for change, text in [
        ({"version": "3"}, "format version '3', and this version of fastcnn reads 1 and 2"),
        ({"format": "pt"}, "it holds no model of fastcnn"),
        ({"model": "{"}, "its architecture: "),
        ({"model": "[" * 100_000}, "its architecture: "),
        ({"model": "3"}, "its architecture is no JSON object"),
    ]:
        write(saved, {**header, "__metadata__": {**header["__metadata__"], **change}}, rest)
        with pytest.raises(ModelFileError, match=re.escape(text)):
            load_model(saved)


def test_an_array_of_another_shape_dtype_or_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "arrays"
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros((0, 4)), "c": np.zeros(6)}
    checkpoint.write(path, {}, arrays)
    assert checkpoint.read(path).arrays()["a"].shape == (2, 3)
    header, rest = read(path)
    for name, shape in (("a", [3, 2]), ("a", [6]), ("a", [2, 3, 1]), ("b", [0, 5]), ("b", [4, 0])):
        edited = {**header, name: {**header[name], "shape": shape}}
        write(path, edited, rest)
        with pytest.raises(ModelFileError, match="its checksum does not fit its contents"):
            checkpoint.read(path).arrays()
    renamed = {**header, "d": header["c"]}
    del renamed["c"]
    for edited in ({**header, "c": {**header["c"], "dtype": "I64"}}, renamed):
        write(path, edited, rest)
        with pytest.raises(ModelFileError, match="its checksum does not fit its contents"):
            checkpoint.read(path).arrays()


def test_a_header_may_have_16_mib_and_no_more(saved: Path) -> None:
    data, limit = saved.read_bytes(), 16 << 20
    (length,) = struct.unpack("<Q", data[:8])
    text, rest = data[8 : 8 + length], data[8 + length :]
    for size in (limit, limit + 8):
        saved.write_bytes(struct.pack("<Q", size) + text.ljust(size) + rest)
        if size == limit:
            load_model(saved)
            continue
        with pytest.raises(ModelFileError, match=r"the header would be 16777224"):
            load_model(saved)


def test_deeply_nested_layers_are_told(saved: Path) -> None:
    header, rest = read(saved)
    description = json.loads(header["__metadata__"]["model"])
    inner = json.dumps(description["layers"][1])
    text = '{"class": "Residual", "config": {"layers": [' * 300 + inner + "]}}" * 300
    description["layers"] = ["HERE"]
    header["__metadata__"]["model"] = json.dumps(description).replace('"HERE"', text)
    write(saved, header, rest)
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        load_model(saved)


# --- resuming -------------------------------------------------------------------------------------


class Interrupted(Callback):
    """Saves and stops after so many epochs and batches."""

    def __init__(self, path: Path, epoch: int, batch: int | None = None) -> None:
        self.path, self.epoch, self.batch, self.at = path, epoch, batch, 0

    def on_epoch_begin(self, model: Sequential, epoch: int) -> None:
        self.at = epoch

    def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
        if self.at == self.epoch and batch == self.batch:
            model.save_checkpoint(self.path)
            raise StopTraining

    def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
        if epoch == self.epoch and self.batch is None:
            model.save_checkpoint(self.path)
            raise StopTraining


def chancy() -> list[Layer]:
    """The tiny net with chance and running statistics in it."""
    first, *rest = net()
    return [first, BatchNorm(), *rest[:-1], Dropout(0.3), rest[-1]]


OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "sgd": lambda: SGD(0.05),
    "momentum": lambda: SGD(Cosine(0.05, warmup=3), momentum=0.9, nesterov=True),
    "adam": lambda: Adam(0.01, weight_decay=0.01, clip_norm=1.0),
    "adamw": lambda: AdamW(Cosine(0.01)),
    "rmsprop": lambda: RMSprop(0.01, momentum=0.5, clip_value=0.1),
}


@pytest.mark.parametrize("where", [(0, None), (1, None), (1, 0), (1, 2), (1, 6)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_training_ends_in_the_same_bits(
    name: str, where: tuple[int, int | None], tmp_path: Path
) -> None:
    x, y = stripes(50)
    path = tmp_path / "training.safetensors"

    def fit(model: Sequential, callbacks: list[Callback], **resume: Any) -> Any:
        return model.fit(
            x, y, 3, 8, OPTIMIZERS[name](), callbacks=callbacks, seed=4, verbose=0,
            augment=fastcnn.Augment(shift=1, rotate=10), validation_data=(x, y), **resume,
        )  # fmt: skip

    whole = Sequential(chancy(), seed=1)
    expected = fit(whole, [])
    stopped = Sequential(chancy(), seed=1)
    fit(stopped, [Interrupted(path, *where)])
    assert bits(stopped) != bits(whole)
    fresh = Sequential(chancy())
    history = fit(fresh, [], resume=path)
    assert bits(fresh) == bits(whole)
    assert fresh.rng.bit_generator.state == whole.rng.bit_generator.state
    for figure, values in expected.history.items():
        if figure != "seconds":
            assert history.history[figure] == values, figure
    assert fresh.optimizer.step_count == whole.optimizer.step_count
    for slot, array in whole.optimizer.state.items():
        assert fresh.optimizer.state[slot].tobytes() == array.tobytes()
    loaded = load_model(path)
    assert bits(loaded) == bits(stopped)
    fit(loaded, [], resume=path)
    assert bits(loaded) == bits(whole)


def test_a_stopped_training_can_be_saved_after_it(tmp_path: Path) -> None:
    x, y = stripes(30)
    whole = Sequential(net(), seed=0)
    whole.fit(x, y, 2, 8, seed=1, verbose=0)

    class Stop(Callback):
        def on_batch_end(self, model: Sequential, batch: int, logs: dict[str, float]) -> None:
            model.stop_training = batch == 1

    stopped = Sequential(net(), seed=0)
    stopped.fit(x, y, 2, 8, seed=1, verbose=0, callbacks=[Stop()])
    stopped.save_checkpoint(tmp_path / "c")
    resumed = Sequential(net(), (9, 8))
    resumed.fit(x, y, 2, 8, verbose=0, resume=tmp_path / "c")
    assert bits(resumed) == bits(whole)


def test_callbacks_get_their_state_back(tmp_path: Path) -> None:
    class Counting(Callback):
        count = 0

        def on_train_begin(self, model: Sequential, logs: dict[str, Any]) -> None:
            self.count = 0

        def on_epoch_end(self, model: Sequential, epoch: int, logs: dict[str, float]) -> None:
            self.count += 1

        def state(self) -> dict[str, Any]:
            return {"count": self.count}

        def restore(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

    x, y = stripes(10)
    model = Sequential(net(), seed=0)
    model.fit(x, y, 2, callbacks=[Counting()], verbose=0)
    model.save_checkpoint(tmp_path / "c")
    counting = Counting()
    Sequential(net()).fit(x, y, 3, callbacks=[counting], verbose=0, resume=tmp_path / "c")
    assert counting.count == 3
    other = EarlyStopping("loss")  # in another's place: starts afresh
    Sequential(net()).fit(x, y, 3, callbacks=[other], verbose=0, resume=tmp_path / "c")


@pytest.mark.parametrize("kind", ["MT19937", "Philox", "SFC64", "PCG64DXSM"])
def test_any_of_numpys_generators_goes_on(kind: str, tmp_path: Path) -> None:
    x, y = stripes(20)
    model = Sequential(net(), seed=0)
    model.rng = np.random.Generator(getattr(np.random, kind)(5))
    model.fit(x, y, 1, verbose=0)
    model.save_checkpoint(tmp_path / "c")
    again = load_model(tmp_path / "c")
    assert again.rng.random(5).tolist() == model.rng.random(5).tolist()


def test_what_cannot_be_resumed_is_told_and_changes_nothing(tmp_path: Path) -> None:
    x, y = stripes(20)
    model = Sequential(net(), seed=0)
    model.fit(x, y, 1, 8, Adam(), verbose=0)
    model.save(tmp_path / "model")
    model.save_checkpoint(tmp_path / "training")
    other = Sequential(net(), (9, 8), seed=3)
    before = bits(other)
    right: dict[str, Any] = {"x": x, "y": y, "epochs": 2, "batch_size": 8, "verbose": 0,
                             "resume": tmp_path / "training"}  # fmt: skip
    for change, error, text in [
        ({"resume": tmp_path / "model"}, ModelFileError, "no training to resume"),
        ({"batch_size": 9}, ValueError, "batch_size must be 8 .* got 9"),
        ({"shuffle": False}, ValueError, "shuffle must be True"),
        ({"x": x[:19], "y": y[:19]}, ValueError, "x must be the data"),
        ({"y": y[::-1]}, ValueError, "y must be the data"),
        ({"optimizer": "sgd"}, ValueError, r"optimizer must be .*Adam\(.*got SGD\("),
        ({"optimizer": Adam(beta_1=0.8)}, ValueError, "optimizer must be"),
        ({"loss": CrossEntropy(0.1)}, ValueError, "loss must be that of the training"),
    ]:
        with pytest.raises(error, match=text):
            other.fit(**{**right, **change})
        assert bits(other) == before
    with pytest.raises(ValueError, match="resume must be a training of this model's layers"):
        Sequential([Flatten(), Dense(3)]).fit(**right)
    with pytest.raises(ValueError, match="save_checkpoint needs a training"):
        other.save_checkpoint(tmp_path / "no")
    other.fit(**right | {"optimizer": Adam(0.5)})  # whose rate comes from the file
    assert other.progress is not None
    assert other.progress.history.epochs == 2
    assert other.optimizer.rate == 0.001


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t["optimizer"].update({"class": "Unknown"}),
        lambda t: t["optimizer"].update(slots=["mean"]),
        lambda t: t["optimizer"].update(steps=-1),
        lambda t: t["generator"].update(bit_generator="os"),
        lambda t: t["generator"].pop("state"),
        lambda t: t["generator"]["state"].update(state="x"),
        lambda t: t["generator"]["state"].update(inc=-1),
        lambda t: t["optimizer"]["config"].update(learning_rate=10**400),
        lambda t: t.update(loss_sum=10**400),
        lambda t: t.update(epoch="one"),
        lambda t: t.pop("order"),
        lambda t: t.update(history=[1]),
        lambda t: t.update(callbacks=[3]),
        lambda t: t.update(settings=3),
    ],
)
def test_damaged_trainings_are_told(edit: Edit, tmp_path: Path) -> None:
    x, y = stripes(10)
    model = Sequential(net(), seed=0)
    model.fit(x, y, 1, 8, Adam(), verbose=0)
    path = tmp_path / "training"
    model.save_checkpoint(path)
    file = checkpoint.read(path)
    edit(file.model["training"])
    checkpoint.write(path, file.model, file.arrays())  # with the checksum of the edited text
    with pytest.raises(ModelFileError, match="cannot be loaded: its "):
        load_model(path)


@pytest.mark.parametrize(
    ("kind", "place", "wrong"),
    [
        ("MT19937", "pos", (625, 10**6, 2**31, 10**30, -1, 1.5, None)),
        ("Philox", "buffer_pos", (5, 10**6, 10**30, -1, "1")),
    ],
)
def test_no_generator_reads_beyond_its_numbers(
    kind: str, place: str, wrong: tuple[Any, ...], tmp_path: Path
) -> None:
    """NumPy takes a generator's place in its numbers as it is given, and reads there."""
    x, y = stripes(10)
    model = Sequential(net(), seed=0)
    model.rng = np.random.Generator(getattr(np.random, kind)(5))
    model.fit(x, y, 1, 8, verbose=0)
    path = tmp_path / "training"
    for name in ("generator", "order"):
        for value in wrong:
            model.save_checkpoint(path)
            file = checkpoint.read(path)
            state = file.model["training"][name]
            (state if place in state else state["state"])[place] = value
            checkpoint.write(path, file.model, file.arrays())
            with pytest.raises(ModelFileError, match=f"cannot be loaded: its .*{place} must be"):
                load_model(path)
