"""Compiled kernels of the processor on disk: used by the next process, and no more once a file beside has changed."""

import io
import os
import subprocess
import sys
from pathlib import Path

from numba.core import event

from gpunet import config
from gpunet.cpu import jit

SHARED = """
from gpunet.cpu.jit import compiled

@compiled(inline=True)
def factor(x):
    return x * {factor}
"""
KERNEL = """
from gpunet.cpu.jit import compiled
from common.shared_numba_cpu import factor

@compiled
def times(x):
    return factor(x)
"""
RUN = """
import numpy as np
from op.op_numba_cpu import times
print(times(np.float64(2.0)), sum(times.stats.cache_hits.values()))
"""


def ran(folder: Path) -> list[str]:
    env = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", RUN], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_what_is_kept_is_used_until_a_file_that_it_calls_changes(tmp_path: Path):
    for name in ("common", "op"):
        (tmp_path / name).mkdir()
    shared = tmp_path / "common" / "shared_numba_cpu.py"
    shared.write_text(SHARED.format(factor="3.0"))
    (tmp_path / "op" / "op_numba_cpu.py").write_text(KERNEL)
    assert ran(tmp_path) == ["6.0", "0"]
    assert ran(tmp_path) == ["6.0", "1"]
    shared.write_text(SHARED.format(factor="5.00"))
    assert ran(tmp_path) == ["10.0", "0"]
    assert ran(tmp_path) == ["10.0", "1"]


def test_each_kernel_and_type_has_a_file_of_its_own(tmp_path: Path):
    """Processes that compile at the same time write in any order, and none may take another's code for its own."""

    def kept(stamp):
        return jit.OneFileEach(str(tmp_path), "kernel", stamp)

    single, double = [(f"(array({dtype}),)", ("x86", "cpu"), ("code", "cells")) for dtype in ("float32", "float64")]
    old, new = kept(1), kept(2)
    assert new.load(single) is None
    old.save(single, "old")
    assert new.load(single) is None
    new.save(double, "double")
    old.save(double, "old")  # it began earlier and ends later
    new.save(single, "single")
    assert (new.load(single), old.load(single)) == ("single", None)
    assert new.load(double) in (None, "double")
    assert len(list(tmp_path.iterdir())) == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def compiled_anew(monkeypatch, seconds: float, screen: io.StringIO, module="gpunet.kernels.relu", debug=0):
    """What is told while two kernels are compiled of which each takes so long."""
    told = jit.Teller()
    clock = iter([0.0, seconds, 10.0, 10.0 + seconds, 20.0, 20.0 + seconds])
    monkeypatch.setattr(jit.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(config.settings, "debug", debug)
    monkeypatch.setattr(sys, "stderr", screen)

    class Kernel:
        __name__, __module__ = "relu_forward", module

    for _ in range(3):
        for status in (event.EventStatus.START, event.EventStatus.END):
            told.notify(event.Event("numba:compile", status, {"dispatcher": Kernel()}))
    monkeypatch.undo()
    return screen.getvalue()


def test_a_terminal_is_told_once_what_it_waits_for(monkeypatch):
    assert compiled_anew(monkeypatch, 2.0, Terminal()) == jit.NOTE
    assert "gpunet warmup" in jit.NOTE
    assert compiled_anew(monkeypatch, 0.3, Terminal()) == ""
    assert compiled_anew(monkeypatch, 2.0, io.StringIO()) == ""  # a file
    assert compiled_anew(monkeypatch, 2.0, Terminal(), module="somebody.else") == ""


def test_debug_tells_each_kernel(monkeypatch):
    told = compiled_anew(monkeypatch, 0.5, io.StringIO(), debug=3)
    assert told == 3 * "gpunet: compiled relu_forward in 0.5 s\n"


def test_compiling_is_seen_and_what_lies_on_disk_is_not(tmp_path):
    """Numba says so itself: this is what the note hangs on."""
    code = (
        "import numpy as np; from gpunet.cpu import jit; from gpunet.kernels.relu import relu_numba_cpu as k; "
        "k.relu_forward_vectorised(np.ones(5000, np.float32)); print(jit.teller.seconds > 0)"
    )
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    found = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert found == ["True", "False"]
