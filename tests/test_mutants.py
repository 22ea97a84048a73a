"""tests/mutants.py still works: on a few kernels here, on all of them by hand (a minute and a half)."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_broken_kernels_are_noticed():
    command = [sys.executable, str(ROOT / "tests" / "mutants.py"), "relu", "softmax", "matmul"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("kernels/")]
    assert len(rows) == 3
    assert all(int(mutants) == int(caught) > 0 for _, mutants, caught, _, _ in rows)
