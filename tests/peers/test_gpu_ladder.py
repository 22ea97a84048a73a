"""The command that times kernels on a GPU, taken through the emulator: it must be right before a GPU is there."""

import json
import time
from typing import Any

import pytest

from gpunet import devices
from gpunet.cuda import emulator
from gpunet.measure import events, pairs, rows

pytest.importorskip("torch")
gpu: Any = pytest.importorskip("gpunet.bench.gpu")
command: Any = pytest.importorskip("gpunet.bench.gpu.__main__")
peer: Any = pytest.importorskip("gpunet.bench.peers.pytorch")

pytestmark = pytest.mark.skipif(bool(emulator.why_not()), reason=str(emulator.why_not()))


def test_the_whole_command_on_sim(tmp_path, capsys):
    path = tmp_path / "report.json"
    ops = "relu,max_pool2d,cross_entropy,batch_norm,dropout,conv_transpose2d"
    status = command.main(["--device", "sim", "--each", "0.02", "--ops", ops, "--out", str(path)])
    printed = capsys.readouterr().out
    assert status == 0, printed
    report = rows.read(path)
    assert report.complete
    assert not report.failed
    assert {each.entry for each in report.rows} >= {"relu.forward_mask", "max_pool2d.grad_x", "batch_norm.grad_x"}
    assert {each.backend for each in report.rows} == {"cupy"}
    assert len(report.ratios) == len(report.rows)
    assert all(each.peer.endswith("TF32 off") and each.low <= each.ratio <= each.high for each in report.ratios)
    assert "relu.grad_x_mask" in printed
    assert json.loads(path.read_text())["ratios"]


def test_every_rung_of_a_ladder_is_timed():
    device = devices.device("sim")
    plan = gpu.Plan(device, ("proof",), ("matmul",), 60.0, 0.01)
    report = gpu.run(plan, peer, lambda line: None)
    whole = {each.variant for each in report.rows if each.size == "one_past_a_tile"}
    assert {"naive", "coalesced", "tiled"} <= whole
    others = [each.variant for each in report.rows if each.size == "primes"]
    assert len(set(others)) == 1


def test_a_wrong_kernel_gets_no_row(monkeypatch):
    device = devices.device("sim")
    honest = peer.distance
    monkeypatch.setattr(peer, "distance", lambda ours, theirs: 1.0 + honest(ours, theirs))
    report = gpu.run(gpu.Plan(device, ("proof",), ("sigmoid",), 60.0, 0.01), peer, lambda line: None)
    assert not report.rows
    assert report.failed
    assert "allowed" in report.failed[0]


def test_a_size_that_fails_does_not_end_the_run(monkeypatch):
    def broken(op, size, plan):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "captured", broken)
    plan = gpu.Plan(devices.device("sim"), ("proof",), ("tanh",), 60.0, 0.01)
    report = gpu.run(plan, peer, lambda line: None)
    assert report.complete
    assert len(report.failed) >= 2
    assert "out of memory" in report.failed[0]


def test_the_time_is_kept_and_what_is_left_out_is_named():
    plan = gpu.Plan(devices.device("sim"), ("proof",), ("tanh",), -1.0, 0.01)
    report = gpu.run(plan, peer, lambda line: None)
    assert not report.rows
    assert all("the time was over" in note for note in report.notes)
    assert report.notes


def test_ratios_are_those_of_interleaved_pairs():
    cpu = devices.device("cpu")
    fast, slow = (events.Lane([lambda s=s: time.sleep(s)], cpu) for s in (0.002, 0.006))
    pair = pairs.compare(fast, slow, pairs.Limits(0.3, most=20))
    assert 2.0 < pair.low <= pair.ratio < 4.0  # the upper end is open: sleep may be late
    assert pair.verdict == "slower"
    assert pair.first.n == pair.second.n >= 5
    assert pair.second.median > pair.first.median
