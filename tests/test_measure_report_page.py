"""The tables, bars and names of the page, its style sheet, and the exports, on made-up records."""

import csv
import io
import itertools
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from importlib import resources

import pytest

from gpunet.measure import export, frame, report
from gpunet.measure.curves import Point
from gpunet.measure.report_parts import elsewhere, proofs, times
from gpunet.measure.rows import Proof, Report, Roof, Row, Timing
from tests.report_records import CURVE, EVEN, EVIL, RATIO, ROW, STEP, SWEEP, TIMING, cells, full, svgs

# ------------------------------------------------------------------------------------------------------------- times


def rungs(*variants: str, **more: object) -> list[Row]:
    made = [replace(ROW, variant=each, time=replace(TIMING, median=1e-3 * k)) for k, each in enumerate(variants, 1)]
    return [replace(each, **more) for each in made]  # type: ignore[arg-type]


def labels(text: str) -> list[str]:
    return re.findall(r'<div class="bar"><span>(.*?)</span>', text)


def test_ladders_have_the_ladders_order_and_mark_what_runs():
    text = times.ladders(Report(rows=rungs("mine", "tiled", "naive", "reference", "warp_tiled", "coalesced")))
    assert labels(text) == [
        "reference", "naive", "coalesced", "tiled", "warp_tiled ✓ chosen", "mine (not on the ladder)"
    ]  # fmt: skip
    assert text.count(' chosen"') == 1
    assert "5 ms · 55 % of roof" in text
    widths = re.findall(r"--w:([\d.]+)%", text)  # mine took 1 ms, tiled 2, naive 3, ...; the longest took 6
    assert widths == ["66.7", "50.0", "100.0", "33.3", "83.3", "16.7"]


def test_ladders_believe_a_ratio_that_names_the_chosen_rung():
    named = replace(RATIO, device="cuda:0", backend="cupy", variant="naive")
    text = times.ladders(Report(rows=rungs("naive", "tiled"), ratios=[named]))
    assert labels(text) == ["naive ✓ chosen", "tiled"]


def test_ladders_choose_one_backend_of_a_device():
    rows = rungs("naive", "tiled", backend="numba_cuda") + rungs("naive", "tiled")
    text = times.ladders(Report(rows=rows))
    assert [each for each in labels(text) if "chosen" in each] == ["cuda:0 cupy tiled ✓ chosen"]


def test_a_single_variant_makes_no_ladder():
    assert times.ladders(Report(rows=[ROW, replace(ROW, size="other"), replace(ROW, backend="numba_cuda")])) == ""


def test_times_show_what_runs_on_each_lane_and_other_machines_beside():
    other = asdict(replace(ROW, time=replace(TIMING, median=5e-4)))
    slower = asdict(replace(ROW, variant="slow"))
    unlike = asdict(replace(ROW, shapes=[[9, 9]], device="cpu"))
    entries = [{"machine": "Big GPU", "time": "2025-02-03T04:05:06Z", "row": row} for row in (slower, other, unlike)]
    rows = [*rungs("naive", "tiled"), replace(ROW, device="cpu", backend="numpy", variant="reference", threads=1)]
    text = times.section(Report(rows=rows, recorded=entries))
    assert labels(text) == [
        "forward cuda:0 cupy tiled",
        "forward cpu numpy, 1 thread",
        "forward cuda:0 cupy tiled, other machine: Big GPU, 2025-02-03",
    ]
    assert 'class="track c5 other" style="--w:25.0%"' in text  # half a millisecond beside two


def test_columns_that_no_row_fills_are_left_out():
    later = {"launch", "copy in", "copy out", "peak memory", "same bits", "threads"}
    heads, _ = cells(times.section(Report(rows=[ROW, ROW])))
    assert not later & set(heads)
    assert "outliers" in heads
    filled = replace(
        ROW, launch=1e-6, copy_in=2e-3, copy_out=3.0, peak=3 * 2**20, deterministic=False, threads=2
    )  # fmt: skip
    heads, lines = cells(times.section(Report(rows=[ROW, filled])))
    assert later <= set(heads)
    first, second = (dict(zip(heads, line, strict=True)) for line in lines)
    assert [second[name] for name in ("launch", "copy in", "copy out", "peak memory", "same bits", "threads")] == [
        "1 µs", "2 ms", "3 s", "3 MiB", "no", "2"
    ]  # fmt: skip
    assert (first["launch"], first["threads"], first["outliers"]) == ("–", "all", "4")


