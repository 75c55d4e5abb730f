"""``fastcnn show``: a model file as text: its layers, its work, and how it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fastcnn.cli.evaluate import Model
from fastcnn.cli.options import AsJson
from fastcnn.cli.outcomes import plain_errors
from fastcnn.cli.reading import (
    BgrOption,
    LayoutOption,
    NamesOption,
    Reading,
    ScalingOption,
    SizeOption,
    reading_of,
)


def show(
    model: Model,
    image: Annotated[
        Path | None,
        typer.Argument(metavar="[IMAGE]", help="A PNG or JPEG file: show how the model sees it."),
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="Also how the layers train, one unit a line.")
    ] = False,
    scaling: ScalingOption = None,
    size: SizeOption = None,
    layout: LayoutOption = None,
    bgr: BgrOption = False,
    classes: NamesOption = None,
    as_json: AsJson = False,
) -> None:
    """Show a saved model: its layers, its work and its plan.

    A table lists shapes, parameters and MFLOP. The plan of a prediction names the layers that are
    done together, the kernel of each, and the memory that it reads and writes for one sample.
    Nothing is computed.

    With IMAGE the output shows the picture as the model gets it, the steps of its preparation, the
    probabilities, and what each layer makes of it: of its channels those that vary most. An ONNX
    file of another program then needs --scaling.
    """
    with plain_errors():
        reading = reading_of(scaling, size, layout, bgr, classes)
        if image is not None:
            from fastcnn.cli.picture_net import PictureNet
            from fastcnn.cli.show_picture import show_picture

            if training:
                raise ValueError("--training takes no IMAGE")
            show_picture(PictureNet(model, reading), image, as_json)
            return
        from fastcnn.core.terminal import columns_of_output

        facts = _facts(model, reading, training, None if as_json else columns_of_output())
        if as_json:
            from json import dumps

            typer.echo(dumps(facts, indent=2))
        else:
            _print(facts, columns_of_output())


def _facts(path: Path, reading: Reading, training: bool, width: int | None) -> dict[str, Any]:
    """What the output shows, with drawing and table for a terminal of this width."""
    from fastcnn.cli.models import open_model
    from fastcnn.models import picture, summary

    net: Any = open_model(path, reading)
    shapes = net._known_shapes()
    shapes_of_values = net._graph.infer(shapes)
    rows = summary.rows(net._graph, shapes, net._input_names())
    names = summary.value_names(net._graph, net._input_names())
    plan, _, steps = net.explain().partition("\ntraining:\n")
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "dtype": net.dtype.name,
        "inputs": dict(zip(net._input_names(), map(list, shapes), strict=True)),
        "outputs": dict(zip(net._output_names(), map(list, net._output_shapes()), strict=True)),
        "trained_on": net.trained_on,
        "preparation": None if net.preparation is None else net.preparation.as_dict(),
        "parameters": rows[-1].parameters,
        "mflop": rows[-1].mflop,
        "layers": [
            {
                "name": names[node.output],
                "layer": row.layer,
                "inputs": [names[value] for value in node.inputs],
                "output_shape": list(shapes_of_values[node.output]),
                "parameters": row.parameters,
                "frozen": row.frozen,
                "mflop": row.mflop,
            }
            for node, row in zip(net._graph.nodes, rows, strict=False)
        ],
        "drawing": None
        if net._graph.is_chain
        else picture.drawing(net._graph, shapes, net._input_names(), width),
        "table": summary.text(rows, width),
        "prediction": plan.removeprefix("prediction:\n").splitlines(),
        **({"training": steps.splitlines()} if training and steps else {}),
    }


def _print(facts: dict[str, Any], width: int | None) -> None:
    from fastcnn.core.tables import lines_of

    typer.echo(f"{facts['file']}: {facts['bytes']:,} bytes, {facts['dtype']}")
    for kind in ("inputs", "outputs"):
        for name, shape in facts[kind].items():
            typer.echo(f"  {kind[:-1]:<6} {name}  {tuple(shape)}")
    trained_on = facts["trained_on"]
    kinds = trained_on if isinstance(trained_on, tuple) else (trained_on,)
    names = [kind or "nothing that it knows of" for kind in kinds]
    typer.echo(f"  trained on {', '.join(names) if len(set(names)) > 1 else names[0]}")
    if facts["preparation"] is not None:
        line = f"  pictures: {_pictures(facts['preparation'])}"
        typer.echo("\n".join(lines_of(line, width, 2)))
    for text in (facts["drawing"], facts["table"]):
        if text is not None:
            typer.echo(f"\n{text}")
    for title in ("prediction", "training"):
        if title in facts:
            typer.echo(f"\n{title}:")
            for line in facts[title]:
                typer.echo("\n".join(lines_of(line, width, 4)))


def _pictures(preparation: dict[str, Any]) -> str:
    """How pictures become the net's inputs, from the fields of a ``Preparation``."""
    edges = "the rest filled" if preparation["edges"] == "pad" else "the edges cut off"
    parts = [f"the whole picture, {edges}"]
    if preparation["box"] is not None:
        centre = "centre of mass" if preparation["centre"] == "mass" else "middle"
        size = f"scaled to {preparation['box']:.0%} of the side"
        parts = ["drawings are cropped", size, f"centred by their {centre}"]
    if preparation["background"] is not None:
        parts.append(f"{preparation['background']} background")
    if preparation["transposed"]:
        parts.append("rows and columns exchanged")
    return ", ".join(parts)
