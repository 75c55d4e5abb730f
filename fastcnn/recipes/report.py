"""The report of a training: one self-contained page with pictures, settings and machine.

The pictures are SVG inside of the page, without a background. Their ink has the colour of the
page's text, so the page is legible in light and in dark.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

from fastcnn import plots
from fastcnn.core.arguments import Array
from fastcnn.engine.machine import facts
from fastcnn.models import summary
from fastcnn.plots.svg import svg
from fastcnn.recipes.training import Settings, Trained
from fastcnn.version import __version__

_WIDTH = 3.9  # inches of a picture: 374 pixels, the width of a telephone
_STYLE = """
:root{color-scheme:light dark;--ink:#1d2433;--soft:#5b6675;--line:#d5dbe3;--paper:#fff;
--card:#f5f7fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa5b4;--line:#343d4a;--paper:#12161c;
--card:#1a2029}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1160px;margin:0 auto;padding:16px 14px 60px}
h1{font-size:1.6rem;margin:.2em 0}h2{font-size:1.2rem;margin:2em 0 .6em}
figure{margin:0;break-inside:avoid}figcaption{font-size:.9rem;color:var(--soft);margin:.3em 0 .8em}
.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin:16px 0}
.tile{background:var(--card);border-radius:10px;padding:10px 14px}
.tile b{display:block;font-size:1.4rem;font-variant-numeric:tabular-nums}
.tile span{font-size:.85rem;color:var(--soft)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:28px;
align-items:start}
svg{width:100%;max-width:560px;height:auto;display:block}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;
font-variant-numeric:tabular-nums}th,td{text-align:left;padding:3px 14px 3px 0;
border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:600}
.net :is(th,td):nth-last-child(-n+2){text-align:right;white-space:nowrap}
.net tr:last-child td{font-weight:600}td{overflow-wrap:anywhere}
pre{background:var(--card);border-radius:8px;padding:10px 14px;white-space:pre-wrap;
overflow-wrap:anywhere}
@media print{main{max-width:none;padding:0}h2{break-after:avoid}}
"""


class _Part(NamedTuple):
    """A picture of the page."""

    section: str
    caption: str
    svg: str


def command_of(settings: Settings, shards: int | None = None) -> str:
    """The command that repeats a training with these settings, and with so many shards.

    >>> from fastcnn.recipes.training import settings_for
    >>> print(command_of(settings_for("article", epochs=1)))
    fastcnn train --net article --epochs 1 --batch-size 32 --optimizer sgd --lr 0.05 --no-augment
    --seed 0
    """
    words = ["fastcnn", "train", "--net", settings.net, "--epochs", str(settings.epochs)]
    words += ["--batch-size", str(settings.batch_size), "--optimizer", settings.optimizer]
    words += ["--lr", repr(settings.learning_rate)]
    words += ["--augment" if settings.augment else "--no-augment", "--seed", str(settings.seed)]
    for option, value in (
        ("--data" if settings.color is None else "--images", settings.data),
        ("--color", settings.color),
        ("--size", settings.size),
        ("--cache", settings.cache),
        ("--shards", shards),
    ):
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)


def page(settings: Settings, result: Trained) -> str:
    """The page of a complete training, as HTML.

    Args:
        settings: of the training.
        result: what :func:`fastcnn.recipes.training.train` returned, with figures of the test.

    Raises:
        ValueError: the training was interrupted.
        ImportError: Matplotlib is not installed.
    """
    if result.test is None:
        raise ValueError("result must be of a complete training, got one that was interrupted")
    sections: dict[str, list[_Part]] = {}
    for part in _parts(result):
        sections.setdefault(part.section, []).append(part)
    body = [
        f"<h1>fastcnn train: {escape(settings.net)}</h1>",
        _tiles(settings, result, result.test),
    ]
    for title, parts in sections.items():
        pictures = "".join(
            f"<figure>{part.svg}<figcaption>{escape(part.caption)}</figcaption></figure>"
            for part in parts
        )
        body.append(f'<h2>{escape(title)}</h2><div class="pair">{pictures}</div>')
    body += [_table_of_layers(result), _run(settings, result.shards), _machine()]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>fastcnn train: {escape(settings.net)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _tiles(settings: Settings, result: Trained, test: Mapping[str, float]) -> str:
    model = result.model
    parameters = sum(a.size for layer in model.layers for a in layer.parameters.values())
    tiles = [
        (f"{test['accuracy']:.2%}", "of the test images are right"),
        (f"{test['loss']:.4f}", "loss on the test images"),
        (f"{result.history.epochs}", "epoch" if result.history.epochs == 1 else "epochs"),
        (f"{result.seconds:.1f} s", "of training"),
        (f"{parameters:,}", "parameters"),
    ]
    cells = "".join(
        f'<div class="tile"><b>{escape(b)}</b><span>{escape(s)}</span></div>' for b, s in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _parts(result: Trained) -> Iterator[_Part]:
    """The pictures, each drawn when its turn comes, so that one figure exists at a time."""
    model, (images, labels) = result.model, result.test_data
    names = model.classes
    guesses = model.predict_classes(images)
    first = first_right(labels, guesses)
    sample = images[first : first + 1][0]
    wide: dict[str, Any] = {"width": _WIDTH}
    learning, mistakes, inside, reasons = (
        "Learning", "Where it is wrong", "What it has learned", "What an answer depends on",
    )  # fmt: skip
    for kind in ("loss", "accuracy"):
        curves = {k: v for k, v in result.history.history.items() if k.endswith(kind)}
        yield _part(learning, f"{kind.title()} by epoch.", lambda: plots.history(curves, **wide))  # noqa: B023
    yield _part(
        mistakes,
        "Rows are the true classes. Right answers are blue, mistakes orange.",
        lambda: plots.confusion_matrix(labels, guesses, names=names, **wide).get_figure(),
    )
    yield _part(
        mistakes,
        "The test images that are most surely wrong; blue is the true class.",
        lambda: plots.mistakes(model, images, labels, most=6, **wide),
    )
    yield _part(
        inside, "The weights of the first filters.", lambda: plots.filters(model, most=24, **wide)
    )
    yield _part(
        inside,
        "What these filters make of a test image.",
        lambda: plots.feature_maps(model, sample, most=23, **wide),
    )
    yield _part(
        reasons,
        "The size of the gradient: pixels that would change the score most.",
        lambda: plots.saliency(model, sample, **wide),
    )
    yield _part(
        reasons,
        "How far the probability falls where a square covers the image.",
        lambda: plots.occlusion(model, sample, **wide),
    )
    yield _part("The net", "Layers and values.", lambda: plots.graph(model, **wide).get_figure())


def first_right(labels: Array, guesses: Array) -> int:
    """The number of the first image whose class is right; 0 where none is.

    >>> import numpy as np
    >>> first_right(np.array([3, 1, 2]), np.array([0, 1, 2]))
    1
    """
    return int((guesses == labels).argmax())


def _part(section: str, caption: str, draw: Any) -> _Part:
    return _Part(section, caption, svg(draw, f"{section}: {caption}"))


def _table_of_layers(result: Trained) -> str:
    model = result.model
    rows = summary.rows(model._graph, model._known_shapes(), model._input_names())
    return (
        f'<h2>Layers</h2><div class="scroll net">{summary.as_html(rows)}</div>'
        '<p class="soft">MFLOP are for one image.</p>'
    )


def _run(settings: Settings, shards: int | None) -> str:
    return (
        "<h2>The same training again</h2>"
        f"<pre>{escape(command_of(settings, shards))}</pre>"
        '<p class="soft">With the same version the weights are the same to the bit, for any number '
        f"of threads. This was fastcnn {escape(__version__)}.</p>"
    )


def _machine() -> str:
    machine = facts()
    rows = {
        "processor": f"{machine['processor']} ({machine['architecture']})",
        "instructions": machine["isa"] or "not known without Numba",
        "threads": f"{machine['threads']} ({machine['threads_decided_by']})",
        "system": machine["system"],
        "Python": machine["python"],
        **{name: version for name, version in machine["packages"].items() if version},
    }
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f'<h2>Machine</h2><div class="scroll"><table>{cells}</table></div>'
