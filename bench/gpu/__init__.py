"""The kernels of a GPU, rung by rung, against PyTorch's libraries on the same GPU: ``python -m gpunet.bench.gpu``.

Every size of the suites in the chosen tiers is run forward and backward on the device, and what the launchers got is
captured. Each rung that takes a call is then held against PyTorch in float64 and, if right, timed in turns with
PyTorch in float32, TF32 off. The best rung of a product or convolution is timed against TF32 too, as a ratio of its
own: that is another computation, with 10 bits of mantissa.

Without a GPU, ``--device sim`` goes the same way through the emulator on the smallest sizes, against PyTorch on the
processor. Its times mean nothing; it shows that the command works before a GPU is there.
"""

import importlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpunet import config, devices, dispatch, random
from gpunet.backward import grad
from gpunet.creation import tensor
from gpunet.devices import Device
from gpunet.dispatch import Call, Kernel
from gpunet.measure import events, info, pairs, roof, rows, tolerances

suites: Any = importlib.import_module("gpunet.bench.suites")  # by name: its files lie in the folder bench/

#: sizes whose every rung is timed; of the others the one that runs by itself
LADDERS = {
    "matmul": ("square_4096", "square_8192", "one_past_a_tile"),
    "conv2d": ("resnet_56_32", "vgg_28", "uneven"),
    "max_pool2d": None,
    "relu": ("bias_relu", "bias_relu_mask"),
    "softmax": None,
    "cross_entropy": None,
    "batch_norm": None,
    "layer_norm": None,
    "dropout": None,
}
ELEMENTS = 2**29  # sizes with more are left out: drawing their numbers takes longer than everything else
EFFECT = 0.01  # ratios are wanted as exactly as that
EXACT = ("matmul", "conv2d")  # ops whose peer may round its inputs to TF32


class Plan(NamedTuple):
    """What to do: where, which sizes, how long."""

    device: Device
    tiers: tuple[str, ...]
    ops: tuple[str, ...]
    seconds: float
    """For everything; what does not fit is named in the notes."""
    each: float = 0.6
    """For one comparison."""
    seed: int = 0


def captured(op: str, size: Any, plan: Plan) -> list[Call]:
    """The calls that one size makes, forward and backward; each entry once for each set of flags."""
    suite = suites.load(op)
    random.manual_seed(plan.seed)
    tensors = suite.tensors(size, "float32", plan.device, plan.seed)
    wanted = [each for each in tensors.values() if each.requires_grad]
    with config.use_fused(size.fused), dispatch.capture() as found:
        y = suite.run(size, tensors)
        gy = plan.device.asarray(np.random.default_rng(plan.seed + 1).standard_normal(y.shape, np.float32))
        grad(y, wanted, tensor(gy, device=plan.device))
    names = {}
    for call in found:
        flags = tuple(name for name, value in call.params.items() if value is True)
        names.setdefault((call.entry, flags), call)
    return list(names.values())


def rungs(op: str, size: Any, call: Call) -> list[Kernel]:
    """The kernels to be timed: all that take the call where the ladder is of interest, else the one that runs."""
    chosen = dispatch.find(call.device, call.entry, call.arrays, call.params)
    if op not in LADDERS or not (LADDERS[op] is None or size.name in (LADDERS[op] or ())):
        return [chosen]
    usable = [
        name for name in devices.CHOICE[call.device.kind] if devices.BACKENDS[name].why_not(call.device.kind) is None
    ]
    found = [each for name in usable for each in dispatch.variants(call.entry, name)]
    return [chosen] + [each for each in found if each is not chosen and each.refusal(call.arrays, call.params) is None]


