"""Made-up records of every kind, and how to read what was drawn of them."""

import re
from dataclasses import asdict, replace
from xml.etree import ElementTree

from gpunet.measure.curves import BreakEven, Curve, Point, Step, Sweep
from gpunet.measure.rows import Proof, Ratio, Report, Roof, Row, Timing

EVIL = "<script>alert('&\"')</script>"
TIMING = Timing(1e-3, 9e-4, 1.2e-3, 9e-4, 1.1e-3, 8e-4, 5e-3, 30, 1, 0.2, 0.3, 12, "cold", "noise", 4)
ROW = Row(
    "matmul", "matmul.forward", "forward", "cuda:0", "cupy", "tiled", "a.cu:1", "float32", "square", "own", "quick",
    [[8, 8], [8, 8]], {}, "passed", 1e-7, 1e-6, TIMING, 1000, 60, 40, 10.0, 1.0, 55.0, "memory", False,
)  # fmt: skip
RATIO = Ratio(
    "matmul.forward", "square", "float32", "cpu", "numpy", "reference", True, "PyTorch 2, TF32 off", 1e-3, 2e-3, 2.0,
    1.6, 2.5, 40, "faster", 0.05, 1, "forward",
)  # fmt: skip
SWEEP = Sweep(
    "matmul", "matmul.forward", "cpu", "numpy", 1, "float32", "N of N×N",
    [Point(10, [[10, 10]], 1e-4, 9e-5, 1.1e-4), Point(1000, [[1000, 1000]], 1e-2, 9e-3, 1.1e-2, 2e-2, 1.9e-2, 2.1e-2)],
)  # fmt: skip
EVEN = BreakEven(
    "matmul", "matmul.forward", "float32", "cpu", "cuda", True, 100.0, 50.0, 200.0, "below N = 100 stay on the CPU"
)
CURVE = Curve(
    "cpu", "cpu", ["relu.forward/numpy/reference"], [2.0, 1.0], 0.75, 1.0, 32, 96, 20, 1.5, 64.0, "", [],
    [[10.0, 0.5], [20.0, 0.9]], 0.8, 17.5,
)  # fmt: skip
STEP = Step("LeNet-5", "cpu", "cpu numpy", "step", 32, 1, 0.016, 0.015, 0.018, 20)


def full(name: str = "matmul") -> Report:
    """A report with every record; every text in it is ``name`` where it can be."""
    texts = {"op": name, "entry": f"{name}.forward", "size": name, "dtype": name}
    row = replace(ROW, **texts, device=name, backend=name, variant=name, place=name, origin=name, bound=name)
    later = replace(row, variant=f"{name}2", launch=1e-6, copy_in=2e-6, copy_out=3e-6, peak=2**20, deterministic=True)
    ratio = replace(RATIO, **{k: texts[k] for k in ("entry", "size", "dtype")}, peer=name, device=name, verdict=name)
    sweep = replace(SWEEP, op=name, entry=f"{name}.forward", dtype=name, device=name, backend=name, axis=name)
    even = replace(EVEN, op=name, entry=f"{name}.forward", dtype=name, near=name, far=name, words=name)
    curve = replace(CURVE, lane=name, kernels=[name], stopped=name)
    return Report(
        complete=True, roofs=[Roof(name, name, 1e11, 1e10, 5e10, 1)], rows=[row, later], ratios=[ratio, ratio],
        proofs=[Proof(name, name, name, name, name, name, name, name, name, "failed", name, 2e-6, 1e-6)],
        sweeps=[sweep, replace(sweep, machine=name, time=name)], break_even=[even], training=[curve],
        steps=[replace(STEP, model=name, device=name, lane=name, part=name)], notes=[name], options={"ops": [name]},
        recorded=[{"machine": name, "time": name, "row": asdict(row)}],
        environment={"time": name, "processor": {"model": name}},
    )  # fmt: skip


def svgs(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def cells(text: str) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of the last table."""
    last = text[text.rindex("<table") :]
    heads = last[last.index("<th>") + 4 : last.index("</thead>")].split("<th>")
    body = last[last.index("<tbody>") + 7 : last.index("</tbody>")]
    return heads, [each.split("<td>")[1:] for each in body.split("<tr")[1:]]
