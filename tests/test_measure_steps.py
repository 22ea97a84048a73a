"""Training steps and their parts, beside other libraries, and the time to a given accuracy."""

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpunet import data, devices, nn
from gpunet.errors import NoKernelError
from gpunet.measure import progress, session, steps, tables, training
from gpunet.measure.curves import Curve, Step
from gpunet.measure.steps import Place

CPU = Place(devices.CPU, None, 0)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason='PyTorch is not installed; pip install "gpunet[peers]"'
)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run on the processor, with small batches and few rounds."""
    monkeypatch.setattr(steps, "BATCH", 4)
    monkeypatch.setattr(steps.turns, "MOST", 7)
    made = session.start(session.Options(ops=("relu",), out=None, quiet=True, device="cpu", budget=1e6))
    made.budget = progress.Budget(600)
    made.budget.part(1.0)
    return made


# ------------------------------------------------------------------------------------------------------------- steps


def test_a_step_its_parts_and_an_epoch(now: Any):
    places = [CPU, Place(devices.CPU, "numpy", 1)]
    found = steps.time_steps(now, "lenet5", places, 600)
    assert [(each.lane, each.threads, each.part) for each in found] == [
        (lane, count, part)
        for lane, count in (("cpu", 0), ("cpu numpy", 1))
        for part in ("step", "forward", "backward", "update", "epoch")
    ]
    assert {(each.model, each.device, each.batch_size, each.n) for each in found} == {("lenet5", "cpu", 4, 7)}
    assert all(0 < each.low <= each.median <= each.high for each in found)
    step, epoch = found[0], found[4]
    assert epoch.median == pytest.approx(step.median * 750)  # 3000 images
    assert "the 750 batches of fashion_mini's 3000 images" in now.report.notes[0]


def test_parts_are_timed_by_what_they_take(monkeypatch: pytest.MonkeyPatch, now: Any):
    clock = [0.0]
    monkeypatch.setattr(steps.timer, "clock", lambda: clock[0])

    def takes(seconds: float) -> Any:
        clock[0] += seconds
        return loss

    loss = SimpleNamespace(backward=lambda: takes(2))
    lane = steps.Network("lenet5", CPU, 0)
    monkeypatch.setattr(lane, "_forward", lambda: takes(1))
    monkeypatch.setattr(lane.optimizer, "step", lambda: takes(4))
    for _ in range(2):
        lane.sample()
    assert lane.samples == {"step": [7, 7], "forward": [1, 1], "backward": [2, 2], "update": [4, 4]}


def test_on_a_gpu_a_whole_step_is_timed_apart_from_its_parts(monkeypatch: pytest.MonkeyPatch, now: Any):
    """Waiting between the parts must not be in the step: on a GPU it is another one."""

    class Gpu:
        kind, waits = "cuda", 0

        def synchronize(self) -> None:
            self.waits += 1

    lane, gpu = steps.Network("lenet5", CPU, 0), Gpu()
    lane.place = Place(gpu, None, 0)  # type: ignore[arg-type]
    monkeypatch.setattr(lane, "_forward", lambda: lane.model(steps.tensor(steps.batches()[0][0])).sum())
    waits: list[int] = []
    whole = lane.step
    monkeypatch.setattr(lane, "step", lambda: (waits.append(gpu.waits), whole())[1])
    lane.sample()
    assert waits == [3]
    assert gpu.waits == 4
    assert lane.samples["step"][0] != sum(lane.samples[part][0] for part in ("forward", "backward", "update"))


def test_every_lane_starts_from_the_same_weights_and_makes_the_same_steps(now: Any):
    losses = [steps._losses(steps.Network("reference_cnn", place, 3), 3) for place in (CPU, CPU._replace(threads=1))]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] != losses[0][:1] * 3
    assert steps._losses(steps.Network("reference_cnn", CPU, 4), 3) != losses[0]


def test_a_lane_that_learns_otherwise_is_not_timed(now: Any, monkeypatch: pytest.MonkeyPatch):
    losses = steps._losses

    def wrong(lane: Any, seed: int) -> list[float]:
        found = losses(lane, seed)
        return [*found[:2], found[2] * 1.001] if lane.place.threads == 1 else found

    monkeypatch.setattr(steps, "_losses", wrong)
    found = steps.time_steps(now, "lenet5", [CPU, CPU._replace(threads=1)], 600)
    assert {each.threads for each in found} == {0}
    assert "lenet5 on cpu on 1 thread are not timed: the loss of step 3 must agree to 0.0001" in now.report.notes[0]


def test_a_lane_without_a_kernel_is_a_note(now: Any, monkeypatch: pytest.MonkeyPatch):
    def nothing(lane: Any, seed: int) -> list[float]:
        raise NoKernelError("no kernel of conv2d")

    monkeypatch.setattr(steps, "_losses", nothing)
    assert steps.time_steps(now, "lenet5", [CPU], 600) == []
    assert now.report.notes == ["training steps of lenet5 on cpu did not run: no kernel of conv2d"]


@pytest.mark.parametrize(
    ("theirs", "told"),
    [([1.0, 2.0, 3.0], ""), ([1.0, 2.0, 3.00029], ""), ([1.0, 2.001, 3.0], "step 2"), ([float("nan")] * 3, "step 1")],
)
def test_losses_must_agree(theirs: list[float], told: str):
    found = steps.disagree([1.0, 2.0, 3.0], theirs)
    assert bool(found) == bool(told)
    assert told in found


def test_places(now: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(steps.threads.machine, "cores", lambda: 2)
    now.lanes = [session.Lane(devices.CPU, "numba_cpu"), session.Lane(devices.CPU, "numpy")]
    names = [(each.name, each.threads) for each in steps.places_of(now)]
    assert names == [
        ("cpu", 1), ("cpu numba_cpu", 1), ("cpu numpy", 1), ("cpu", 0), ("cpu numba_cpu", 0), ("cpu numpy", 0),
    ]  # fmt: skip
    now.lanes = now.lanes[1:]
    assert [(each.name, each.threads) for each in steps.places_of(now)] == [("cpu", 1), ("cpu", 0)]
    assert steps.places_of(now)[0].full_name == "cpu on 1 thread"


def test_what_the_time_does_not_suffice_for_is_left_out(now: Any):
    now.budget = progress.Budget(1e-9)
    now.budget.part(1.0)
    steps.steps_all(now, ("torch",))
    assert now.report.steps == []
    assert now.report.notes == [f"training steps of {name} left out for lack of time" for name in steps.MODELS]
    assert steps.time_steps(now, "lenet5", [CPU], 1e-9) == []
    assert "left out: they need about" in now.report.notes[-1]


def test_table_of_steps():
    lines = [Step("lenet5", "cpu", "cpu", part, 64, 1, 1e-3, 0.9e-3, 1.1e-3, 9) for part in ("step", "epoch")]
    table = tables.steps([*lines, Step("lenet5", "cuda:0", "cuda:0", "step", 64, 0, 1e-4, 1e-4, 1e-4, 9)])
    assert [list(column._cells) for column in table.columns] == [
        ["lenet5, batch 64"] * 2, ["cpu", "cuda:0"], ["1", "-"], ["1 ms ±10%", "100 µs ±0%"], ["1 ms ±10%", "-"],
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- another library


@needs_torch
@pytest.mark.parametrize("name", steps.MODELS)
def test_pytorch_s_twin_makes_the_same_steps(name: str, now: Any):
    peer = steps.importlib.import_module("gpunet.bench.peers").load("torch")
    assert steps._apart(name, CPU, 0, peer) == ""


@needs_torch
def test_steps_are_timed_in_turns_with_pytorch(now: Any):
    steps.beside(now, "lenet5", "torch", [CPU._replace(threads=1), Place(devices.CPU, "numpy", 1)])
    (found,) = now.report.ratios
    assert (found.entry, found.size, found.phase, found.threads) == ("step.lenet5", "batch_4", "step", 1)
    assert found.peer.startswith("torch ")
    assert found.low <= found.ratio <= found.high
    assert found.n >= 6
    assert min(found.ours, found.theirs) > 0


@needs_torch
def test_who_computes_something_else_is_not_timed(now: Any, monkeypatch: pytest.MonkeyPatch):
    networks = steps.importlib.import_module("gpunet.bench.peers.networks")
    monkeypatch.setattr(networks.torch.optim, "Adam", lambda params, lr: networks.torch.optim.SGD(params, lr=lr))
    steps.beside(now, "lenet5", "torch", [CPU])
    assert now.report.ratios == []
    assert any("not timed against torch" in n and "the loss of step 2 must agree" in n for n in now.report.notes)


def test_a_library_without_networks_is_a_note(now: Any):
    steps.beside(now, "lenet5", "jax", [CPU])
    assert now.report.notes == ["training steps against jax left out: it has no networks here"]


# ------------------------------------------------------------------------------------------------ time to an accuracy


@pytest.fixture
def _looks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "EVERY", 2)
    monkeypatch.setattr(training, "HELD_OUT", 30)
    monkeypatch.setattr(training, "BATCH", 8)


@pytest.mark.usefixtures("_looks")
def test_looks_at_held_out_images_change_nothing_and_cost_nothing(monkeypatch: pytest.MonkeyPatch):
    todo = training.Plan(images=40, test_images=40, epochs=1, seed=1)
    predict = training.predict

    clock = [0.0]

    def read() -> float:
        clock[0] += 1  # a step reads it twice, so it takes 1
        return clock[0]

    def slowly(model: nn.Module, x: np.ndarray, device: Any, left: Any) -> np.ndarray:
        clock[0] += 1000
        return predict(model, x, device, left)

    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=read))
    monkeypatch.setattr(training, "predict", slowly)
    looked = training.train(devices.CPU, None, todo, lambda: float("inf"))
    assert [each[0] for each in looked.reached] == [2, 4]  # of 5 steps
    assert looked.seconds_per_epoch == 5
    monkeypatch.setattr(training, "EVERY", 10**9)
    blind = training.train(devices.CPU, None, todo, lambda: float("inf"))
    assert blind.reached == []
    assert blind.losses == looked.losses
    assert blind.accuracy == looked.accuracy


@pytest.mark.usefixtures("_looks")
def test_the_share_is_that_of_the_held_out_images(monkeypatch: pytest.MonkeyPatch):
    shown: list[np.ndarray] = []

    def always_seven(model: nn.Module, x: np.ndarray, device: Any, left: Any) -> np.ndarray:
        shown.append(x)
        model.eval()
        return np.full(len(x), 7)

    monkeypatch.setattr(training, "predict", always_seven)
    todo = training.Plan(images=40, test_images=None, epochs=1, seed=1)
    curve = training.train(devices.CPU, None, todo, lambda: float("inf"))
    assert [share for _, share in curve.reached] == [0.1, 0.1]  # as many of each class
    assert [len(each) for each in shown] == [30, 30, 1000]
    assert np.array_equal(shown[0], shown[1])
    wanted, _ = training._spread(*data.load(training.DATA).test, 30)
    assert np.array_equal(shown[0], wanted)
    assert (curve.target, curve.seconds_to_target) == (training.TARGET, None)


def test_the_first_look_that_reaches_the_target_counts():
    looks = [[1.0, 0.2], [2.0, 0.8], [3.0, 0.7], [4.0, 0.9]]
    assert training.seconds_to(looks, 0.75) == 2.0
    assert training.seconds_to(looks, 0.8) == 2.0
    assert training.seconds_to(looks, 0.95) is None
    assert training.seconds_to([], 0.5) is None


def test_words_of_the_time_to_the_target():
    def curve(lane: str, seconds: float | None, target: float | None = 0.75, losses: int = 1) -> Curve:
        made = Curve(lane, "cpu", [], [1.0] * losses, 0.5, 1.0, 32, 1, 1, 1.0, 1.0, "")
        made.target, made.seconds_to_target = target, seconds
        return made

    curves = [curve("cpu numpy", 31.4), curve("cuda:0", 2.13), curve("cpu", None), curve("old", 1.0, None)]
    assert training.words([*curves, curve("never", None, losses=0)]) == [
        "to 75 % right: cpu numpy 31 s, cuda:0 2.1 s, cpu did not get there"
    ]
    assert training.words([curve("old", 1.0, None)]) == []
