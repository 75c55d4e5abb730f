"""``fastcnn demo``: the article's CNN on MNIST."""

from __future__ import annotations

import typer

from fastcnn.cli.options import Seed
from fastcnn.cli.outcomes import DISAGREE, plain_errors


def demo(seed: Seed = 0) -> None:
    """See the article's CNN run on MNIST, and learn.

    It runs on every engine, one image at a time, and then trains with the fastest engine.
    The demo takes about half a minute. The exit code is 1 if the engines disagree.
    """
    with plain_errors():
        from fastcnn.recipes.demo import demo as run

        agreed = run(seed=seed).ok
    if not agreed:
        raise typer.Exit(DISAGREE)
