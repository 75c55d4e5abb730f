"""The page to draw on: in a browser, and what is refused before it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import PROGRAM, WITHOUT, Browser, Page
from typer.testing import CliRunner

import fastcnn
from fastcnn.cli import app
from fastcnn.data.preparation import MNIST
from fastcnn.exchange import save_html
from fastcnn.exchange.html_export import described, in_script, page_of
from fastcnn.layers import (
    Add,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    MaxPool2D,
    ReLU,
    Residual,
)

EVIL = "</script><script>document.title = 'taken'</script><img src=x onerror=alert(1)> & \"quoted\""
IN_BROWSER = pytest.mark.skipif(PROGRAM is None, reason=WITHOUT)


@pytest.fixture(scope="module")
def trained() -> fastcnn.Sequential:
    """The article's net, trained on some digits."""
    (x, y), _ = fastcnn.load_mnist()
    layers = [Conv2D(8, 3), MaxPool2D(2), Flatten(), Dense(10)]
    model = fastcnn.Sequential(layers, input_shape=(28, 28, 1), seed=0)
    model.fit(x[:6000], y[:6000], epochs=2, seed=0, verbose=0)
    assert model.preparation == MNIST
    return model


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


def coloured(title_of_layer: str = "stem") -> fastcnn.Sequential:
    """A small net of colour pictures that are not square, with a residual block."""
    layers = [
        Conv2D(4, 3, strides=2, activation="relu", name=title_of_layer),
        Residual([Conv2D(4, 3, padding="same")]),
        GlobalAvgPool2D(),
        Dense(3),
    ]
    model = fastcnn.Sequential(layers, input_shape=(20, 30, 3), seed=0, engine="im2col")
    model.trained_on = "uint8"
    model.scaling = fastcnn.Scaling((0.48, 0.46, 0.41), (0.23, 0.22, 0.25))
    return model


def opened(browser: Browser, path: Path, width: int = 1280, dark: bool = False) -> Page:
    """A page that has compared itself with Python."""
    page = browser.open(path, width, dark)
    page.wait("document.documentElement.dataset.check")
    return page


def checked(page: Page) -> Any:
    """What the page found when it compared itself with Python."""
    return json.loads(page.evaluate("document.documentElement.dataset.check"))


def class_of(page: Page) -> str:
    """The predicted class, after the page had time for an update."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 200)))")
    return str(page.evaluate("document.documentElement.dataset.class"))


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw a line with the mouse through points, as shares of the board's sides."""
    left, top, width, height = page.evaluate(
        "(({left, top, width, height}) => [left, top, width, height])"
        "(document.getElementById('board').getBoundingClientRect())"
    )
    places = [(left + x * width, top + y * height) for x, y in points]
    page.mouse("mousePressed", *places[0])
    for (x0, y0), (x1, y1) in pairwise(places):
        for share in (0.25, 0.5, 0.75, 1.0):
            page.mouse("mouseMoved", x0 + share * (x1 - x0), y0 + share * (y1 - y0))
    page.mouse("mouseReleased", *places[-1])


SEVEN = [(0.25, 0.2), (0.5, 0.2), (0.75, 0.2), (0.6, 0.5), (0.45, 0.85)]
ONE = [(0.52, 0.15), (0.5, 0.5), (0.48, 0.85)]


@IN_BROWSER
def test_a_drawn_digit_is_recognised(
    trained: fastcnn.Sequential, browser: Browser, tmp_path: Path
) -> None:
    trained.save_html(tmp_path / "net.html")
    assert (tmp_path / "net.html").stat().st_size < 150_000
    page = opened(browser, tmp_path / "net.html")
    assert class_of(page) == ""
    draw(page, SEVEN)
    assert class_of(page) == "7"
    assert page.evaluate("document.querySelector('.best .name').textContent") == "7"
    page.evaluate("document.getElementById('clear').click()")
    assert class_of(page) == ""
    draw(page, ONE)
    assert class_of(page) == "1"
    fastest = page.evaluate(
        "Math.min(...Array.from({length: 20}, () => { fastcnn.update();"
        " return Number(document.documentElement.dataset.milliseconds); }))"
    )
    assert fastest < 30, f"an update takes {fastest} ms"
    is_drawn = "[...document.querySelectorAll('.maps canvas')].map((canvas) => new Set(canvas"
    is_drawn += ".getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size > 4)"
    assert page.evaluate(is_drawn) == [True] * (8 + 8 + 1 + 1)
    assert page.errors == []


