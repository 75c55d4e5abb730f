"""The report as one self-contained page, for a phone, a desktop, and paper."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from fastcnn.bench import charts
from fastcnn.bench.report import ALONE, OURS, Entry, Figure, Report
from fastcnn.bench.text import DOUBT, amount, duration, noise, notes, threads_of, times, versions_of

_FOLDED = 4  # a note with as many separators as this is folded
_STYLE = (
    charts.STYLE.replace("svg{", ":root{")
    + charts.CHART_STYLE
    + """
:root{color-scheme:light dark}*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);line-height:1.5;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:1.7rem;margin:.2em 0}h2{font-size:1.25rem;margin:2.2em 0 .5em}
h3{font-size:1rem;margin:1.6em 0 .3em}p{margin:.5em 0;max-width:70ch}
.soft{color:var(--soft)}.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));
gap:10px;margin:18px 0}.tile{border:1px solid var(--line);border-radius:10px;padding:10px 14px}
.tile b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}
.tile span{font-size:.85rem;color:var(--soft)}
.warn{border-left:4px solid #d97706;padding:6px 12px;margin:10px 0;background:#d9770618}
.wrong{border-color:#dc2626;background:#dc262618}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,350px),1fr));gap:26px;
align-items:start}.bars{columns:350px;column-gap:26px}.bars>div{break-inside:avoid}
.bars h3{margin-top:0;padding-top:1em}svg{width:100%;max-width:560px;height:auto;display:block}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem;
font-variant-numeric:tabular-nums}th,td{text-align:right;padding:3px 8px;white-space:nowrap;
border-bottom:1px solid var(--line)}th{font-weight:600;color:var(--soft)}
th:first-child,td:first-child{text-align:left;
padding-left:0;white-space:normal;min-width:8.5em}tr.best td{font-weight:650}
tr.ours td:first-child{color:var(--fastcnn);font-weight:650}
.track{width:110px;line-height:0}.meter{display:inline-block;height:9px;border-radius:2px}
th{white-space:normal;vertical-align:bottom}.slot{text-align:left!important}
details{margin:.4em 0}summary{cursor:pointer}
ul{padding-left:1.2em}nav a{margin-right:1em;color:var(--fastcnn)}
@media(max-width:560px){.track{width:52px}body{font-size:15px}table{font-size:.8rem}
th,td{padding:3px 4px}th:first-child,td:first-child{min-width:7em;overflow-wrap:anywhere}
.contest :is(th,td):is(:nth-child(5),:nth-child(7)),.lost :is(th,td):nth-child(n+4),
.peers :is(th,td):nth-child(2){display:none}}
@media print{body{font-size:10pt}main{max-width:none;padding:0}nav{display:none}
.pair{grid-template-columns:1fr 1fr}
h2,h3{break-after:avoid}table,svg,.tile{break-inside:avoid}details>*{display:block}}
"""
    + "".join(
        f".meter.{name}{{background:var(--{name})}}"
        for name in (
            "fastcnn",
            "im2col",
            "naive",
            "PyTorch",
            "ONNX",
            "OpenVINO",
            "LiteRT",
            "JAX",
            "SciPy",
        )
    )
)


def page(report: Report) -> str:
    """The whole page."""
    machine = report.machine
    extent = "quick run" if report.quick else "full run"
    body = [
        "<h1>fastcnn benchmark</h1>",
        f'<p class="soft">{escape(machine["processor"])}, {escape(str(machine["isa"]))}, '
        f"{threads_of(report)}, float32; {extent} of {escape(report.when[:10])}, "
        f"{report.seconds:.0f} s; fastcnn {escape(machine['fastcnn'])}, Python "
        f"{escape(machine['python'])}, {escape(versions_of(report))}.</p>",
        f'<div class="pair">{_standing(report)}{_tiles(report)}</div>',
        *(f'<p class="warn wrong"><b>Refused:</b> {escape(a.reason)}</p>' for _, a in report.wrong),
        *(_note(note) for note in notes(report)),
        '<nav><a href="#peers">Peers</a><a href="#limit">Limit</a><a href="#steps">Steps</a>'
        '<a href="#scaling">Scaling</a><a href="#all">All figures</a><a href="#method">Method</a>'
        "</nav>",
        _against_peers(report),
        _limit(report),
        _steps(report),
        _scaling(report),
        _costs(report),
        _all(report),
        _METHOD,
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>fastcnn benchmark</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _note(note: str) -> str:
    """A note as a paragraph; a long list in it is folded."""
    before, _, names = note.partition(": ")
    if names.count("; ") < _FOLDED:
        return f'<p class="warn">{escape(note)}</p>'
    items = "".join(f"<li>{escape(name)}</li>" for name in names.rstrip(".").split("; "))
    return (
        f'<details class="warn"><summary>{escape(before)}: {names.count("; ") + 1} contests'
        f"</summary><ul>{items}</ul></details>"
    )


def _standing(report: Report) -> str:
    chart = charts.standing(report)
    if not chart:
        return ""
    return f"<div><h2>Where fastcnn stands</h2>{chart}</div>"


def _tiles(report: Report) -> str:
    against = report.against_peers()
    tiles = [
        (f"{len(report.entries)}", "contests, every result verified before it was timed"),
    ]
    if against:
        tiles += [
            (_mean(report.mean_times_best_peer()), "the best peer's speed"),
            (f"{len(report.losses())} of {len(against)}", "contests in which a peer is faster"),
        ]
    if strict := report.against_peers(strict=True):
        mean, lost = report.mean_times_best_peer(strict=True), report.losses(strict=True)
        tiles += [
            (_mean(mean), "the best peer's speed, in strict mathematics"),
            (f"{len(lost)} of {len(strict)}", "in which a peer is faster, in strict mathematics"),
        ]
    for engine in ("im2col", "naive"):
        if (factor := report.mean_times(engine)) is not None:
            tiles.append((_mean(factor), f"the {engine} engine's speed"))
    tiles.append((f"{report.top:.0f}", "GFLOP/s: the measured peak"))
    cells = "".join(
        f'<div class="tile"><b>{escape(b)}</b><span>{escape(s)}</span></div>' for b, s in tiles
    )
    return f'<div><div class="tiles">{cells}</div><p class="soft">Means are geometric.</p></div>'


def _mean(value: float | None) -> str:
    return "–" if value is None else f"{times(value)} ×"


def _against_peers(report: Report) -> str:
    against = report.against_peers()
    if not against:
        return (
            '<h2 id="peers">Against other libraries</h2><p>No other library was installed and '
            "chosen.</p>"
        )
    families = dict.fromkeys(f.family for e in against for f in e.peers)
    wins = "".join(
        _row(
            [
                family,
                str(len(met)),
                str(sum(ratio > 1 for ratio in met)),
                f"{times(min(met))} ×",
                f"{times(sorted(met)[len(met) // 2])} ×",
                f"{times(max(met))} ×",
            ]
        )
        for family in families
        if (met := _ratios(against, family))
    )
    heads = ["peer, at its best", "contests", "fastcnn wins", "least", "median", "most"]
    return (
        '<h2 id="peers">Against other libraries</h2><h3>Where a peer is faster</h3>'
        + _lost(report, strict=False)
        + "<h3>Where a peer is faster than fastcnn in strict mathematics</h3>"
        + _lost(report, strict=True)
        + "<h3>How many times as fast as each peer fastcnn is</h3>"
        + _table(heads, wins, "peers")
    )


def _lost(report: Report, strict: bool) -> str:
    """The contests that a peer won; for strict mathematics those whose figure is another."""
    rows = "".join(
        _row(
            [
                entry.name,
                peer.name,
                f"{times(1 / ratio)} ×" + (DOUBT if entry.is_doubtful else ""),
                duration(peer.seconds),
                duration(ours.seconds),
            ]
        )
        for entry in report.losses(strict)
        if (peer := entry.best_peer) and (ratio := entry.times(peer, strict))
        if (ours := entry.strict if strict else entry.ours)
        if not strict or ours is not entry.ours
    )
    if not rows:
        return f"<p>In no {'other ' if strict else ''}contest of this run.</p>"
    return _table(["contest", "faster peer", "by", "its time", "fastcnn"], rows, "lost")


def _ratios(entries: list[Entry], family: str) -> list[float]:
    rows = []
    for entry in entries:
        figures = [f for f in entry.peers if f.family == family]
        ratio = entry.times(figures[0]) if figures else None
        if ratio is not None:
            rows.append(ratio)
    return rows


def _limit(report: Report) -> str:
    bars = "".join(
        f"<div><h3>{escape(kind)}</h3>{charts.limits(report, entries)}</div>"
        for kind, entries in report.kinds.items()
    )
    return (
        '<h2 id="limit">How near to the limit</h2><div class="pair"><div>'
        f"{charts.roofline(report)}</div><div><p>The roof is measured. Its slope is the "
        "bandwidth of a copy, and its top the peak of multiply-adds. Points above the slope have "
        "their arrays in caches. Problems of fewer than a thousand operations are left out. "
        "Multiply-adds are counted as a direct sum needs them, so "
        "Winograd's algorithm, which needs fewer, may pass the roof.</p><p>Filled points are "
        "fastcnn, hollow ones the best peer.</p></div></div><h3>Bars for each layer</h3>"
        '<p class="soft">The share of its limit that each runner reaches, on one scale. The limit '
        "is the measured peak of multiply-adds, or a copy's bandwidth.</p>"
        f'<div class="bars">{bars}</div>'
    )


def _steps(report: Report) -> str:
    steps = charts.speedups(report) or '<p class="soft">naive did not run.</p>'
    threads = charts.threads(report) or '<p class="soft">This run had one thread.</p>'
    return (
        '<div class="pair"><div><h2 id="steps">From naive to fast</h2><p>naive: Python loops, the '
        "specification. im2col: stride tricks and matrix multiplication. fastcnn: compiled "
        f"register tiles.</p>{steps}</div><div><h2>Threads</h2>"
        f"<p>What more than one thread brings.</p>{threads}</div></div>"
    )


def _scaling(report: Report) -> str:
    groups = dict.fromkeys(e.group for e in report.entries)
    drawn = [chart for g in groups if (chart := charts.batches(report, g))]
    batch = "".join(f"<div>{chart}</div>" for chart in drawn)
    if not drawn:
        batch = '<p class="soft">Each problem ran at one batch size: a full run has more.</p>'
    return f'<h2 id="scaling">Scaling over the batch</h2><div class="pair">{batch}</div>'


def _costs(report: Report) -> str:
    if not report.costs:
        return ""
    rows = "".join(_row([c.name, c.family, amount(c.value, c.unit)]) for c in report.costs)
    return "<h2>Before the first result</h2>" + _table(["", "", ""], rows)


def _all(report: Report) -> str:
    return '<h2 id="all">All figures</h2>' + "".join(_contest(report, e) for e in report.entries)


def _contest(report: Report, entry: Entry) -> str:
    memory = report.limit(entry) == "memory"
    heads = ["", "", "time", "fastcnn ×", "GFLOP/s", "of copy" if memory else "of peak", "noise"]
    best = entry.best
    rows = "".join(
        _row(
            [
                figure.name
                + (f", {entry.method}" if entry.method and figure.name in (OURS, ALONE) else "")
                + ("*" if figure.share < 1 else ""),
                _meter(best, figure),
                duration(figure.seconds),
                "" if figure is entry.ours else _times(entry, figure),
                f"{entry.gflops(figure):.1f}" if entry.flops else "",
                f"{report.share(entry, figure):.0%}",
                noise(figure),
            ],
            "best" if figure is best else "ours" if figure is entry.ours else "",
        )
        for figure in sorted(entry.figures, key=lambda f: f.seconds)
    )
    absent = "".join(f"<li>{escape(a.name)}: {escape(a.reason)}</li>" for a in entry.absent)
    left = f"<details><summary>left out</summary><ul>{absent}</ul></details>" if absent else ""
    return f"<h3>{escape(entry.name)}</h3>" + _table(heads, rows, "contest") + left


def _meter(best: Figure, figure: Figure) -> str:
    width = max(1.5, 100 * best.seconds / figure.seconds)
    inner = f'<span class="meter {charts.colour(figure)}" style="width:{width:.1f}%"></span>'
    return f'<div class="track">{inner}</div>'


def _times(entry: Entry, figure: Figure) -> str:
    ratio = entry.times(figure)
    return "" if ratio is None else times(ratio)


def _table(heads: list[str], rows: str, css: str = "") -> str:
    cells = "".join(f"<th>{escape(head)}</th>" for head in heads)
    return f'<div class="scroll {css}"><table><tr>{cells}</tr>{rows}</table></div>'


def _row(cells: Iterable[str], css: str = "") -> str:
    columns = "".join(
        f'<td class="slot">{cell}</td>' if cell.startswith("<div") else f"<td>{escape(cell)}</td>"
        for cell in cells
    )
    return f'<tr class="{css}">{columns}</tr>' if css else f"<tr>{columns}</tr>"


_METHOD = """
<h2 id="method">Method</h2>
<ul>
<li>Before a runner is timed, its result is compared with the reference, on integers that make every
sum exact. A runner with a wrong result is refused.</li>
<li>Runners take turns in one process, on the same number of threads. A figure is the least of many
samples, because other work on the machine disturbs the least sample least.</li>
<li>Operations are counted from the geometry. A multiply-add counts as 2 and padding as 0. The count
is the same for all algorithms.</li>
<li>Peers run in each of their layouts, and the faster one counts. Weights in a peer's own layout
and compiled graphs are prepared before the timing.</li>
<li>Noise is the distance of the second and third least turns from the least. “once” means that one
turn filled the runner's part of the time.</li>
<li>The figures mislead on a machine that is busy or changes its clock, for programs whose arrays
are not in the caches, and for problems that are not in the table.</li>
</ul>
"""
