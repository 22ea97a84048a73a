"""report.html: what a run found, as one page that needs nothing else. Every text in it is escaped.

The page takes its colours from the reader's system, is one column on a telephone, and prints. Its sections are in
:mod:`gpunet.measure.report_parts`.
"""

from collections.abc import Callable
from html import escape
from importlib import resources

from gpunet.measure import info, tables
from gpunet.measure.report_parts import elsewhere, growth, learning, pieces, proofs, ratios, roofline, times
from gpunet.measure.rows import Report

READING = (
    "A time is the median of a kernel's calls on random inputs, without the first call; its interval holds the true "
    "median with 95 % confidence. Outliers are counted, and none is left out. Cold: each call found its inputs outside "
    "the caches. Hot: they may have been inside.",
    "Percent of the roof: the least time for the kernel's bytes and operations over the time it took. The roof was "
    "measured in this run: memory by copies, arithmetic by the library's matrix product. A little above 100 % is "
    "noise, or a part of the data that stayed in a cache; what neither explains is impossible and fails the run.",
    "In a roofline plot the slanted line is what the memory allows to a kernel with so many operations for each byte, "
    "the level one what the arithmetic allows. Both belong to all cores: one thread alone cannot reach them.",
    "Operations are those of the definition, whatever a kernel does to save some. Bytes are every array once.",
    "Where no number of threads is named, as many ran as there are cores to use.",
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
    bodies = {name: (title, made(report)) for name, (title, made) in SECTIONS.items()}
    kept = {name: (title, body) for name, (title, body) in bodies.items() if body}
    links = "".join(f'<a href="#{name}">{title}</a>' for name, (title, _) in kept.items())
    parts = [f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, (title, body) in kept.items()]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>gpunet report</title>'
        f"<style>{style}</style></head><body>{_head(report)}<nav>{links}</nav>{''.join(parts)}</body></html>\n"
    )


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
    failures = pieces.listed(report.failed, "bad") if report.failed else ""
    return (
        f'<header><h1>gpunet report</h1><p class="soft">{escape(about)}</p>'
        f'<p class="verdict {"good" if good else "bad"}">{escape(tables.verdict(report))}</p>{failures}</header>'
    )


def _ran(report: Report) -> str:
    rows = [
        (escape(f"{device} {backend}"), pieces.mark(True, "yes") if runs else pieces.soft("no"), escape(about))
        for device, backend, runs, about in info.backend_lines(report.environment)
    ]
    spent = ", ".join(f"{name} {pieces.number(seconds, '.0f')} s" for name, seconds in report.seconds.items())
    told = f"<p>Time spent: {escape(spent)}.</p>" if spent else ""
    notes = f"<h3>Left out, and why</h3>{pieces.listed(report.notes)}" if report.notes else ""
    heads = ("where", "runs", "kernels, or why not and what to do")
    return told + (pieces.table(heads, rows) if rows else "") + notes


def _machine(report: Report) -> str:
    if not report.environment:
        return ""
    options = ", ".join(f"{name} {_option(value)}" for name, value in report.options.items() if value is not None)
    asked = [("asked for", options)] if options else []
    return pieces.facts([*info.facts(report.environment), *asked])


def _option(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _reading(report: Report) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in READING)


#: id -> (title, what makes it); one without a body is left out
SECTIONS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "ran": ("What ran", _ran),
    "times": ("Times", times.section),
    "sizes": ("Break-even sizes", growth.section),
    "roofline": ("Under the roof", roofline.section),
    "ladders": ("Ladders", times.ladders),
    "ratios": ("Beside other libraries", ratios.section),
    "training": ("Training", learning.section),
    "proofs": ("Proofs and errors", proofs.section),
    "recorded": ("Other machines, other days", elsewhere.section),
    "machine": ("Machine", _machine),
    "reading": ("How to read this", _reading),
}