@IN_BROWSER
def test_two_hundred_digits_have_the_classes_that_python_gives(
    trained: fastcnn.Sequential, browser: Browser, tmp_path: Path
) -> None:
    _, (digits, _) = fastcnn.load_mnist()
    trained.save_html(tmp_path / "net.html", samples=digits[:200])
    result = checked(opened(browser, tmp_path / "net.html"))
    assert (result["samples"], result["classes"]) == (200, 200)
    assert result["relative"] < 1e-5


@IN_BROWSER
def test_the_keyboard_draws_and_chooses(
    trained: fastcnn.Sequential, browser: Browser, tmp_path: Path
) -> None:
    trained.save_html(tmp_path / "net.html")
    page = opened(browser, tmp_path / "net.html")
    page.key("Tab")
    assert page.evaluate("document.activeElement.id") == "board"
    for _ in range(8):
        page.key("ArrowUp")
    page.key(" ")
    for _ in range(17):
        page.key("ArrowDown")
    page.key(" ")
    assert class_of(page) == "1"
    labels_of_focus = []
    for _ in range(4):
        page.key("Tab")
        labels_of_focus.append(
            page.evaluate("document.activeElement.id || document.activeElement.ariaLabel")
        )
    assert labels_of_focus == ["clear", "file", "pen", "Sample 1"]
    page.key(" ")
    assert class_of(page) == "0"


@IN_BROWSER
def test_text_cannot_leave_its_place_and_nothing_is_asked_for(
    browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "net.html"
    model = coloured(title_of_layer=EVIL)
    save_html(model, path, class_names=[EVIL, "b", "c"], title=EVIL)
    page = opened(browser, path)
    assert page.evaluate("document.title") == EVIL
    draw(page, SEVEN)
    class_of(page)
    assert page.evaluate("document.querySelector('.bars .name').textContent") == EVIL
    assert page.evaluate("document.querySelector('summary .name').textContent") == EVIL
    assert page.evaluate("document.querySelectorAll('script, img').length") == 2
    assert page.errors == []
    assert page.requests == [path.as_uri()]
    # The page's policy stops what would ask for something, also a script that got in.
    page.evaluate("fetch('data:text/plain,hello').catch(() => 0)")
    page.evaluate(
        "document.body.append(Object.assign(new Image(), {src: 'data:image/png;base64,'}))"
    )
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'globalThis.taken = 1'}))"
    )
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert page.evaluate("globalThis.taken") is None
    assert len([error for error in page.errors if "Content Security Policy" in error]) >= 3


