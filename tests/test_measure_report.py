"""What a run writes: records that survive their file, a page that is whole, safe and self-contained, and the screen."""

import io
import json
import re
import struct
import zlib
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gpunet.errors import DataError
from gpunet.measure import charts, info, report, rows, tables
from gpunet.measure.rows import Agreement, Curve, Proof, Report, Roof, Row, Timing

EVIL = "<script>alert('&\"')</script>"
VOID = {"meta", "img", "br"}
#: what HTML lets a tag end without saying so: cells and lines of tables
ENDS = {"td": ("td", "th"), "th": ("td", "th"), "tr": ("td", "th", "tr")}


def filled(name: str = "relu") -> Report:
    """A report with one of everything; every text in it is ``name`` where it can be."""
    timing = Timing(1e-3, 9e-4, 1.2e-3, 9e-4, 1.1e-3, 8e-4, 5e-3, 30, 1, 0.2, 0.3, 12, "cold", "noise")
    proofs = [
        Proof(
            name, f"{name}.forward", "forward", "cpu", "numpy", name, "a.py:1", "float32", "s", "passed", "", 1e-7, 1e-6
        ),
        Proof(name, f"{name}.forward", "forward", "cpu", "numpy", name, "a.py:1", "float64", "s", "failed", name),
        Proof(name, f"{name}.grad_x", "", "cpu", "numpy", name, "a.py:9", "", "", "untested", name),
        Proof(name, f"{name} gradients", "gradient", "cpu", "numpy", "reference", "", "float64", "s", "passed"),
    ]
    row = Row(
        name, f"{name}.forward", "forward", "cpu", "numpy", name, "a.py:1", "float32", "s", name, "quick", [[2, 3], []],
        {"stride": [1, 2]}, "passed", 1e-7, 1e-6, timing, 100, 24, 24, 0.1, 4.8, 55.0, "memory", False,
    )  # fmt: skip
    curve = Curve(
        name, "cpu", [f"{name}.forward/numpy/reference"], [2.3, 1.0, 0.5], 0.75, 1.0, 32, 96, 20, 1.5, 64.0, name,
        [{"image": charts.png(np.eye(4, dtype=np.uint8)), "true": name, "predicted": "Bag"}],
    )  # fmt: skip
    found = Report(
        environment=info.collect(), options={"full": False}, complete=True, proofs=proofs, notes=[name],
        roofs=[Roof("cpu", "float32", 1e11, 1e10, 1e11, 1)], rows=[replace(row, impossible=True), row],
        training=[curve, replace(curve, lane=f"{name} 2")], agreement=[Agreement(name, f"{name} 2", 3, 0.0, 1e-6)],
        seconds={"proof": 1.0},
    )  # fmt: skip
    found.environment["processor"] = {**found.environment["processor"], "model": name}
    return found