# ------------------------------------------------------------------------------------------------ proofs, recorded


def test_errors_name_their_worst_case():
    proof = Proof("relu", "relu.forward", "", "cpu", "numpy", "tiled", "", "float32", "small", "passed", "", 1e-7, 1e-6)
    worse = replace(proof, size="primes", dtype="float64", reached=5e-16, allowed=1e-15)
    refused = replace(proof, status="refused", reached=9.0)
    heads, (line,) = cells(proofs.section(Report(proofs=[proof, worse, refused])))
    assert heads[1:] == ["passed", "error", "allowed", "share"]
    assert "worst: float64, primes" in line[0]
    assert "2 of 2" in line[1]
    assert line[2:] == ["5.0e-16", "1.0e-15", "50 %"]
    assert proofs.worst([replace(proof, reached=None), replace(proof, allowed=None)]) is None


def test_recorded_rows_are_warned_of_and_may_lack_fields():
    entries = [
        {"machine": "Big GPU", "time": "2025-02-03T04:05:06Z", "row": asdict(ROW)},
        {"machine": "", "time": "", "row": {"op": "relu", "time": None}},
        {"machine": "odd", "row": None},
    ]
    text = elsewhere.section(Report(recorded=entries))
    assert "recorded on other machines and other days" in text
    assert "Big GPU, 2025-02-03: 1 row<" in text
    assert "another machine: 1 row<" in text
    assert "odd" not in text
    assert elsewhere.section(Report()) == ""


# ---------------------------------------------------------------------------------------------------- the whole page


def test_page_has_a_section_for_every_record_and_none_for_what_is_missing():
    assert re.findall(r'<section id="(\w+)"', report.html(full())) == list(report.SECTIONS)
    assert re.findall(r'<section id="(\w+)"', report.html(Report())) == ["reading"]