@IN_BROWSER
def test_a_net_of_colours_opens_a_picture(browser: Browser, tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    from fastcnn.data.pictures import prepare

    model = coloured()
    save_html(model, tmp_path / "net.html")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype(np.uint8)
    images.fromarray(pixels).save(tmp_path / "picture.png")
    expected = model.predict(prepare(tmp_path / "picture.png", (20, 30, 3)).pixels[None])[0]
    page = opened(browser, tmp_path / "net.html", width=390)
    root = page.send("DOM.getDocument")["root"]["nodeId"]
    node = page.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.send("DOM.setFileInputFiles", files=[str(tmp_path / "picture.png")], nodeId=node)
    page.wait("document.documentElement.dataset.class")
    shown = page.evaluate("[...document.querySelectorAll('.number')].map((e) => e.textContent)")
    assert shown == [f"{100 * share:.2f} %" for share in expected]
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.errors == []


@IN_BROWSER
def test_a_page_that_differs_from_python_says_so(browser: Browser, tmp_path: Path) -> None:
    description = described(coloured())
    description["layers"][0]["stride"] = [2, 1]
    description["layers"][0]["arrays"]["b"] = description["layers"][0]["arrays"]["w"]
    (tmp_path / "net.html").write_text(page_of(description), "utf-8")
    page = opened(browser, tmp_path / "net.html")
    assert page.evaluate("document.getElementById('check').className") == "failed"


@IN_BROWSER
def test_numbers_of_16_bits_are_near(
    trained: fastcnn.Sequential, browser: Browser, tmp_path: Path
) -> None:
    trained.save_html(tmp_path / "single.html")
    trained.save_html(tmp_path / "half.html", weights="float16")
    sizes = [(tmp_path / f"{name}.html").stat().st_size for name in ("single", "half")]
    assert sizes[1] < sizes[0] - 25_000
    page = opened(browser, tmp_path / "half.html")
    result = checked(page)
    assert result["classes"] == result["samples"]
    assert 1e-6 < result["difference"] < 1e-2
    assert page.evaluate("document.getElementById('check').className") == ""


@IN_BROWSER
def test_a_net_of_float64_computes_in_float64(browser: Browser, tmp_path: Path) -> None:
    layers = [Conv2D(4, 3, activation="relu"), ReLU(0.7), MaxPool2D(2), Flatten(), Dense(10)]
    model = images_of(layers, (28, 28, 1), dtype="float64")
    model.trained_on = "uint8"
    _, (digits, _) = fastcnn.load_mnist()
    model.save_html(tmp_path / "net.html", samples=digits[:20])
    page = opened(browser, tmp_path / "net.html")
    result = checked(page)
    assert (result["samples"], result["classes"]) == (20, 20)
    assert result["relative"] < 1e-12
    assert page.evaluate("document.getElementById('check').className") == ""
    model.save_html(tmp_path / "half.html", weights="float16")
    assert checked(opened(browser, tmp_path / "half.html"))["relative"] > 1e-6


@IN_BROWSER
def test_the_first_strokes_are_as_fast_as_later_ones(
    trained: fastcnn.Sequential, browser: Browser, tmp_path: Path
) -> None:
    trained.save_html(tmp_path / "net.html")
    page = opened(browser, tmp_path / "net.html")
    assert int(page.wait("document.documentElement.dataset.warm")) >= 5
    assert page.evaluate("document.documentElement.dataset.class") == ""  # nobody saw it
    page.evaluate(
        "globalThis.times = []; new MutationObserver(() =>"
        " times.push(Number(document.documentElement.dataset.milliseconds)))"
        ".observe(document.documentElement, {attributeFilter: ['data-milliseconds']})"
    )
    draw(page, SEVEN)
    class_of(page)
    first = page.evaluate("times.splice(0)")[1:5]  # the first one sees a dot
    for _ in range(3):
        draw(page, ONE)
        class_of(page)
    later = page.evaluate("times.splice(0)")
    # Without the warm-up even the fastest of the first ones takes four times as long.
    assert min(first) < 2.5 * min(later), (first, later)


def onnx_net(path: Path, takes: str) -> Any:
    """A net of another program, which takes bytes or floats in channels-first order."""
    onnx = pytest.importorskip("onnx", reason="the file is written with onnx")
    make, kinds = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((3, 1, 3, 3)).astype(np.float32) / 3,
        "d": rng.standard_normal((3 * 7 * 5, 4)).astype(np.float32) / 10,
        "s": np.array(255, np.float32),
    }
    nodes = [
        make.make_node("Conv", ["f" if takes == "bytes" else "x", "w"], ["c"]),
        make.make_node("Relu", ["c"], ["r"]),
        make.make_node("Flatten", ["r"], ["v"]),
        make.make_node("MatMul", ["v", "d"], ["y"]),
    ]
    if takes == "bytes":
        cast = make.make_node("Cast", ["x"], ["b"], to=kinds.FLOAT)
        nodes = [cast, make.make_node("Div", ["b", "s"], ["f"]), *nodes]
    kind = kinds.UINT8 if takes == "bytes" else kinds.FLOAT
    graph = make.make_graph(
        nodes, "net", [make.make_tensor_value_info("x", kind, ["N", 1, 9, 7])],
        [make.make_tensor_value_info("y", kinds.FLOAT, ["N", 4])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    file = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)])
    file.ir_version = 8
    onnx.save(file, path)
    return fastcnn.load_onnx(path, layout="channels_last")


