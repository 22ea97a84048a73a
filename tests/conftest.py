"""Fixtures, the product's parameters, ``--require-gpu``, and one line per backend at the end of a run."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import threadpoolctl

import gpunet as gn
from gpunet import config, devices, random
from tests import product

MISSING = pytest.StashKey[str]()  # why a test that --require-gpu wants to run cannot


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "run the kernels of a GPU on it and not on sim; fail, not skip, where it is missing"
    parser.addoption("--require-gpu", action="store_true", help=told)


def pytest_configure(config: pytest.Config) -> None:
    # The products here are small, and pytest-xdist already uses every core.
    threadpoolctl.threadpool_limits(1)
    product.require_gpu = config.getoption("--require-gpu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--require-gpu"):
        return
    for item in items:
        needing = [m for m in item.iter_markers("skip") if str(m.kwargs.get("reason", "")).startswith(product.NO_GPU)]
        if needing:
            item.own_markers = [mark for mark in item.own_markers if mark not in needing]
            item.stash[MISSING] = needing[0].kwargs["reason"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if MISSING in item.stash:
        pytest.fail(f"--require-gpu was given, and this cannot run: {item.stash[MISSING]}", pytrace=False)


@pytest.fixture(autouse=True)
def _known_state() -> Iterator[None]:
    """Every test starts from the same random state and poisoned outputs, and leaves the settings as they were."""
    before, state = dict(config.settings.__dict__), random.get_state()
    config.settings.poison = True
    gn.manual_seed(0)
    yield
    config.settings.__dict__.update(before)
    random.set_state(state)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    ran: Counter[str] = Counter()
    skipped: dict[str, Counter[str]] = {name: Counter() for name in devices.BACKENDS}
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name in devices.BACKENDS:
                if name not in getattr(report, "keywords", ()):
                    continue
                if outcome == "skipped":
                    skipped[name][_reason(report)] += 1
                else:
                    ran[name] += 1
    if not ran and not any(skipped.values()):
        return
    terminalreporter.section("backends")
    for name in devices.BACKENDS:
        why = "; ".join(f"{count} {reason}" for reason, count in skipped[name].most_common(2))
        more = len(skipped[name]) - 2
        why += f"; and {more} other reasons" if more > 0 else ""
        total = sum(skipped[name].values())
        terminalreporter.line(f"{name}: {ran[name]} ran, {total} skipped{f' ({why})' if why else ''}")


def _reason(report: Any) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