class Tags(HTMLParser):
    """The tags of a page with the names of their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", [EVIL, "a&b", '"><img src=x onerror=alert(1)>', "</svg></style>", "' onload='x"])
def test_hostile_names_stay_text(name: str):
    harmless = ("qzj" * 20)[: len(name)]
    hostile, plain = Tags(report.html(full(name))), Tags(report.html(full(harmless)))
    assert hostile.found == plain.found
    assert hostile.text.count(name) == plain.text.count(harmless) > 60


@pytest.mark.parametrize("name", ["matmul", EVIL])
def test_pictures_are_xml_without_odd_numbers_and_ids_are_unique(name: str):
    text = report.html(full(name))
    assert len(svgs(text)) > 10
    drawn = re.sub(
        r"<text.*?</text>|<title>.*?</title>|aria-label=\"[^\"]*\"",
        "",
        " ".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL)),
    )
    assert not re.search(r"\bnan\b|\binf\b|None", drawn, re.IGNORECASE)
    for each in re.findall(r'(?:points|d|x|y|x1|x2|y1|y2|cx|cy)="([^"]*)"', drawn):
        assert all(-60 <= float(n) <= 420 for n in re.findall(r"-?[\d.]+", each))
    ids = re.findall(r'<[a-z]+[^>]* id="?([\w-]+)', text)
    assert len(ids) == len(set(ids)) > 10
    assert set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)


def test_a_long_run_makes_no_page_too_large_for_a_telephone():
    found = full("max_pool2d")
    names = {"origin": "ResNet-50, after the stem", "place": "max_pool2d_numba_cpu.py:123", "bound": "memory"}
    row = replace(ROW, op="max_pool2d", entry="max_pool2d.forward", backend="numba_cpu", size="resnet_stem", **names)
    sizes = [replace(row, launch=1e-6, peak=2**20, deterministic=True, size=f"resnet_{k // 4}") for k in range(1000)]
    found.rows = [replace(each, variant=f"rung_{k % 4}") for k, each in enumerate(sizes)]
    found.roofs = [Roof("cuda:0", "float32", 1e12, 1e11, 5e11, 1)]
    found.ratios = [replace(RATIO, size=f"resnet_{k}") for k in range(500)]
    found.sweeps = [replace(SWEEP, entry=f"op{k // 4}.forward", points=12 * SWEEP.points) for k in range(40)]
    assert len(report.html(found).encode()) < 1_500_000


def test_numbers_that_are_missing_break_nothing():
    """Every number of every record that JSON may hold as null, one at a time and all at once."""
    found = full()
    numbers = {
        "rows": ["gflops", "gbytes", "roof_percent", "reached", "allowed"], "roofs": ["flops", "memory", "cache"],
        "ratios": ["ours", "theirs", "ratio", "low", "high", "effect"], "break_even": ["n", "low", "high"],
        "training": ["accuracy", "epochs", "seconds_per_epoch", "images_per_second", "target"],
        "steps": ["median", "low", "high"], "proofs": ["reached", "allowed"],
    }  # fmt: skip
    changes = [{(part, name)} for part, names in numbers.items() for name in names]
    for wanted in [*changes, set(itertools.chain(*changes))]:
        broken = full()
        for part, name in wanted:
            setattr(broken, part, [replace(each, **{name: None}) for each in getattr(broken, part)])
        text = report.html(broken)
        assert "None" not in text
        export.markdown(broken)
        export.csv_text(broken.rows)
    nothing = Timing(*[None] * 7, 1, 1, None, None, 1, "cold", "noise")  # type: ignore[arg-type]
    found.rows = [replace(each, time=nothing) for each in found.rows]
    found.sweeps = [replace(SWEEP, points=[Point(1, [], *[None] * 3)])]  # type: ignore[arg-type]
    found.training = [replace(CURVE, losses=[None, 1.0], reached=[[1.0, None], [2.0]])]  # type: ignore[list-item]
    assert "None" not in report.html(found)
    export.markdown(found)


# ------------------------------------------------------------------------------------------------------ style sheet


def luminance(color: str) -> float:
    """Relative luminance of a colour as WCAG 2 defines it."""
    digits = color.lstrip("#")
    digits = "".join(2 * each for each in digits) if len(digits) == 3 else digits
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def schemes() -> dict[str, dict[str, str]]:
    """The colours of each scheme in the style sheet: light, dark and print."""
    style = resources.files("gpunet.measure").joinpath("report.css").read_text(encoding="utf-8")
    roots = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    found = [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", each)) for each in roots]
    return dict(zip(("light", "dark", "print"), found, strict=True))


def test_contrast_is_computed_rightly():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_texts_and_curves_can_be_seen(scheme: str):
    colors = schemes()[scheme]
    for ground in ("page", "card"):
        for name in ("ink", "soft", "good", "bad", "link"):
            assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
        for number in range(frame.COLORS):
            assert contrast(colors[f"c{number}"], colors[ground]) >= 3, (number, ground)  # what is no text


def test_style_sheet_knows_every_class_of_the_page():
    style = resources.files("gpunet.measure").joinpath("report.css").read_text(encoding="utf-8")
    body = report.html(full()).partition("</style>")[2]
    used = {name for each in re.findall(r'class="([^"]*)"', body) for name in each.split()}
    assert used - {"hit", "bars", "key"} <= set(re.findall(r"\.([a-z][\w-]*)", style))


# ---------------------------------------------------------------------------------------------------------- exports


def test_csv_has_one_line_a_row_with_every_field():
    rows = [ROW, replace(ROW, size='a "b", c\nd', launch=1e-6, peak=12, deterministic=True, threads=2)]
    lines = list(csv.DictReader(io.StringIO(export.csv_text(rows))))
    assert len(lines) == 2
    first, second = lines
    assert second["size"] == 'a "b", c\nd'
    assert (second["launch"], second["peak"], second["deterministic"], second["threads"]) == (
        "1e-06",
        "12",
        "True",
        "2",
    )
    assert (first["launch"], first["deterministic"], first["outliers"]) == ("", "", "4")
    assert {"copy_in", "copy_out", "median_s", "roof_percent"} <= set(first)


def test_markdown_has_rows_and_ratios_in_tables_of_their_own():
    found = Report(rows=[replace(ROW, copy_in=2e-3)], ratios=[RATIO], break_even=[EVEN], steps=[STEP], complete=True)
    text = export.markdown(found)
    heads = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert "copy in" in heads[0]
    assert "launch" not in heads[0]
    assert "| 2 ms |" in heads[1]
    assert "PyTorch 2, TF32 off | 1 ms | 2 ms | 2.00 | 1.60 to 2.50 | 40 | faster | 5 %" in text
    assert "- below N = 100 stay on the CPU" in text
    assert "| LeNet-5 | cpu numpy | step | 32 | 1 | 16 ms |" in text
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert len(set(widths[:3])) == len(set(widths[3:6])) == 1