@IN_BROWSER
@pytest.mark.parametrize("takes", ["bytes", "floats"])
def test_nets_of_onnx_files(browser: Browser, takes: str, tmp_path: Path) -> None:
    path = tmp_path / "net.html"
    model = onnx_net(tmp_path / "net.onnx", takes)
    if takes == "floats":
        with pytest.raises(ValueError, match=r"set model.scaling and model.trained_on = 'uint8'"):
            save_html(model, path)
        assert not path.exists()
        model.scaling, model.trained_on = fastcnn.Scaling(), "uint8"
    save_html(model, path)
    page = opened(browser, path)
    result = checked(page)
    assert (result["samples"], result["classes"]) == (4, 4)
    assert result["relative"] < 1e-5
    draw(page, SEVEN)
    assert class_of(page) in "0123"
    arguments = ["export", str(tmp_path / "net.onnx"), "--html", str(tmp_path / "cli.html")]
    arguments += ["--layout", "channels_first"]
    scaling = ["--scaling", "0..1"] if takes == "floats" else []
    done = CliRunner().invoke(app, [*arguments, *scaling])
    assert done.exit_code == 0, done.output
    if takes == "floats":
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2
        assert "Give --scaling" in done.output


def test_the_description_cannot_end_its_element(tmp_path: Path) -> None:
    save_html(coloured(EVIL), tmp_path / "net.html", class_names=[EVIL] * 3)
    text = (tmp_path / "net.html").read_text("utf-8")
    assert len(re.findall("</script>", text)) == 2
    value = {"text": EVIL, "comment": "<!--", "line": "\u2028"}
    assert json.loads(in_script(value)) == value
    assert not set("<>&\u2028") & set(in_script(value))


def test_the_names_of_classes_are_those_of_the_model() -> None:
    model = coloured()
    assert described(model)["classes"] == ["0", "1", "2"]
    model.classes = ["cat", "dog", "owl"]
    assert described(model)["classes"] == ["cat", "dog", "owl"]
    assert described(model, class_names=["a", "b", "c"])["classes"] == ["a", "b", "c"]