def run(plan: Plan, peer: Any, screen: Any = print, save: Path | None = None) -> rows.Report:
    """Proves and times; the report goes to ``save`` after every size, so that an interrupted run keeps its rows."""
    begin = time.perf_counter()
    report = rows.Report(
        environment=info.collect(), options={"tiers": plan.tiers, "peer": peer.NAME, "seed": plan.seed}
    )
    if plan.device.kind == "cuda":
        report.roofs.append(events.roof(plan.device, "float32"))
        screen(f"roof: {report.roofs[0].flops / 1e12:.1f} TFLOP/s, {report.roofs[0].memory / 1e9:.0f} GB/s")
    for op, size in _sizes(plan):
        if time.perf_counter() - begin > plan.seconds:
            report.notes.append(f"{op} {size.name}: left out, the time was over")
            continue
        if size.elements > ELEMENTS:
            report.notes.append(f"{op} {size.name}: left out, more than {ELEMENTS} elements")
            continue
        try:
            _one_size(op, size, plan, peer, report, screen)
        except Exception as error:  # one size must not end the run: its failure is a row of its own
            _fail(report, op, size, plan, f"{type(error).__name__}: {error}")
            screen(f"{op} {size.name}: {type(error).__name__}: {error}")
        if plan.device.kind == "cuda":
            plan.device.xp.get_default_memory_pool().free_all_blocks()
        if save is not None:
            report.write(save)
    report.complete = True
    report.seconds["all"] = time.perf_counter() - begin
    if save is not None:
        report.write(save)
    return report