class Page(HTMLParser):
    """Checks that tags nest, and keeps what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.links.append(value or "")
            if name == "id":
                self.ids.add(value or "")
        for ended in ENDS.get(tag, ()):
            self._end(ended)
        if tag not in VOID:
            self.open.append(tag)

    def _end(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        for ended in ENDS["tr"] if tag in ("thead", "tbody") else ():
            self._end(ended)
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_report_survives_its_file(tmp_path: Path):
    found = filled()
    path = tmp_path / "new" / "report.json"
    found.write(path)
    again = rows.read(path)
    assert again == found
    content = json.loads(path.read_text())
    assert (content["format"], content["version"]) == (rows.FORMAT, rows.VERSION)
    assert content["failed"] == found.failed
    assert len(found.failed) == 3
    assert [each.name for each in path.parent.iterdir()] == ["report.json"]  # no temporary file is left


def test_numbers_that_json_lacks_become_null(tmp_path: Path):
    found = filled()
    found.training[0].losses[1] = float("nan")
    found.proofs[0].reached = float("inf")
    found.write(tmp_path / "r.json")
    again = rows.read(tmp_path / "r.json")
    assert again.training[0].losses == [2.3, None, 0.5]
    assert again.proofs[0].reached is None
    parsed(report.html(again))
    _screen(again)


def test_file_is_whole_when_writing_fails(tmp_path: Path):
    path = tmp_path / "report.json"
    filled().write(path)
    before = path.read_text()
    broken = filled()
    broken.notes = ["\ud800"]  # half of a pair of code units: UTF-8 cannot write it
    broken.notes[0].encode("utf-8", "replace")
    with pytest.raises(UnicodeEncodeError):
        rows.write_text(path, broken.notes[0])
    assert path.read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "must be JSON"),
        ("[1]", "must be a file of `gpunet compare`"),
        ('{"format": "other"}', "without format"),
        ('{"format": "gpunet-report", "version": 999}', "got 999; update gpunet"),
        ('{"format": "gpunet-report", "version": 1}', "lacks what version 1 has"),
        ('{"format": "gpunet-report", "version": 1, "rows": [3], "proofs": []}', "lacks what version 1 has"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        rows.read(path)


def test_unknown_fields_of_a_file_are_passed_over(tmp_path: Path):
    path = tmp_path / "x.json"
    filled().write(path)
    content = json.loads(path.read_text())
    content["later"] = 1
    content["rows"][0]["later"] = content["rows"][0]["time"]["later"] = 1
    path.write_text(json.dumps(content))
    assert rows.read(path) == filled_like(rows.read(path))


def filled_like(found: Report) -> Report:
    return replace(found)


def test_page_is_well_formed_and_needs_nothing_else():
    text = report.html(filled())
    page = parsed(text)
    assert {"svg", "table", "img", "style", "polyline"} <= page.seen
    assert "script" not in page.seen
    assert "link" not in page.seen
    for link in page.links:
        assert link.startswith("data:image/png;base64,") or link.removeprefix("#") in page.ids
    assert not re.search(r"https?:|url\(|@import|//[a-z]", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'name="viewport"' in text


def test_page_escapes_every_text():
    text = report.html(filled(EVIL))
    page = parsed(text)
    assert "script" not in page.seen
    assert EVIL in page.text
    assert "<script" not in text
    assert "alert('" not in re.sub(r"&[^;]+;", "", text).replace("alert(&", "")


def test_pictures_that_are_not_base64_are_left_out():
    found = filled()
    found.training = found.training[:1]
    found.training[0].samples[0]["image"] = '" onerror="alert(1)'
    text = report.html(found)
    assert "onerror" not in text
    assert "<img" not in text


@pytest.mark.parametrize("empty", [Report(), Report(notes=["a"]), Report(environment={"devices": []}, complete=True)])
def test_page_of_an_empty_run(empty: Report):
    parsed(report.html(empty))
    _screen(empty)


def test_page_says_when_the_run_failed_or_ended_early():
    assert "3 failed" in parsed(report.html(filled())).text
    good = filled()
    good.proofs, good.rows = good.proofs[:1], good.rows[1:]
    assert "none failed, none is impossible" in parsed(report.html(good)).text
    good.complete = False
    assert "the run was interrupted" in parsed(report.html(good)).text


def _screen(found: Report) -> str:
    from rich.console import Console

    screen = Console(file=io.StringIO(), width=140)
    tables.show(screen, found)
    return screen.file.getvalue()  # type: ignore[attr-defined]


def test_screen_shows_times_proofs_training_and_failures():
    text = _screen(filled())
    assert "1 ms ±10%" in text
    assert "IMPOSSIBLE" in text
    assert text.count("FAILED relu") == 3
    assert "cpu numpy: 1 passed, 1 failed, 1 untested" in text
    assert "75.0 % of 20 test images right" in text
    assert _screen(filled("[bold]")).count("[bold]") > 5  # rich must not take a name for markup


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.5, "2.5 s"), (1.234e-3, "1.23 ms"), (5.6e-7, "560 ns"), (7e-5, "70 µs"), (None, "-")]
)
def test_seconds_are_told_in_a_unit_that_suits(seconds: float | None, text: str):
    assert tables.seconds_text(seconds) == text


def test_png_holds_the_image():
    image = np.arange(15, dtype=np.uint8).reshape(3, 5) * 17
    data = b64decode(charts.png(image))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (width, height, depth, kind) == (5, 3, 8, 0)
    begin = data.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", data[begin - 8 : begin - 4])
    lines = np.frombuffer(zlib.decompress(data[begin : begin + length]), np.uint8).reshape(3, 6)
    assert (lines[:, 0] == 0).all()
    assert np.array_equal(lines[:, 1:], image)


@pytest.mark.parametrize(("low", "high"), [(0, 2.3), (0, 0), (0.5, 0.5), (-3, 4), (0, 1e-7), (0, 12345)])
def test_ticks_are_few_and_reach_around(low: float, high: float):
    ticks = charts.nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 8


def test_curves_leave_gaps_and_stay_in_the_picture():
    text = charts.curves([("a", [1.0, None, 3.0, 2.0]), ("b", [float("nan"), 5.0])], "step", "loss")
    parsed(text)
    assert text.count("<polyline") == 1  # 3 to 2; the others stand alone
    assert text.count("<circle") == 2
    numbers = [float(n) for points in re.findall(r'points="([^"]*)"', text) for n in re.split("[ ,]", points)]
    assert all(0 <= n <= charts.WIDTH for n in numbers)
    assert charts.curves([("a", [])], "x", "y") == "<p>No numbers to draw.</p>"


def test_info_is_plain_complete_and_names_nobody():
    import getpass
    import platform

    found = info.collect()
    text = json.dumps(found)
    assert {each["name"] for each in found["devices"]} == {"cpu", "cuda", "sim"}
    cpu = {each["name"]: each for each in found["devices"][0]["backends"]}
    assert cpu["numpy"]["runs"]
    assert cpu["numpy"]["sum"] == "right"
    assert cpu["numba_cpu"]["sum"] == "right"
    for place in found["devices"]:
        for each in place["backends"]:
            assert each["runs"] or each["reason"]
    assert found["packages"]["numpy"] == np.__version__
    assert platform.node() not in re.sub(r'"system": "[^"]*"', "", text) or len(platform.node()) < 4
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert not re.search(r'"[^"]*/(home|Users|root|usr|work)/', text)
    assert f"/{getpass.getuser()}/" not in text


def test_a_backend_that_computes_wrongly_does_not_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(info.SUMS, "numpy", lambda place: 1.0)
    monkeypatch.setitem(info.SUMS, "numba_cpu", lambda place: 1 / 0)
    numpy, numba = info.collect()["devices"][0]["backends"]
    assert not numpy["runs"]
    assert numpy["reason"] == "the trial sum failed: expected 499500, got 1.0"
    assert "ZeroDivisionError" in numba["reason"]


def test_info_is_shown_with_reasons():
    from rich.console import Console

    screen = Console(file=io.StringIO(), width=200)
    screen.print(info.render(info.collect()))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "numba_cpu" in text
    assert "gpunet[cuda13]" in text or "cuda" in text
    assert "cores usable" in text
