"""Without Numba, as on Pyodide: all but the compiled engine works; who asks for it is told so."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from digits import write_digits
from PIL import Image
from processes import python
from tiny import stripes

import fastcnn

TESTS = str(Path(__file__).parent)

# Imports of these packages raise, as where they are not installed.
HIDE = """
import sys
sys.path.append({tests!r})

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""

# As on Pyodide: "RuntimeError: can't start new thread".
NO_THREADS = """
import threading

def refuse(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = refuse
"""

COMMAND_LINE = "from fastcnn.cli import main; main()"


def without(
    code: str,
    *arguments: str,
    packages: tuple[str, ...] = ("numba", "llvmlite"),
    threads: bool = True,
    check: bool = True,
) -> CompletedProcess[str]:
    """Run code where these packages cannot be imported, and perhaps no thread be started."""
    hide = HIDE.format(tests=TESTS, packages=packages) + ("" if threads else NO_THREADS)
    # On one thread BLAS does not wait for threads that have no core, beside other tests.
    return python("-c", hide + code, *arguments, check=check, OPENBLAS_NUM_THREADS="1")


# --- layers, models, and what trains them ---------------------------------------------------------

EVERY_LAYER = """
import numpy as np, fastcnn
from fastcnn.proof.models import all_layers
from fastcnn.losses import CrossEntropy

rng = np.random.default_rng(0)
x, labels = rng.integers(0, 256, (40, 13, 11, 3)).astype(np.uint8), rng.integers(0, 4, 40)
models = [fastcnn.Sequential(all_layers(4), (13, 11, 3), seed=0, engine=engine)
          for engine in (None, "im2col", "naive")]
assert "Numba is not installed" in models[0].explain(), models[0].explain()
for model in models:
    model.fit(x, labels, epochs=1, batch_size=20, optimizer="adam", seed=0, verbose=0)
picked, im2col, naive = (model.predict(x) for model in models)
np.testing.assert_array_equal(picked, im2col)
np.testing.assert_allclose(im2col, naive, atol=1e-4)
for model in models:
    assert 0 < model.evaluate(x, labels)["loss"] < 10
"""


def test_every_kind_of_layer_trains_and_predicts_with_im2col() -> None:
    without(EVERY_LAYER)


OPTIMIZERS = """
import numpy as np, fastcnn
from fastcnn.nn.optimizers import optimizer_named
from fastcnn.optimizers import SGD, Adam, AdamW, RMSprop
from tiny import net, stripes

x, labels = stripes(300)
optimizers = ["sgd", "adam", "adamw", "rmsprop", SGD(0.01, momentum=0.9, nesterov=True),
              Adam(0.003, clip_norm=1.0), RMSprop(0.002, momentum=0.5)]
for optimizer in optimizers:
    model = fastcnn.Sequential(net(), (9, 8, 1), seed=0)
    history = model.fit(x, labels, epochs=8, optimizer=optimizer, seed=0, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0], (optimizer, losses)
    assert optimizer_named(optimizer).ahead(np.zeros(3)) is None  # nothing is compiled
"""


def test_every_optimizer_trains() -> None:
    without(OPTIMIZERS)


AUGMENTED = """
import numpy as np, fastcnn
from fastcnn.data.augmentation import cut_out_numpy
from tiny import net, stripes

x, labels = stripes(300)
augment = fastcnn.Augment(shift=1, rotate=5, scale=0.1, flip=True)
assert augment(x, np.random.default_rng(0)).shape == x.shape
for augmentation in (augment, fastcnn.Augment(shift=1)):
    model = fastcnn.Sequential(net(), (9, 8, 1), seed=0)
    model.fit(x, labels, epochs=6, augment=augmentation, validation_split=0.1, seed=0)
np.save(sys.argv[1], augment(x, np.random.default_rng(0)))
"""


def test_augmentation_gives_the_same_bytes(tmp_path: Path) -> None:
    without(AUGMENTED, str(tmp_path / "moved.npy"))
    augment = fastcnn.Augment(shift=1, rotate=5, scale=0.1, flip=True)
    expected = augment(stripes(300)[0], np.random.default_rng(0))
    np.testing.assert_array_equal(np.load(tmp_path / "moved.npy"), expected)


CLASSIFIER = """
import numpy as np, fastcnn
from sklearn.base import clone
from tiny import stripes

(x, labels), (x_test, test_labels) = stripes(400), stripes(200, seed=1)
names = np.array(["left", "middle", "right"])
classifier = clone(fastcnn.CNNClassifier(epochs=8, random_state=0)).fit(x, names[labels])
assert classifier.score(x_test, names[test_labels]) > 0.9
assert classifier.predict_proba(x[:5]).shape == (5, 3)
"""


