"""Two recorded reports held against each other, and a report's rows for other programs."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpunet import cli
from gpunet.measure import diff, export
from gpunet.measure.rows import Ratio, Report, Roof, Row, Timing


def row(entry: str, median: float, spread: float = 0.02, **more: Any) -> Row:
    low, high = median * (1 - spread), median * (1 + spread)
    time = Timing(median, low, high, low, high, low, high, 30, 1, median, spread, 2, "cold", "noise")
    made = Row(
        entry.partition(".")[0], entry, "forward", "cpu", "numpy", "reference", "f.py:1", "float32", "mlp", "own",
        "quick", [[2, 3]], {}, "passed", 1e-7, 1e-6, time, 600, 24, 24, 1.0, 2.0, 50.0, "memory", False,
    )  # fmt: skip
    return replace(made, **more)


def ratio(entry: str, value: float, spread: float = 0.01) -> Ratio:
    return Ratio(
        entry, "mlp", "float32", "cpu", "numpy", "reference", True, "torch 2.13", 1e-3, value * 1e-3, value,
        value * (1 - spread), value * (1 + spread), 40, "same", phase="forward",
    )  # fmt: skip


def report(*rows: Row, **more: Any) -> Report:
    machine = {"processor": {"model": "a processor"}, "python": "3.11"}
    return Report(rows=list(rows), complete=True, **{"environment": machine, **more})


def verdicts(first: Any, second: Any, **options: float) -> dict[str, str]:
    return {each.row.entry: each.verdict for each in diff.compare(first, second, **options).changes}


def test_words():
    first = report(row("relu.forward", 1e-3), row("gelu.forward", 1e-3), row("tanh.forward", 1e-3))
    second = report(row("relu.forward", 2.3e-3), row("gelu.forward", 0.4e-3), row("tanh.forward", 1.01e-3))
    assert verdicts(first, second) == {"relu.forward": "slower", "gelu.forward": "faster", "tanh.forward": "same"}


def test_one_run_may_differ_from_another_for_no_reason():
    first = report(row("relu.forward", 1e-3), row("gelu.forward", 1e-3))
    second = report(row("relu.forward", 1.8e-3), row("gelu.forward", 0.55e-3))
    assert set(verdicts(first, second).values()) == {"unsure"}
    assert (
        "with fewer than 5 runs on each side, changes below a factor of 2 are left"
        in diff.compare(first, second).notes[-1]
    )


def test_five_runs_on_each_side_are_believed():
    before = [report(row("relu.forward", 1e-3 + 1e-5 * k), row("gelu.forward", 1e-3)) for k in range(5)]
    after = [report(row("relu.forward", 1.3e-3 + 1e-5 * k), row("gelu.forward", 1e-3)) for k in range(5)]
    assert verdicts(before, after) == {"relu.forward": "slower", "gelu.forward": "same"}
    assert verdicts(before, after[:4])["relu.forward"] == "unsure"
    lucky = [*after[:4], report(row("relu.forward", 1e-3), row("gelu.forward", 1e-3))]
    assert verdicts(before, lucky)["relu.forward"] == "unsure"
    (change, _) = diff.compare(before, after).changes
    assert (change.before, change.after) == (pytest.approx(1.02e-3), pytest.approx(1.32e-3))
    assert diff.compare(before, after).notes == []
    assert diff.compare(before, [*after[:4], report(row("relu.forward", 1e-3))]).missing[0][1] == "gelu.forward"


def test_wide_intervals_are_unsure():
    first, second = report(row("relu.forward", 1e-3, 0.2)), report(row("relu.forward", 1.2e-3, 0.2))
    assert verdicts(first, second) == {"relu.forward": "unsure"}


def test_a_machine_that_drifted_is_not_taken_for_a_change():
    roofs = [Roof("cpu", "float32", rate, rate, rate, 1) for rate in (1e11, 0.75e11)]
    first = report(row("relu.forward", 1e-3), roofs=roofs[:1])
    second = report(row("relu.forward", 2.3e-3), roofs=roofs[1:])
    assert verdicts(first, second) == {"relu.forward": "unsure"}
    assert verdicts(first, report(row("relu.forward", 2.3e-3), roofs=roofs[:1])) == {"relu.forward": "slower"}
    assert verdicts(first, report(row("relu.forward", 4.5e-3), roofs=roofs[1:])) == {"relu.forward": "slower"}


def test_ratios_to_a_peer_count_more_than_times():
    first = report(row("relu.forward", 1e-3), ratios=[ratio("relu.forward", 1.5)])
    slowed = report(row("relu.forward", 1.6e-3), ratios=[ratio("relu.forward", 1.5)])
    (change,) = diff.compare(first, slowed).changes
    assert (change.verdict, change.basis) == ("same", "torch 2.13")
    worse = report(row("relu.forward", 1e-3), ratios=[ratio("relu.forward", 0.5)])
    (change,) = diff.compare(first, worse).changes
    assert change.verdict == "slower"
    assert change.ratio == pytest.approx(3.0)


def test_a_report_against_itself():
    first = report(row("relu.forward", 1e-3), row("gelu.forward", 2e-3))
    assert set(verdicts(first, first).values()) == {"same"}


def test_rows_of_one_report_alone_are_named():
    first = report(row("relu.forward", 1e-3), row("gelu.forward", 1e-3))
    second = report(row("relu.forward", 1e-3, dtype="float64"), row("gelu.forward", 1e-3), environment={})
    found = diff.compare(first, second)
    assert [key[1] for key in found.missing] == ["relu.forward"]
    assert [key[6] for key in found.new] == ["float64"]
    assert "the two runs had different processors" in found.notes


def test_the_smallest_effect_can_be_chosen():
    first, second = report(row("relu.forward", 1e-3, 0.002)), report(row("relu.forward", 1.05e-3, 0.002))
    assert verdicts(first, second) == {"relu.forward": "same"}
    assert verdicts(first, second, effect=0.02) == {"relu.forward": "unsure"}
    assert verdicts([first] * 5, [second] * 5, effect=0.02) == {"relu.forward": "slower"}


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> list[str]:
    first = report(row("relu.forward", 1e-3), row("gelu.forward", 1e-3), ratios=[ratio("relu.forward", 1.5)])
    second = report(row("relu.forward", 1e-3), row("gelu.forward", 2.5e-3))
    for name, each in (("a", first), ("b", second)):
        each.write(tmp_path / name / "report.json")
    return [str(tmp_path / name / "report.json") for name in ("a", "b")]


def test_the_command_compares(files: list[str], capsys: pytest.CaptureFixture):
    assert cli.main(["report", "--diff", *files]) == 1
    told = capsys.readouterr().out
    assert "1 same, 1 slower, 0 faster, 0 unsure" in told
    assert cli.main(["report", "--diff", files[0], files[0], "--quiet"]) == 0
    assert cli.main(["report", "--diff", *files, "--effect", "1.9", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["verdict"] for each in found["changes"]} == {"same"}


def test_the_command_draws(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture):
    table, text = tmp_path / "rows.csv", tmp_path / "rows.md"
    command = ["report", *files, "--out", str(tmp_path / "page"), "--csv", str(table), "--markdown", str(text)]
    assert cli.main(command) == 0
    assert "gelu" in (tmp_path / "page" / "report.html").read_text()
    assert "wrote" in capsys.readouterr().out
    found = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [each["entry"] for each in found] == ["relu.forward", "gelu.forward"]
    assert float(found[0]["median_s"]) == 1e-3
    assert "| relu | mlp | relu.forward | cpu numpy reference |" in text.read_text()
    assert "| 1.50 | 1.48 to 1.52 |" in text.read_text()


def test_wrong_use(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["report", "--diff", files[0]]) == 2
    assert "--diff must be given two files, or as many before as after, got 1" in capsys.readouterr().err
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert cli.main(["report", str(other)]) == 1
    assert "must be a file of `gpunet compare`" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path / "none.json")]) == 1


def test_markdown_holds_no_broken_cells():
    told = export.markdown(report(row("relu.forward", 1e-3, size="a|b"), notes=["one\ntwo"]))
    assert "a\\|b" in told
    assert "- one two\n" in told
    assert all(line.count("|") - line.count("\\|") == 12 for line in told.splitlines() if line.startswith("|"))
