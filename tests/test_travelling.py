"""What belongs to a model beside its layers: the scaling of bytes, and the names of its classes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import InputWarning, Scaling, Sequential
from fastcnn.data.scaling import KnownSamples
from fastcnn.layers import Conv2D, Dense, Flatten

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (23, 7, 5, 3), dtype=np.uint8)
Y = RNG.integers(0, 4, 23)
COLOURS = Scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def net(engine: str | None = None) -> Sequential:
    layers = [Conv2D(4, 3, padding="same", activation="relu"), Flatten(), Dense(4)]
    return Sequential(layers, (7, 5, 3), seed=0, engine=engine)


def by_hand(x: Any, scaling: Scaling) -> Any:
    return ((x / 255 - np.array(scaling.mean)) / np.array(scaling.std)).astype(np.float32)


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(0.1307, 0.3081), COLOURS])
@pytest.mark.parametrize("engine", [None, "im2col"])
def test_bytes_are_scaled_as_the_model_says(scaling: Scaling, engine: str | None) -> None:
    model, other = net(engine), net(engine)
    model.scaling = scaling
    floats = by_hand(X, scaling)
    assert np.abs(model.predict(X) - other.predict(floats)).max() < 1e-5
    assert np.abs(model.predict(X) - net(engine).predict(X)).max() > 1e-3
    loss, _ = model.train_on_batch(X, Y)
    assert abs(loss - other.train_on_batch(floats, Y)[0]) < 1e-5
    model.fit(X, Y, verbose=0, shuffle=False)
    other.fit(floats, Y, verbose=0, shuffle=False)
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        assert np.abs(mine - theirs).max() < 1e-5
    gradient = model.input_gradient(X[:2], 1)
    other.set_weights(model.get_weights())
    assert np.abs(gradient - other.input_gradient(by_hand(X[:2], scaling), 1)).max() < 1e-5


def test_the_default_is_that_of_the_compiled_programs() -> None:
    model, again = net(), net()
    again.scaling = Scaling(0.5, 1)
    assert (model.predict(X) == again.predict(X)).all()
    scaled = model.scaling.of(X, np.float32)
    assert (scaled == X * np.float32(1 / 255) - np.float32(0.5)).all()
    assert (model.predict(scaled) == model.predict(X)).all()


def test_files_and_copies_keep_scaling_and_classes(tmp_path: Path) -> None:
    model = net()
    model.scaling, model.classes = COLOURS, ["Ähre", "b", "c", "d"]
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.st")
    model.save_checkpoint(tmp_path / "training.st")
    for other in (
        fastcnn.load_model(tmp_path / "model.st"),
        fastcnn.load_model(tmp_path / "training.st"),
        pickle.loads(pickle.dumps(model)),
    ):
        assert other.scaling == COLOURS
        assert other.classes == ("Ähre", "b", "c", "d")
        assert (other.predict(X) == model.predict(X)).all()
        assert other.class_name(0), other.class_name(9) == ("Ähre", "9")
    other = net()
    with pytest.raises(ValueError, match=r"scaling of the model must be that of the training, Sca"):
        other.fit(X, Y, epochs=2, verbose=0, resume=tmp_path / "training.st")
    other.scaling = COLOURS
    other.fit(X, Y, epochs=2, verbose=0, resume=tmp_path / "training.st")
    assert other.classes == model.classes


def test_a_default_model_gives_the_file_of_earlier_versions(tmp_path: Path) -> None:
    model = net()
    model.save(tmp_path / "model.st")
    contents = (tmp_path / "model.st").read_bytes()
    assert b"x / 255 - 0.5" in contents
    assert b"classes" not in contents


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("x / 255", TypeError, r"scaling must be a fastcnn\.Scaling such as"),
        (Scaling((1, 2)), ValueError, r"scaling must be for 3 channels"),
    ],
)
def test_wrong_scalings(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        net().scaling = value
    late = Sequential([Flatten(), Dense(2)])
    if isinstance(value, Scaling):
        late.scaling = value
        with pytest.raises(error, match=message):
            late.build((7, 5, 3))
        assert not late.built


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.5, 0), "std must be above 0"),
        ((0.5, [1, 0.0]), "std must be above 0"),
        (("half",), "mean must be a number"),
        (((1, 2), (1, 2, 3)), "as many channels, got 2 and 3"),
        ((np.nan,), "mean must be finite"),
        (((),), "a number for each channel"),
    ],
)
def test_wrong_numbers(arguments: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Scaling(*arguments)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a", "b"], r"a name for each of 4 outputs.*got 2 names"),
        (["a", "b", "a", "c"], "different names, got 'a' twice"),
        (["a", "", "b", "c"], "1 to 1000 characters, got '' for class 1"),
        ("abcd", "a list of names"),
    ],
)
def test_wrong_classes(value: Any, message: str) -> None:
    model = net()
    with pytest.raises((TypeError, ValueError), match=message):
        model.classes = value
    assert model.classes is None


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    from fastcnn.data.class_names import checked_names
    from fastcnn.data.pixel_scaling import scaling_from

    for record in ("x / 256", {"mean": 0.5}, {"mean": 0.5, "std": "1"}, None, [1]):
        with pytest.raises((TypeError, ValueError)):
            scaling_from(record)
    for names in (5, {"a": 1}, ["a"] * 4, ["x" * 2000]):
        with pytest.raises((TypeError, ValueError)):
            checked_names(names, None)


def test_floats_are_compared_with_the_scaling() -> None:
    samples = KnownSamples("uint8", scaling=COLOURS)
    samples.check("x", by_hand(X, COLOURS))  # no warning
    with pytest.warns(InputWarning, match=r"scaled by \(x / 255 - \(0\.485, 0\.456, 0\.406\)\)"):
        samples.check("x", X.astype(np.float32) / 10)


def test_onnx_files_scale_so(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    for layout in ("channels_last", "channels_first"):
        model = net()
        model.scaling, model.classes = COLOURS, list("abcd")
        model.fit(X, Y, verbose=0)
        model.save_onnx(tmp_path / "net.onnx", layout)  # type: ignore[arg-type]
        x = X if layout == "channels_last" else fastcnn.nhwc_to_nchw(X)
        predicted = fastcnn.load_onnx(tmp_path / "net.onnx").predict(np.ascontiguousarray(x))
        assert np.abs(predicted - model.predict(X)).max() < 1e-5
