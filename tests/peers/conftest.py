"""How many configurations were compared with PyTorch, said at the end of a run."""

import sys
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    twins = sys.modules.get("tests.peers.twins")
    name = getattr(item, "originalname", item.name)
    if report.when == "call" and twins is not None and name in twins.PLANNED:
        tried, planned = twins.TRIED.pop(name, 0), twins.PLANNED[name]
        report.user_properties.append(("configurations", tried))
        if report.passed and tried < 0.8 * planned:  # too many thrown away, or the test forgot to compare
            report.outcome, report.longrepr = "failed", f"{planned} configurations were planned, {tried} compared"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    total = sum(
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for key, value in getattr(report, "user_properties", ())
        if key == "configurations"
    )
    if total:
        terminalreporter.section("peers")
        terminalreporter.line(f"{total} configurations of single ops compared with PyTorch")
