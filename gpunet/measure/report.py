"""report.html: what a run found, as one page that needs nothing else. Every text in it is escaped.

The page takes its colours from the reader's system, is one column on a telephone, and prints.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import resources

from gpunet.measure import charts, info, tables
from gpunet.measure.rows import Curve, Proof, Report, Row
from gpunet.measure.tables import seconds_text

BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
SECTIONS = {
    "ran": "What ran",
    "times": "Times",
    "training": "Training",
    "proofs": "Proofs",
    "machine": "Machine",
    "reading": "How to read this",
}
READING = (
    "A time is the median of a kernel's calls on random inputs, without the first call; its interval holds the true "
    "median with 95 % confidence. Cold: each call found its inputs outside the caches. Hot: they may have been inside.",
    "Percent of the roof: the least time for the kernel's bytes and operations over the time it took. The roof was "
    "measured in this run: memory by copies, arithmetic by the library's matrix product. A little above 100 % is "
    "noise, or a part of the data that stayed in a cache; what neither explains is impossible and fails the run.",
    "Operations are those of the definition, whatever a kernel does to save some. Bytes are every array once.",
    "A proof ran the kernel three times on fresh random inputs with its output filled with NaN first. It passed if "
    "each value is as close to the definition in float64 as its dtype and the length of its sums allow, the inputs are "
    "untouched, the memory is its own, and the three runs agree in every bit.",
    "The definition is written in NumPy. It is proved in float32 against itself in float64, its gradients against "
    "central differences; that its values are the right ones is what the tests hold against PyTorch.",
)


def html(report: Report) -> str:
    """The page of a report.

    Example:
        >>> from gpunet.measure import report, rows
        >>> report.html(rows.Report(notes=["<b>"])).count("&lt;b&gt;")
        1
    """
    style = resources.files("gpunet.measure").joinpath("report.css").read_text(encoding="utf-8")
    made: dict[str, Callable[[Report], str]] = {
        "ran": _ran, "times": _times, "training": _training, "proofs": _proofs, "machine": _machine,
        "reading": _reading,
    }  # fmt: skip
    bodies = {name: made[name](report) for name in SECTIONS}
    links = "".join(f'<a href="#{name}">{SECTIONS[name]}</a>' for name, body in bodies.items() if body)
    parts = [f'<section id="{n}"><h2>{SECTIONS[n]}</h2>{body}</section>' for n, body in bodies.items() if body]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>gpunet report</title>'
        f"<style>{style}</style></head><body>{_head(report)}<nav>{links}</nav>{''.join(parts)}</body></html>\n"
    )


# ------------------------------------------------------------------------------------------------------------ pieces


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already; columns in ``numbers`` are set right. Many columns scroll."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=n' if k in numbers else ''}>{cell}</{tag}>" for k, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    wide = ' class="wide"' if len(heads) > 9 else ' class="broad"' if len(heads) > 5 else ""
    head = f"<thead><tr>{cells('th', heads)}</tr></thead>"
    return f'<div class="scroll"><table{wide}>{head}<tbody>{body}</tbody></table></div>'


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    return f'<dl class="facts">{"".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in pairs)}</dl>'


def _list(lines: Iterable[str], kind: str = "") -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def _mark(good: bool, text: str) -> str:
    return f'<span class="{"good" if good else "bad"}">{escape(text)}</span>'


def _cards(cards: Iterable[str]) -> str:
    return f'<div class="cards">{"".join(f"""<div class="card">{card}</div>""" for card in cards)}</div>'


def _number(value: float | None, form: str = ".3g") -> str:
    return "–" if value is None else f"{value:{form}}"


# ---------------------------------------------------------------------------------------------------------- sections


def _head(report: Report) -> str:
    environment = report.environment
    about = " · ".join(
        str(text)
        for text in (
            environment.get("time"),
            f"gpunet {environment.get('packages', {}).get('gpunet', '')}".strip(),
            environment.get("processor", {}).get("model"),
            *(gpu.get("name") for gpu in environment.get("gpus", [])),
        )
        if text
    )
    good = not report.failed and report.complete
    failures = _list(report.failed, "bad") if report.failed else ""
    return (
        f'<header><h1>gpunet report</h1><p class="soft">{escape(about)}</p>'
        f'<p class="verdict {"good" if good else "bad"}">{escape(tables.verdict(report))}</p>{failures}</header>'
    )


def _ran(report: Report) -> str:
    rows = [
        (escape(f"{device} {backend}"), _mark(True, "yes") if runs else '<span class="soft">no</span>', escape(about))
        for device, backend, runs, about in info.backend_lines(report.environment)
    ]
    spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report.seconds.items())
    told = f"<p>Time spent: {escape(spent)}.</p>" if spent else ""
    notes = f"<h3>Left out, and why</h3>{_list(report.notes)}" if report.notes else ""
    return told + (_table(("where", "runs", "kernels, or why not and what to do"), rows) if rows else "") + notes


def _times(report: Report) -> str:
    if not report.rows:
        return ""
    lanes = tables.lanes(report.rows)
    ops = dict.fromkeys(each.op for each in report.rows)
    roofs = [
        (escape(each.device), each.dtype, *(_number(rate / 1e9) for rate in (each.flops, each.memory, each.cache)))
        for each in report.roofs
    ]
    heads = ("device", "dtype", "GFLOP/s", "memory GB/s", "cache GB/s")
    return (
        f"{charts.legend(lanes)}{_cards(_op_card([row for row in report.rows if row.op == op], lanes) for op in ops)}"
        f"<h3>The roof</h3>{_table(heads, roofs, (2, 3, 4))}"
        f"<details><summary>Every row in numbers</summary>{_row_table(report.rows)}</details>"
    )


def _op_card(rows: Sequence[Row], lanes: Sequence[str]) -> str:
    """The bars of one op, a group for each size: times of different sizes have nothing in common."""
    parts = [f"<h3>{escape(rows[0].op)}</h3>"]
    for size, dtype in dict.fromkeys((each.size, each.dtype) for each in rows):
        mine = [each for each in rows if (each.size, each.dtype) == (size, dtype)]
        name = size if dtype == "float32" else f"{size} {dtype}"
        parts.append(f'<p class="size">{escape(name)} <span class="soft">{escape(mine[0].origin)}</span></p>')
        parts.append(charts.bars([_bar(each, lanes) for each in mine]))
    return "".join(parts)


def _bar(row: Row, lanes: Sequence[str]) -> tuple[str, float, str, int]:
    lane = tables.lane_of(row)
    rung = "" if row.variant == "reference" else row.variant
    name = " ".join(part for part in (tables.short_entry(row), lane if len(lanes) > 1 else "", rung) if part)
    rate = f"{row.gflops:.3g} GFLOP/s" if row.bound == "compute" else f"{row.gbytes:.3g} GB/s"
    told = f"{seconds_text(row.time.median)} · {rate}{' · IMPOSSIBLE' if row.impossible else ''}"
    return name, row.time.median, told, lanes.index(lane)


def _row_table(rows: Sequence[Row]) -> str:
    heads = (
        "op", "size", "entry", "kernel", "dtype", "shapes", "median", "95 % interval", "samples", "outliers",
        "first call", "cache", "GFLOP/s", "GB/s", "% of roof", "error", "allowed",
    )  # fmt: skip
    return _table(heads, (_row_cells(each) for each in rows), (6, 7, 8, 9, 10, 12, 13, 14, 15, 16))


def _row_cells(row: Row) -> list[str]:
    time = row.time
    shapes = " ".join("×".join(map(str, shape)) or "()" for shape in row.shapes)
    texts = (
        row.op, row.size, row.entry, f"{row.device} {row.backend} {row.variant} {row.place}", row.dtype, shapes,
        seconds_text(time.median), f"{seconds_text(time.low)} to {seconds_text(time.high)}",
        f"{time.n}{f'×{time.inner}' if time.inner > 1 else ''}", str(time.outliers), seconds_text(time.first_call),
        f"{time.cache}, {time.buffers} copies" if time.buffers > 1 else time.cache,
        _number(row.gflops), _number(row.gbytes), f"{_number(row.roof_percent, '.0f')} {row.bound}",
        _number(row.reached, ".1e"), _number(row.allowed, ".1e"),
    )  # fmt: skip
    cells = [escape(str(text)) for text in texts]
    if row.impossible:
        cells[14] = _mark(False, f"{_number(row.roof_percent, '.0f')} {row.bound}, impossible")
    return cells


def _training(report: Report) -> str:
    if not report.training:
        return ""
    names = [each.lane for each in report.training]
    rows = [_curve_cells(each) for each in report.training]
    heads = ("where", "epochs", "images", "images/s", "s an epoch", "last loss", "test images right", "ended early")
    apart = [
        (
            escape(each.first),
            escape(each.second),
            str(each.steps),
            _number(each.early, ".1e"),
            _number(each.overall, ".1e"),
        )
        for each in report.agreement
    ]
    table = (
        _table(("losses of", "and of", "steps", "apart in the first ten", "in all"), apart, (2, 3, 4)) if apart else ""
    )
    chart = charts.curves([(each.lane, each.losses) for each in report.training], "step", "loss")
    kernels = "".join(f"<p>{escape(each.lane)}</p>{_list(each.kernels)}" for each in report.training)
    return (
        "<p>The reference CNN on images of clothes, from the same weights and batches on every device.</p>"
        f"{charts.legend(names)}{chart}{_table(heads, rows, (1, 2, 3, 4, 5, 6))}{table}"
        f"<details><summary>Which kernels ran in a step</summary>{kernels}</details>"
        f"{_samples(report.training[-1])}"
    )


def _curve_cells(curve: Curve) -> list[str]:
    last = curve.losses[-1] if curve.losses else None
    right = "–" if curve.accuracy is None else f"{100 * curve.accuracy:.1f} % of {curve.test_images}"
    texts = (
        curve.lane, _number(curve.epochs, ".2g"), str(curve.train_images), _number(curve.images_per_second, ".0f"),
        _number(curve.seconds_per_epoch), _number(last, ".4f"), right, curve.stopped or "no",
    )  # fmt: skip
    return [escape(text) for text in texts]


def _samples(curve: Curve) -> str:
    figures = []
    for each in curve.samples:
        image, true, guess = (str(each.get(key, "")) for key in ("image", "true", "predicted"))
        if not BASE64.fullmatch(image):
            continue
        told = escape(true) if true == guess else f"{escape(true)}, taken for {_mark(False, guess)}"
        picture = f'<img alt="{escape(true, quote=True)}" src="data:image/png;base64,{image}">'
        figures.append(
            f'<figure class="{"hit" if true == guess else "miss"}">{picture}<figcaption>{told}</figcaption></figure>'
        )
    if not figures:
        return ""
    title = f"<h3>Test images, and what {escape(curve.lane)} took them for</h3>"
    return f'{title}<div class="samples">{"".join(figures)}</div>'


def _proofs(report: Report) -> str:
    if not report.proofs:
        return ""
    words = ("passed", "failed", "untested", "refused")
    counts = [
        (escape(lane), *(_count(word, table[word]) for word in words))
        for lane, table in tables.proof_counts(report.proofs).items()
    ]
    groups: dict[tuple[str, str, str], list[Proof]] = {}
    for each in report.proofs:
        groups.setdefault((each.entry, tables.lane_of(each), each.variant), []).append(each)
    rows = [_proof_cells(key, each) for key, each in groups.items()]
    heads = ("kernel", "passed", "of the allowed error")
    details = f"<details open><summary>Every kernel</summary>{_table(heads, rows, (1, 2))}</details>"
    return _table(("where", *words), counts, (1, 2, 3, 4)) + details


def _count(word: str, count: int) -> str:
    return _mark(False, str(count)) if count and word in ("failed", "untested") else str(count)


def _proof_cells(key: tuple[str, str, str], proofs: Sequence[Proof]) -> list[str]:
    counted = [each for each in proofs if each.status != "refused"]
    passed = sum(each.status == "passed" for each in counted)
    shares = [each.reached / each.allowed for each in counted if each.reached is not None and each.allowed]
    bits = [each.deterministic for each in counted if each.deterministic is not None]
    entry, lane, variant = key
    dtypes = sorted({each.dtype for each in counted if each.dtype})
    about = escape(
        ", ".join(part for part in (lane, variant, *dtypes, "same bits" if bits and all(bits) else "") if part)
    )
    wrong = [f"{each.size} {each.dtype}: {each.reason}" for each in counted if each.status != "passed"]
    return [
        "<br>".join([escape(entry), f'<span class="soft">{about}</span>', *(_mark(False, line) for line in wrong)]),
        _mark(passed == len(counted), f"{passed} of {len(counted)}"),
        _share_text(max(shares)) if shares else "–",
    ]


def _share_text(share: float) -> str:
    return "0 %" if share == 0 else "&lt; 0.1 %" if share < 1e-3 else f"{100 * share:.2g} %"


def _machine(report: Report) -> str:
    return _facts(info.facts(report.environment)) if report.environment else ""


def _reading(report: Report) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in READING)
