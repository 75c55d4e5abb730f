"""What options of a training cost: metrics on training batches, and frozen layers.

    python benchmarks/training_options.py [--rounds 7]

Nets by name on MNIST, batches of 32, plain SGD. Each option takes an epoch in turn with the plain
training, on the same images, in one process. A ratio is the median over the rounds of the time of
the plain training ÷ that of the option; above 1 the option is faster. A time is that of the least
epoch.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Annotated, Any

import typer

import fastcnn
from fastcnn.layers import Layer
from fastcnn.nets import NETS

OPTIONS = ("f1 and AUC", "all but the last layer frozen")


def trained(name: str, option: str | None) -> tuple[fastcnn.Sequential, dict[str, Any]]:
    """A net and the arguments of its ``fit``."""
    layers: list[Layer] = NETS[name]()
    if option == OPTIONS[1]:
        for layer in layers[:-1]:
            layer.trainable = False
    metrics = ["f1", "auc"] if option == OPTIONS[0] else None
    return fastcnn.Sequential(layers, (28, 28, 1), seed=0), {"metrics": metrics}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Epochs of each.")] = 7,
    images: Annotated[int, typer.Option(min=32, help="Images of an epoch.")] = 4096,
) -> None:
    """Print the table."""
    (x, y), _ = fastcnn.load_mnist()
    x, y = x[:images], y[:images]
    print("| net | option | plain | with it | ratio |\n| --- | --- | --- | --- | --- |")
    for name in ("article", "lenet5", "wide"):
        runs = {option: trained(name, option) for option in (None, *OPTIONS)}
        seconds: dict[str | None, list[float]] = {option: [] for option in runs}
        for number in range(rounds + 1):
            for option, (model, settings) in runs.items():
                begin = perf_counter()
                model.fit(x, y, verbose=0, **settings)
                if number:  # the first epoch compiles
                    seconds[option].append(perf_counter() - begin)
        for option in OPTIONS:
            pairs = zip(seconds[None], seconds[option], strict=True)
            ratio = median(plain / other for plain, other in pairs)
            plain, own = (1e3 * min(seconds[one]) for one in (None, option))
            print(f"| {name} | {option} | {plain:.0f} ms | {own:.0f} ms | {ratio:.2f} |")


if __name__ == "__main__":
    typer.run(main)