def test_arguments(tmp_path: Path) -> None:
    model = coloured()
    for arguments, error, message in (
        ({"class_names": "abc"}, TypeError, "class_names must be a list of texts, got 'abc'"),
        ({"class_names": ["a", 2, "c"]}, TypeError, "class_names must hold texts, got 2"),
        (
            {"class_names": ["a"]},
            ValueError,
            "class_names must hold 3 names, one for each class, got 1",
        ),
        ({"weights": "float8"}, ValueError, "weights must be"),
        ({"samples": np.zeros((2, 20, 30, 3))}, TypeError, "samples must be bytes"),
        (
            {"samples": np.zeros((2, 30, 20, 3), np.uint8)},
            ValueError,
            "samples must have the shape",
        ),
        (
            {"samples": np.zeros((0, 20, 30, 3), np.uint8)},
            ValueError,
            "samples must hold 1 to 1,000",
        ),
        ({"title": 3}, TypeError, "title must be text or None, got 3"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            save_html(model, tmp_path / "net.html", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "net.html").exists()


class Own(Layer):
    """A layer of a user's own."""

    def infer(self, input_shape: Any) -> Any:
        return input_shape

    def forward(self, x: Any, training: bool, rng: Any, engine: str | None) -> Any:
        return x, None

    def backward(self, dy: Any, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return dy, {}


def images_of(layers: list[Layer], shape: Any = (9, 7, 1), **options: Any) -> fastcnn.Sequential:
    return fastcnn.Sequential(layers, input_shape=shape, seed=0, engine="im2col", **options)


def not_finite() -> fastcnn.Sequential:
    model = images_of([Conv2D(2, 3, name="bad"), Flatten(), Dense(2)])
    model.layers[0].parameters["w"][1, 2] = np.nan
    return model


def of_floats() -> fastcnn.Sequential:
    model = images_of([Flatten(), Dense(2)])
    model.trained_on = "floats"
    return model


def beyond_half() -> fastcnn.Sequential:
    model = images_of([Flatten(), Dense(2)])
    model.layers[1].parameters["b"][:] = 1e5
    return model


def of_two_inputs() -> fastcnn.Model:
    a, b = fastcnn.Input((9, 7, 1)), fastcnn.Input((9, 7, 1))
    return fastcnn.Model([a, b], Dense(2)(Flatten()(Add()([a, b]))), engine="im2col")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda: images_of([Own(name="mine"), Flatten(), Dense(2)]),
            {},
            "layer 'mine', Own, is none",
        ),
        (lambda: fastcnn.Sequential([Dense(2)]), {}, "input_shape must be known"),
        (lambda: images_of([Dense(2)], (63,)), {}, "must take images and give classes"),
        (lambda: images_of([Conv2D(2, 3)]), {}, "must take images and give classes"),
        (lambda: images_of([Flatten(), Dense(2)], (9, 7, 2)), {}, "one channel or three"),
        (
            lambda: images_of([Flatten(), Dense(2)]),
            {"weights": "float64"},
            "float32 or float16 for a model of float32",
        ),
        (of_floats, {}, "trained on bytes"),
        (not_finite, {}, "'w' of layer 'bad', Conv2D(2, 3), has others"),
        (beyond_half, {"weights": "float16"}, "finite in float16, but 'b' of layer 'dense'"),
        (of_two_inputs, {}, "one input and one output"),
    ],
)
def test_models_that_do_not_fit(
    make: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.html"
    path.write_text("earlier")
    with pytest.raises(ValueError, match=re.escape(message)):
        save_html(make(), path, **options)
    assert path.read_text() == "earlier"


def test_a_model_that_is_too_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fastcnn.exchange.html_export._LARGEST", 1000)
    with pytest.raises(ValueError, match="at most 1,000 bytes of weights"):
        save_html(coloured(), tmp_path / "net.html")
    assert not (tmp_path / "net.html").exists()


def test_the_command(trained: fastcnn.Sequential, tmp_path: Path) -> None:
    trained.save(tmp_path / "net.safetensors")
    names = "zero, one,two,three,four,five,six,seven,eight,nine"
    arguments = ["export", str(tmp_path / "net.safetensors"), "--html", str(tmp_path / "net.html")]
    done = CliRunner().invoke(app, [*arguments, "--classes", names, "--json"])
    facts = json.loads(done.output)
    assert facts["classes"][:2] == ["zero", "one"]
    assert (facts["layers"], facts["input"], facts["samples"]) == (5, [28, 28, 1], 10)
    assert facts["bytes"] == (tmp_path / "net.html").stat().st_size
    done = CliRunner().invoke(app, [*arguments, "--classes", "a,b"])
    assert done.exit_code == 2
    assert "class_names must hold 10 names" in done.output


def test_samples_of_a_data_set(tmp_path: Path) -> None:
    labels = np.array([2, 0, 1, 0])
    pictures = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3)).astype(np.uint8)
    arrays = {"x_train": pictures, "y_train": labels, "x_test": pictures, "y_test": labels}
    np.savez(tmp_path / "data.npz", **arrays)
    coloured().save(tmp_path / "net.safetensors")
    arguments = ["export", str(tmp_path / "net.safetensors"), "--html", str(tmp_path / "net.html")]
    done = CliRunner().invoke(app, [*arguments, "--data", str(tmp_path / "data.npz"), "--json"])
    assert json.loads(done.output)["samples"] == 3