def _sizes(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Ladders first, then the ops that take most of a network's time."""
    everything = [(op, size) for op in plan.ops for size in suites.sizes(op, plan.tiers)]
    first = [each for each in everything if each[1].name in (LADDERS.get(each[0]) or ())]
    yield from first
    yield from (each for each in everything if each not in first)


def _one_size(op: str, size: Any, plan: Plan, peer: Any, report: rows.Report, screen: Any) -> None:
    for call in captured(op, size, plan):
        with peer.precise():
            found = _outputs(peer.bind(call.entry, call.arrays, call.params, double=True)())
        wanted = [None if each is None else each.clone() for each in found]  # a peer leaves out what it was not asked
        for kernel in rungs(op, size, call):
            row = _prove(op, size, kernel, call, wanted, peer, report)
            if row is not None:
                _time(op, size, kernel, call, row, plan, peer, report, screen)


def _outputs(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def _terms(op: str, call: Call, size: int) -> float:
    return max(1.0, dispatch.title(op).work(call.entry, *call.arrays, **call.params).flops / max(1, size))


def _prove(
    op: str, size: Any, kernel: Kernel, call: Call, wanted: Any, peer: Any, report: rows.Report
) -> rows.Proof | None:
    """The proof's record if the kernel is right, twice the same, and leaves its inputs alone; else None."""
    before = [each.copy() for each in call.arrays if each is not None]
    poison, config.settings.poison = config.settings.poison, True
    try:
        first, second = (_outputs(kernel.function(*call.arrays, **call.params)) for _ in range(2))
    finally:
        config.settings.poison = poison
    given = [each for each in call.arrays if each is not None]
    untouched = all(bool((a == b).all()) for a, b in zip(given, before, strict=True))
    same = all(_equal(a, b) for a, b in zip(first, second, strict=True))
    pairs = peer.results(call.entry, first, wanted)
    reached = max((peer.distance(ours, theirs) for ours, theirs in pairs), default=0.0)
    home = call.entry.partition(".")[0]
    allowed = tolerances.allowed("float32", _terms(home, call, first[0].size))
    wrong = [] if reached <= allowed else [f"off by {reached:.2e} of the largest value, allowed {allowed:.2e}"]
    wrong += [] if untouched else ["it changed its inputs"]
    wrong += [] if same else ["two runs gave different bits"]
    proof = rows.Proof(
        op, call.entry, "backward" if ".grad" in call.entry else "forward", str(call.device), kernel.backend,
        kernel.variant, kernel.place, "float32", size.name, "failed" if wrong else "passed", "; ".join(wrong), reached,
        allowed, same,
    )  # fmt: skip
    report.proofs.append(proof)
    return None if wrong else proof


def _equal(one: Any, other: Any) -> bool:
    """Bit for bit, NaN included."""
    return bool((one.reshape(-1).view("uint8") == other.reshape(-1).view("uint8")).all())


def _fail(report: rows.Report, op: str, size: Any, plan: Plan, reason: str) -> None:
    report.proofs.append(
        rows.Proof(op, op, "forward", str(plan.device), "", "", "", "float32", size.name, "failed", reason)
    )


def _time(
    op: str, size: Any, kernel: Kernel, call: Call, proof: rows.Proof, plan: Plan, peer: Any, report: rows.Report,
    screen: Any,
) -> None:  # fmt: skip
    nbytes = sum(each.nbytes for each in call.arrays if each is not None)
    count = events.copies_for(nbytes) if plan.device.kind == "cuda" else 1
    copies = [call.arrays] + [tuple(a if a is None else a.copy() for a in call.arrays) for _ in range(count - 1)]
    ours = events.Lane([partial(kernel.function, *arrays, **call.params) for arrays in copies], plan.device)
    with peer.precise():
        theirs = events.Lane([peer.bind(call.entry, arrays, call.params) for arrays in copies], plan.device)
        pair = pairs.compare(ours, theirs, pairs.Limits(plan.each, effect=EFFECT))
    home = call.entry.partition(".")[0]
    work = dispatch.title(home).work(call.entry, *call.arrays, **call.params)
    place = next((each for each in report.roofs if each.device == str(plan.device)), None)
    stand = roof.standing(work, pair.first, place, roof.savings(home, kernel.variant)) if place else None
    median = max(pair.first.median, 1e-12)
    shapes = [list(each.shape) for each in call.arrays if each is not None]
    report.rows.append(
        rows.Row(
            op, call.entry, proof.phase, str(plan.device), kernel.backend, kernel.variant, kernel.place, "float32",
            size.name, size.origin, size.tier, shapes, {k: _plain(v) for k, v in call.params.items()}, "passed",
            proof.reached, proof.allowed, pair.first, work.flops, work.bytes_read, work.bytes_written,
            work.flops / median / 1e9, (work.bytes_read + work.bytes_written) / median / 1e9,
            stand.percent if stand else 0.0, stand.bound if stand else "", bool(stand and stand.impossible),
        )
    )  # fmt: skip
    chosen = kernel is dispatch.find(call.device, call.entry, call.arrays, call.params)
    _ratio(report, kernel, call, size, f"{peer.NAME}, TF32 off", pair, chosen)
    rung = f"{kernel.backend}/{kernel.variant}{'*' if chosen else ''}"
    screen(
        f"{call.entry:<24} {_flags(call):<2} {size.name:<18} {rung:<24} "
        f"{median * 1e6:10.1f} us  {work.flops / median / 1e12:7.2f} TF/s "
        f"{(work.bytes_read + work.bytes_written) / median / 1e9:7.0f} GB/s  "
        f"{pair.ratio:6.3f}x [{pair.low:.3f}, {pair.high:.3f}]"
    )
    if chosen and op in EXACT and plan.device.kind == "cuda":
        with peer.precise(tf32=True):
            rounded = events.Lane([peer.bind(call.entry, arrays, call.params) for arrays in copies], plan.device)
            again = events.Lane(ours.calls, plan.device)
            pair = pairs.compare(again, rounded, pairs.Limits(plan.each / 2, effect=EFFECT))
            _ratio(report, kernel, call, size, f"{peer.NAME}, TF32 on", pair, True)


def _flags(call: Call) -> str:
    """NN, NT, TN or TT for a product, else nothing."""
    names = [call.params.get(name) for name in ("transpose_a", "transpose_b")]
    return "" if None in names else "".join("T" if each else "N" for each in names)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _ratio(report: rows.Report, kernel: Kernel, call: Call, size: Any, peer: str, pair: Any, chosen: bool) -> None:
    report.ratios.append(
        rows.Ratio(
            call.entry, size.name, "float32", str(call.device), kernel.backend, kernel.variant, chosen, peer,
            pair.first.median, pair.second.median, pair.ratio, pair.low, pair.high, pair.first.n,
        )
    )  # fmt: skip