def test_the_classifier_learns() -> None:
    without(CLASSIFIER)


SAVED = """
import numpy as np, fastcnn
from tiny import net, stripes

path, x, labels = f"{sys.argv[1]}/model.safetensors", *stripes(200)
model = fastcnn.Sequential(net(), (9, 8, 1), seed=0)
model.fit(x, labels, epochs=2, seed=0, verbose=0)
model.save(path)
expected = model.predict(x)
np.testing.assert_array_equal(fastcnn.load_model(path).predict(x), expected)
np.save(f"{sys.argv[1]}/expected.npy", expected)
"""


def test_a_model_is_saved_and_loaded_also_where_numba_is(tmp_path: Path) -> None:
    without(SAVED, str(tmp_path))
    model = fastcnn.load_model(tmp_path / "model.safetensors")
    expected = np.load(tmp_path / "expected.npy")
    np.testing.assert_allclose(model.predict(stripes(200)[0]), expected, atol=1e-5)


ARTICLE = """
import numpy as np, fastcnn
from fastcnn.article import ArticleNet, Conv3x3, MaxPool2, Softmax

image = fastcnn.load_mnist()[1][0][0] / 255 - 0.5
conv, pool, softmax = Conv3x3(8), MaxPool2(), Softmax(13 * 13 * 8, 10)
assert softmax.forward(pool.forward(conv.forward(image))).shape == (10,)
picked, im2col, naive = (
    ArticleNet(engine=engine, rng=np.random.default_rng(0)) for engine in (None, "im2col", "naive")
)
outcomes = []
for net in (picked, im2col, naive):
    outcomes.append([net.train(image, label) for label in (7, 3, 7)])
assert outcomes[0] == outcomes[1]
np.testing.assert_allclose(outcomes[1], outcomes[2], rtol=1e-9)
"""


def test_the_articles_classes_run_and_train() -> None:
    without(ARTICLE)


# --- what needs Numba says so ---------------------------------------------------------------------

ASKED = """
import numpy as np, fastcnn
from fastcnn.article import Conv3x3
from fastcnn.bench import bench
from fastcnn.layers import Dense

assert fastcnn.engines() == ("im2col", "naive")
x = np.ones((1, 4, 4, 1), np.float32)

def use():
    with fastcnn.use_engine("numba"):
        pass

asked = [
    lambda: fastcnn.conv2d(x, np.ones((3, 3, 1, 2), np.float32), engine="numba"),
    lambda: fastcnn.explain("relu", (3,), engine="numba"),
    lambda: fastcnn.Sequential([Dense(2)], (3,), engine="numba").predict(np.ones((1, 3))),
    lambda: Conv3x3(8, engine="numba").forward(np.ones((4, 4))),
    lambda: fastcnn.compare(engines=["numba"], quick=True),
    use,
]
for ask in asked:
    try:
        ask()
    except ImportError as error:
        expected = "engine 'numba' cannot run here: Numba is not installed (pip install numba)"
        assert str(error) == expected, error
    else:
        raise AssertionError("no error")
try:
    bench()
except ImportError as error:
    assert str(error).startswith("bench needs Numba (pip install numba), because "), error
else:
    raise AssertionError("no error")

explained = str(fastcnn.explain("conv2d", (1, 4, 4, 1), (3, 3, 1, 2)))
assert explained.startswith("conv2d: im2col.conv2d"), explained
assert "not numba.direct: Numba is not installed" in explained

sys.platform = "emscripten"
fastcnn.engines.__globals__["_not_installed"].cache_clear()
try:
    use()
except ImportError as error:
    assert "Numba does not run on Pyodide" in str(error), error
else:
    raise AssertionError("no error")
"""


@pytest.mark.parametrize("packages", [("numba", "llvmlite"), ("numba",), ("llvmlite",)])
def test_who_asks_for_numba_by_name_is_told(packages: tuple[str, ...]) -> None:
    without(ASKED, packages=packages)


# --- the command line -----------------------------------------------------------------------------


def command(*arguments: str, check: bool = True) -> CompletedProcess[str]:
    return without(COMMAND_LINE, *arguments, check=check)


def test_info() -> None:
    shown = command("info").stdout
    assert "engines       im2col, naive\n" in shown
    assert "instructions  not known without Numba\n" in shown
    assert "kernel cache  none without Numba\n" in shown


