"""Compiled kernels of the processor on disk: used by the next process, and no more once a file beside has changed."""

import os
import subprocess
import sys
from pathlib import Path

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
    from gpunet.cpu.jit import OneFileEach

    def kept(stamp):
        return OneFileEach(str(tmp_path), "kernel", stamp)

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
