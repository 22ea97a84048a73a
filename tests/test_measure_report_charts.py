"""The charts of the page, on made-up records: where a known point lies, and what is written beside it."""

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from gpunet.measure import charts, frame
from gpunet.measure.curves import Point
from gpunet.measure.frame import Axis, Frame
from gpunet.measure.report_parts import growth, learning, ratios, roofline
from gpunet.measure.rows import Report, Roof, Row
from tests.report_records import CURVE, EVEN, RATIO, ROW, STEP, SWEEP, TIMING, cells, svgs

# ------------------------------------------------------------------------------------------------------------- frame


def test_a_frame_puts_points_where_the_axes_say():
    picture = Frame(Axis("x", 1.0, 1000.0, True), Axis("y", 0.0, 4.0))  # 300 × 200 units, from (48, 26)
    assert picture.place((1.0, 0.0)) == pytest.approx((48, 226))
    assert picture.place((1000.0, 4.0)) == pytest.approx((348, 26))
    assert picture.place((10.0, 1.0)) == pytest.approx((148, 176))  # a third of the decades, a quarter of the way up
    assert Frame(picture.x, picture.y, above=30).place((10.0, 1.0)) == pytest.approx((148, 206))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1.0, 1000.0, [1, 10, 100, 1000]),
        (0.5, 2e6, [1, 10, 100, 1e3, 1e4, 1e5, 1e6][::2]),
        (8.0, 60.0, [10, 20, 50]),
        (1e-9, 1e9, [10.0**k for k in range(-9, 10, 4)]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round_and_few(low: float, high: float, ticks: list[float]):
    assert frame.log_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("low", [1e-8, 0.3, 0.99, 1.0, 7.0, 123.0])
@pytest.mark.parametrize("spread", [1.05, 1.3, 2, 7, 40, 900, 1e5, 1e12])
def test_ticks_of_any_logarithmic_axis_lie_within_it(low: float, spread: float):
    ticks = frame.log_ticks(low, low * spread)
    assert 1 <= len(ticks) <= 7
    assert all(low * (1 - 1e-6) <= each <= low * spread * (1 + 1e-6) for each in ticks)
    assert ticks == sorted(set(ticks))


def test_long_lines_are_thinned_and_keep_their_spikes():
    points = [(float(k), 0.0) for k in range(5000)]
    points[1234], points[4321] = (1234.0, 9.0), (4321.0, -9.0)
    kept = frame.thinned(points)
    assert len(kept) <= 400
    assert {points[0], points[-1], points[1234], points[4321]} <= set(kept)
    assert kept == sorted(kept)
    assert frame.thinned(points[:400]) == points[:400]
    text = charts.curves([("a", [y for _, y in points])], "step", "loss")
    assert text.count(",") <= 400 + 10


def test_every_sign_has_a_shape_of_its_own():
    drawn = {re.sub(r'class="[^"]*"', "", frame.sign(k, 0, 0)) for k in range(frame.COLORS)}
    assert len(drawn) == frame.COLORS


# ---------------------------------------------------------------------------------------------------------- roofline


def roof_report(*rows: Row) -> Report:
    return Report(roofs=[Roof("cuda:0", "float32", 1e12, 1e11, 5e11, 1)], rows=list(rows))


def test_roofline_draws_the_roofs_and_the_row_where_they_belong():
    text = roofline.section(roof_report(ROW))  # 10 operations a byte, 10 GFLOP/s; the ridge is at 10 and 1000 GFLOP/s
    (picture,) = (each for each in svgs(text) if each.get("class") == "plot")
    # Across: a factor of 30 and a tenth of a decade to both sides of 10. Up: from 10 to 1000, a quarter of one beyond.
    # Ten lies in the middle, 48 + 150; 10 GFLOP/s at 0.25 of 2.5 decades: 226 - 20; 1000 at 2.25: 226 - 180.
    circle = picture.find(".//circle[@class='dot c0']")
    assert circle is not None
    assert (circle.get("cx"), circle.get("cy")) == ("198.0", "206.0")
    level, slope = (each.get("points", "").split() for each in picture.iter("polyline"))
    assert level == ["198.0,46.0", "348.0,46.0"]
    assert slope[1] == "198.0,46.0"
    decade = 300 / (2 * (math.log10(30) + 0.1))  # the slope is one decade up for one across
    x, y = map(float, slope[0].split(","))
    assert (198 - x) / decade == pytest.approx((y - 46) / 80, abs=0.01)
    words = [each.text for each in picture.iter("text")]
    assert "arithmetic 1000 GFLOP/s" in words
    assert "memory 100 GB/s" in words
    assert not any("cache" in (each or "") for each in words)
    assert circle[0].text == "matmul.forward, square, cuda:0 cupy, tiled, 10 GFLOP/s, 55 % of the memory roof"


def test_roofline_holds_hot_rows_against_the_cache():
    hot = replace(ROW, time=replace(TIMING, cache="hot"))
    text = roofline.section(roof_report(ROW, hot))
    assert "cache 500 GB/s" in text
    assert text.count('class="dot hollow c0"') == 2  # the row, and the legend
    assert "hollow: hot cache" in text


def test_roofline_leaves_out_rows_without_a_place_and_says_so():
    bad = [replace(ROW, gflops=None), replace(ROW, flops=0), replace(ROW, bytes_read=0, bytes_written=0)]  # type: ignore[arg-type]
    text = roofline.section(roof_report(ROW, *bad))
    assert text.count("<title>") == 1
    assert "3 rows without arithmetic" in text
    assert roofline.section(roof_report(*bad)) == ""
    assert roofline.section(Report(rows=[ROW])) == ""


def test_roofline_never_gives_two_ops_of_a_chart_the_same_sign():
    rows = [replace(ROW, op=f"op{k}") for k in range(20)]
    text = roofline.section(roof_report(*rows))
    legends = re.findall(r'<p class="legend">.*?</p>', text)
    assert [legend.count('class="key"') for legend in legends] == [5, 5, 5, 5]
    for legend in legends:
        signs = re.findall(r"<svg.*?</svg>", legend)
        assert len(signs) == len(set(signs))
    links = re.findall(r'href="#(row-\d+)"', text)
    assert links == [f"row-{k}" for k in range(1, 21)]


# ------------------------------------------------------------------------------------------------------------ ratios


def test_a_ratio_lies_on_a_logarithmic_scale_around_one():
    text = ratios.interval(replace(RATIO, low=0.5, high=4.0), reach=4.0)
    drawing = {each.get("class"): each.get("d") for each in ElementTree.fromstring(text)}
    assert drawing["one"] == "M150,0V18"
    assert drawing["whisker"] == "M79.0,9H292.0M79.0,5v8M292.0,5v8"  # half of, and the whole way of 142 units
    assert str(drawing["center"]).startswith("M221.0,4")
    width = 142 * math.log(1.05) / math.log(4)
    assert drawing["effect"] == f"M{150 - width:.1f},0H{150 + width:.1f}V18H{150 - width:.1f}z"


def test_a_ratio_says_peer_threads_effect_and_verdict():
    text = ratios.section(Report(ratios=[RATIO, replace(RATIO, entry="relu.forward", chosen=False, threads=0)]))
    assert "<b>2.00× · faster</b>" in text
    assert "forward, square: cpu numpy reference, ✓ chosen" in text
    assert "beside PyTorch 2, TF32 off; 1 thread; 1 ms against 2 ms; 1.60 to 2.50 in 40 pairs; effect 5" in text
    assert text.index("<h3>matmul") < text.index("<h3>relu")
    assert text.count("✓ chosen") == 1
    assert ratios.section(Report()) == ""


def test_means_are_of_one_entry_peer_and_number_of_threads():
    alike = [replace(RATIO, size=f"s{k}", ratio=r, n=10) for k, r in enumerate((0.5, 2.0, 8.0))]
    unlike = [
        replace(RATIO, entry="relu.forward"), replace(RATIO, threads=2), replace(RATIO, peer="NumPy"),
        replace(RATIO, dtype="float64"), replace(RATIO, phase="backward"), replace(RATIO, chosen=False),
    ]  # fmt: skip
    (found,) = ratios.means([*alike, *unlike, replace(RATIO, ratio=None)])  # type: ignore[arg-type]
    assert found[0] is alike[0]
    assert found[2:] == (pytest.approx(2.0), 3, 30)
    text = ratios.section(Report(ratios=alike))
    assert "<td>2.00×<td>3 sizes, 30 pairs" in text


@pytest.mark.parametrize(("low", "high", "told"), [(0.8, 1.2, "1.25"), (0.3, 1.2, "5"), (0.9, 40.0, "100")])
def test_a_scale_reaches_as_far_on_both_sides(low: float, high: float, told: str):
    text = ratios.section(Report(ratios=[replace(RATIO, ratio=1.0, low=low, high=high)]))
    assert f"← {told}× slower" in text
    assert f"{told}× faster →" in text


def test_ratios_without_numbers_draw_no_interval():
    broken = replace(RATIO, ratio=None, low=0.0, high=math.inf, effect=0.0)  # type: ignore[arg-type]
    text = ratios.section(Report(ratios=[broken]))
    assert "whisker" not in text
    assert "center" not in text
    assert "–× · faster" in text


# ------------------------------------------------------------------------------------------------------------ growth


def test_sweeps_are_drawn_with_band_copies_and_mark():
    report_ = Report(
        sweeps=[SWEEP, replace(SWEEP, device="cuda", machine="Big GPU", time="2025-02-03T0")], break_even=[EVEN]
    )
    text = growth.section(report_)
    assert text.index("below N = 100 stay on the CPU") < text.index("<svg")
    (picture,) = (each for each in svgs(text) if each.get("class") == "plot")
    # n from 10 to 1000 with 0.05 decades beside; times from 90 µs to 21 ms with 0.15: 13 units above for the mark.
    up, bottom = math.log10(2.1e-2 / 9e-5) + 0.3, 239.0
    solid = picture.find("polyline[@class='line solid c0']")
    assert solid is not None
    first, last = (tuple(map(float, each.split(","))) for each in solid.get("points", "").split())
    assert first == pytest.approx(
        (48 + 300 * 0.05 / 2.1, bottom - 200 * (math.log10(1e-4 / 9e-5) + 0.15) / up), abs=0.06
    )
    assert last == pytest.approx(
        (48 + 300 * 2.05 / 2.1, bottom - 200 * (math.log10(1e-2 / 9e-5) + 0.15) / up), abs=0.06
    )
    mark = picture.find("line[@class='even copies']")
    span = picture.find("rect[@class='span']")
    assert mark is not None
    assert span is not None
    assert float(mark.get("x1", "")) == pytest.approx(198, abs=0.06)  # 100 is in the middle
    assert float(span.get("x", "")) == pytest.approx(48 + 300 * (math.log10(5) + 0.05) / 2.1, abs=0.06)
    assert float(span.get("width", "")) == pytest.approx(300 * math.log10(4) / 2.1, abs=0.11)
    assert picture.find("polygon[@class='band c0']") is not None
    assert picture.find("polyline[@class='line solid other c1']") is not None
    assert "another machine: Big GPU, 2025-02-03" in text
    assert "n = 100 with copies" in text


def test_copies_are_a_dashed_line():
    text = growth.section(Report(sweeps=[replace(SWEEP, points=[replace(SWEEP.points[1], n=n) for n in (10, 20)])]))
    (picture,) = (each for each in svgs(text) if each.get("class") == "plot")
    solid, copies = picture.iter("polyline")
    assert (solid.get("class"), copies.get("class")) == ("line solid c0", "line copies c0")
    heights = [float(re.split("[ ,]", each.get("points", ""))[1]) for each in (solid, copies)]
    assert heights[1] < heights[0]  # it lies above
    assert "cpu numpy, 1 thread, with copies" in text


def test_break_even_without_a_size_stands_in_words_alone():
    never = replace(EVEN, n=None, low=None, high=None, words="the CPU is faster throughout")
    text = growth.section(Report(sweeps=[SWEEP], break_even=[never]))
    assert "the CPU is faster throughout" in text
    assert 'class="span"' not in text
    assert "<svg" not in growth.section(Report(break_even=[never]))
    empty = replace(SWEEP, points=[Point(0, [], None, None, None)])  # type: ignore[arg-type]
    assert growth.section(Report(sweeps=[empty])) == ""


def test_an_open_span_reaches_to_the_edge():
    text = growth.section(Report(sweeps=[SWEEP], break_even=[replace(EVEN, low=None, high=None)]))
    assert '<rect class="span" x="48.0" y="26.0" width="300.0"' in text


# ---------------------------------------------------------------------------------------------------------- training


def test_accuracy_is_drawn_over_seconds_with_its_target():
    text = learning.section(Report(training=[CURVE, replace(CURVE, lane="other", reached=[], seconds_to_target=None)]))
    picture = svgs(text[text.index("Accuracy over time") :])[0]
    line = picture.find("polyline")
    aim = picture.find("line[@class='aim']")
    assert line is not None
    assert aim is not None
    assert line.get("points") == "198.0,126.0 348.0,46.0"  # 10 s of 20, 0.5 of 1; 20 s, 0.9
    assert aim.get("y1") == "66.0"
    heads, lines = cells(text)
    assert [dict(zip(heads, each, strict=True))["time to target"] for each in lines] == [
        "80 %: 17.5 s",
        "80 %: not reached",
    ]


def test_steps_say_images_a_second():
    heads, (line, epoch) = cells(learning.section(Report(steps=[STEP, replace(STEP, part="epoch")])))
    found = dict(zip(heads, line, strict=True))
    assert (found["images/s"], found["median"], found["95 % interval"]) == ("2000", "16 ms", "15 ms to 18 ms")
    assert dict(zip(heads, epoch, strict=True))["images/s"] == "–"


def test_without_accuracies_there_is_no_second_chart():
    text = learning.section(Report(training=[replace(CURVE, reached=[], target=None)]))
    assert text.count("<figure") == 1
    assert "time to target" not in text