def test_compare_holds_im2col_against_the_specification() -> None:
    shown = command("compare", "--quick").stdout
    assert "im2col" in shown
    assert "numba" not in shown
    assert "checks agree with the specification" in shown
    shown = command("compare", "--quick", "--model").stdout
    assert "all_layers" in shown
    assert "checks agree with the specification" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("compare", "--quick", "--engine", "numba"), "engine 'numba' cannot run here: Numba is"),
        (("bench",), "bench needs Numba (pip install numba)"),
        (("bench", "--compare", "no-such-run", "another"), "no-such-run"),  # runs nothing
    ],
)
def test_commands_that_need_numba_say_so_in_one_line(
    arguments: tuple[str, ...], expected: str
) -> None:
    done = command(*arguments, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("fastcnn: ")
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_train_evaluate_and_predict(tmp_path: Path) -> None:
    digits = write_digits(tmp_path)
    model, picture = str(tmp_path / "model.safetensors"), str(tmp_path / "digit.png")
    shown = command("train", "--net", "article", "--data", digits, "--epochs", "2", "--save", model)
    assert f"saved as {model}" in shown.stdout
    shown = command("evaluate", model, "--data", digits)
    assert float(shown.stdout.split()[2].rstrip("%,")) > 75
    Image.fromarray(fastcnn.load_mnist()[1][0][0]).save(picture)
    assert command("predict", model, picture).stdout.startswith(f"{picture}: 7 (")


DEMO = """
from fastcnn.recipes.demo import demo

assert demo(article_images=30, train_images=2000, test_images=200, epochs=1).ok
"""


def test_demo_runs_on_the_engines_that_there_are() -> None:
    shown = without(DEMO).stdout
    assert "The same net learns, on im2col" in shown
    assert "The same numbers from im2col" in shown
    assert "numba" not in shown


# --- fewer packages still, and no threads ---------------------------------------------------------

ONLY_NUMPY = """
import pkgutil
from importlib import import_module
import numpy as np, fastcnn
from tiny import net, stripes

for name in fastcnn.__all__:
    getattr(fastcnn, name)
# All but the compiled engine and what prints: the command line, the benchmarks' tables, and
# pictures, which Matplotlib draws.
compiled = "fastcnn.engine.numba", "fastcnn.models.execution"
apart = *compiled, "fastcnn.plots", "fastcnn.cli", "fastcnn.__", "fastcnn.bench."
for module in pkgutil.walk_packages(fastcnn.__path__, "fastcnn."):
    if not module.name.startswith(apart):
        import_module(module.name)
x, labels = stripes(100)
model = fastcnn.Sequential(net(), (9, 8, 1), seed=0)
model.fit(x, labels, epochs=2, seed=0, verbose=0)
assert model.predict(x).shape == (100, 3)
assert fastcnn.CNNClassifier(epochs=1).fit(x, labels).predict(x).shape == (100,)
try:
    model.save("model.safetensors")
except ImportError as error:
    assert "safetensors" in str(error), error
else:
    raise AssertionError("no error")
"""


def test_import_training_and_prediction_need_numpy_alone() -> None:
    optional = "safetensors", "rich", "typer", "click", "mnist", "PIL", "sklearn", "joblib", "scipy"
    without(ONLY_NUMPY, packages=("numba", "llvmlite", *optional))


WITHOUT_THREADS = """
import numpy as np, fastcnn
from rich.console import Console
from fastcnn.callbacks import ProgressBar
from fastcnn.recipes.demo import demo
from tiny import net, stripes

terminal = Console(force_terminal=True)
x, labels = fastcnn.load_mnist()[0]
assert x.shape == (60000, 28, 28)
w = np.ones((3, 3, 1, 2), np.float32)
assert fastcnn.conv2d(x[:50, :, :, None].astype(np.float32), w).shape == (50, 26, 26, 2)
x, labels = stripes(100)
model = fastcnn.Sequential(net(), (9, 8, 1), seed=0)
model.fit(x, labels, epochs=2, seed=0, verbose=0, callbacks=[ProgressBar(terminal)])
assert model.predict(x).shape == (100, 3)
demo(article_images=10, train_images=64, test_images=50, epochs=1, console=terminal)

from fastcnn.__main__ import _interrupt
try:
    _interrupt(2, None)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("packages", [("numba", "llvmlite"), ()])
def test_all_runs_where_no_thread_can_be_started(packages: tuple[str, ...]) -> None:
    shown = without(WITHOUT_THREADS, packages=packages, threads=False).stdout
    assert "epoch 2/2: loss" in shown
    assert shown.endswith("interrupted\n")
