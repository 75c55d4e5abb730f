"""Write ``docs/benchmarks.md`` and its charts, from a full run here or from one that was saved.

pip install "fastcnn[peers]"
python benchmarks/write_report.py --machine "AMD EPYC, Zen 4, AVX-512, 2 cores"
python benchmarks/write_report.py --machine … --report FILE    (of fastcnn bench --full --json)
python benchmarks/write_report.py … --beside FILE --beside-machine "the same as AVX2"
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from fastcnn.bench import Report, bench, charts
from fastcnn.bench.costs import costs
from fastcnn.bench.report import ALONE, OURS, Entry, Figure
from fastcnn.bench.text import DOUBT, amount, duration, notes, threads_of, times, versions_of

DOCS = Path(__file__).resolve().parents[1] / "docs"
FAMILIES = ("PyTorch", "ONNX Runtime", "OpenVINO", "LiteRT", "JAX", "SciPy")


class Beside(NamedTuple):
    """A run on another machine, and the machine's name."""

    report: Report
    machine: str


def text_of(
    report: Report,
    machine: str,
    images: dict[str, str],
    beside: Beside | None = None,
    title: str = "Benchmarks",
) -> str:
    """The page. ``images`` are charts by file name, which this fills."""
    parts = [
        f"# {title}",
        f"Measured on {machine}: {threads_of(report)}, float32, on {report.when[:10]}; fastcnn "
        f"{report.machine['fastcnn']} beside {versions_of(report)}. Peak: {report.top:.0f} "
        f"GFLOP/s, copy: {report.bandwidth:.1f} GB/s. "
        "How: [the method](benchmark-method.md). This page is written by "
        "`python benchmarks/write_report.py`; for another machine, run it there.",
        *(f"> {note}" for note in notes(report)),
        "## Where fastcnn stands",
        _image(images, "standing", charts.standing(report)),
        "## In short",
        "\n".join(f"- {line}" for line in _short(report)),
        "## Where another library is faster",
        _losses(report, strict=False),
        "## In strict mathematics",
        'With `math="strict"` fastcnn uses direct sums alone. In contests that choose a direct sum '
        "anyway, the figure is the same. The others where another library is faster:",
        _losses(report, strict=True),
        *(_side_by_side(report, machine, beside, images) if beside else ()),
        "## How near to the limit",
        "The roof is the measured peak, and on its left a copy's bandwidth. Filled: fastcnn; "
        "hollow: the best of the other libraries. Problems of fewer than a thousand operations are "
        "left out. Points above the slope have their arrays in "
        "caches. Multiply-adds are counted as a direct sum needs them, so Winograd's algorithm, "
        "which needs fewer, may pass the roof.",
        _image(images, "roofline", charts.roofline(report)),
    ]
    for kind, entries in report.kinds.items():
        parts += [
            f"## {kind.capitalize()}",
            _table(report, entries),
            _image(images, f"limits-{entries[0].group}", charts.limits(report, entries)),
        ]
    parts += [
        "## From naive to fast",
        "naive: Python loops, the specification; im2col: stride tricks and matrix multiplication; "
        "fastcnn: compiled register tiles.",
        _image(images, "speedups", charts.speedups(report)),
        "## Scaling",
        *(
            _image(images, f"batches-{group}", chart)
            for group in dict.fromkeys(e.group for e in report.entries)
            if (chart := charts.batches(report, group))
        ),
        _image(images, "threads", charts.threads(report)),
    ]
    if report.costs:
        rows = ((c.name, c.family, amount(c.value, c.unit)) for c in report.costs)
        parts += ["## Before the first result", _rows(("what", "who", ""), rows)]
    parts += ["## Who did not take part, and why", _absent(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _side_by_side(
    report: Report, machine: str, beside: Beside, images: dict[str, str]
) -> Iterator[str]:
    """The sections that compare the runs of two machines."""
    other = beside.report
    yield "## Two machines side by side"
    yield (
        f"Also measured on {beside.machine}: {threads_of(other)}, on {other.when[:10]}; peak: "
        f"{other.top:.0f} GFLOP/s, copy: {other.bandwidth:.1f} GB/s. The table has fastcnn's speed "
        "÷ that of the fastest other library, and this library's name where it is faster."
    )
    yield _image(images, "standing-beside", charts.standing(other))
    by_name = {entry.name: entry for entry in other.entries}
    rows = [
        (
            "**geometric mean**",
            *(_mean(one, strict) for strict in (False, True) for one in (report, other)),
        ),
        (
            "**lost**",
            *(_lost(one, strict) for strict in (False, True) for one in (report, other)),
        ),
    ]
    for entry in report.entries:
        second = by_name.get(entry.name)
        if second is not None:
            both = entry, second
            cells = (_against(one, strict) for strict in (False, True) for one in both)
            rows.append((entry.name, *cells))
    here, there = (
        machine.rpartition(", ")[2] or machine,
        beside.machine.rpartition(", ")[2] or beside.machine,
    )
    heads = [here, there, f"{here}, strict", f"{there}, strict"]
    yield _rows(("contest", *heads), rows)


def _mean(report: Report, strict: bool) -> str:
    mean = report.mean_times_best_peer(strict)
    return "–" if mean is None else f"{times(mean)} ×"


def _lost(report: Report, strict: bool) -> str:
    return f"{len(report.losses(strict))} of {len(report.against_peers(strict))}"


def _against(entry: Entry, strict: bool) -> str:
    """fastcnn's speed ÷ the fastest peer's, with its name where it is faster."""
    ratio = entry.times(entry.best_peer, strict)
    if ratio is None or entry.best_peer is None:
        return "–"
    return _ratio(entry, ratio) + (f" {entry.best_peer.name}" if ratio < 1 else "")


def _short(report: Report) -> Iterator[str]:
    against = report.against_peers()
    yield (
        f"{len(report.entries)} contests; every result was verified before it was timed, and "
        f"{len(report.wrong) or 'none'} of fastcnn's was refused."
    )
    if against:
        yield (
            f"Another library is faster than fastcnn in {len(report.losses())} of {len(against)} "
            "contests."
        )
    if strict := report.against_peers(strict=True):
        mean = report.mean_times_best_peer(strict=True)
        assert mean is not None
        yield (
            f"In strict mathematics: {times(mean)} times the speed of the best other library, in "
            f"the geometric mean; another is faster in {len(report.losses(strict=True))} of "
            f"{len(strict)} contests."
        )
    for mean, whom in (
        (report.mean_times("naive"), "the naive engine"),
        (report.mean_times("im2col"), "the im2col engine"),
        (report.mean_times_best_peer(), "the best other library of each contest"),
    ):
        if mean is not None:
            yield f"{times(mean)} times the speed of {whom}, in the geometric mean."


def _losses(report: Report, strict: bool) -> str:
    """The contests that a peer won; for strict mathematics those whose figure is another."""
    rows = [
        (e.name, peer.name, _ratio(e, 1 / ratio), duration(peer.seconds), duration(ours.seconds))
        for e in report.losses(strict)
        if (peer := e.best_peer) and (ratio := e.times(peer, strict))
        if (ours := e.strict if strict else e.ours)
        if not strict or ours is not e.ours
    ]
    if not rows:
        return "In no contest of this run."
    return _rows(("contest", "faster", "by", "its time", "fastcnn"), rows)


def _table(report: Report, entries: list[Entry]) -> str:
    heads = ("", "naive", "im2col", "fastcnn, 1 thread", "fastcnn", "of limit")
    rows = []
    for entry in entries:
        ours = entry.ours
        cells = [entry.name.removeprefix(f"{entry.group}/")]
        names = "naive", "im2col", ALONE, OURS
        cells += [_time(entry.figure(name), entry.best) for name in names]
        memory = " of copy" if report.limit(entry) == "memory" else ""
        winograd = ", Winograd" if entry.method == "winograd" else ""
        share = "–" if ours is None else f"{report.share(entry, ours):.0%}{memory}{winograd}"
        cells.append(share)
        for family in FAMILIES:
            own = [f for f in entry.peers if f.family == family]
            cells.append(_time(own[0] if own else None, entry.best))
        ratio = entry.times(entry.best_peer)
        cells.append("–" if ratio is None else _ratio(entry, ratio))
        rows.append(cells)
    return _rows((*heads, *FAMILIES, "fastcnn by the best"), rows)


def _ratio(entry: Entry, ratio: float) -> str:
    return f"{times(ratio)} ×{DOUBT if entry.is_doubtful else ''}"


def _time(figure: Figure | None, best: Figure) -> str:
    if figure is None:
        return "–"
    told = duration(figure.seconds) + ("*" if figure.share < 1 else "")
    return f"**{told}**" if figure is best else told


def _absent(report: Report) -> str:
    told: dict[tuple[str, str], int] = {}
    for absent in (a for e in report.entries for a in e.absent):
        reason = "a call takes it too long" if absent.name == "naive" else absent.reason
        told[absent.name, reason] = told.get((absent.name, reason), 0) + 1
    return _rows(
        ("who", "why", "contests"), ((who, why, str(n)) for (who, why), n in sorted(told.items()))
    )


def _rows(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _image(images: dict[str, str], name: str, chart: str) -> str:
    if not chart:
        return ""
    images[f"{name}.svg"] = charts.standalone(chart)
    return f"![{name}](charts/{name}.svg)"


def main(
    machine: Annotated[str, typer.Option(help="The processor and its cores, by name.")],
    saved: Annotated[
        Path | None, typer.Option("--report", help="A saved run, in place of running.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="For all runners.")] = None,
    beside: Annotated[
        Path | None, typer.Option(help="A saved run of another machine, to set beside.")
    ] = None,
    beside_machine: Annotated[str, typer.Option(help="This machine, by name.")] = "",
    title: Annotated[str, typer.Option(help="Of the page.")] = "Benchmarks",
    folder: Annotated[Path, typer.Option(help="Where the page goes.")] = DOCS,
    name: Annotated[
        str, typer.Option(help="Of the page, and of its charts' folder.")
    ] = "benchmarks",
) -> None:
    """Run everything, or read it, and write the page."""
    if saved is None:
        report = bench(
            quick=False,
            threads=threads,
            costs=costs,
            progress=lambda done, total, name: print(f"{done}/{total} {name}", file=sys.stderr),
        )
    else:
        report = Report.read(saved)
    images: dict[str, str] = {}
    second = None if beside is None else Beside(Report.read(beside), beside_machine)
    page = text_of(report, machine, images, second, title).replace("](charts/", f"]({name}/")
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("*.svg"):
        old.unlink()
    for file, chart in images.items():
        (place / file).write_text(chart, "utf-8")
    (folder / f"{name}.md").write_text(page, "utf-8")
    print(f"written: {folder / name}.md")


if __name__ == "__main__":
    typer.run(main)
