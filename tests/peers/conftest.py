"""How many configurations were compared with PyTorch, said at the end of a run."""

import sys
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    twins = sys.modules.get("tests.peers.twins")
    name = getattr(item, "originalname", item.name)
    if report.when == "call" and twins is not None and name in twins.TRIED:
        report.user_properties.append(("configurations", twins.TRIED.pop(name)))
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
