"""A training step of whole networks on every device and backend, and its parts: forward, backward, update.

LeNet-5 and the reference CNN, batches of 64 real images, Adam: what ``gpunet train`` does. All lanes start from the
same weights and must agree in the losses of their first three steps, else they are not timed; then they take turns. A
step begins with the batch on the host and ends when the device is done. On a GPU the parts are timed in steps of their
own, for waiting between them costs time that a whole step does not spend.
"""

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from gpunet import config, data, nn, optim
from gpunet import functional as F
from gpunet.creation import tensor
from gpunet.devices import Device
from gpunet.errors import GpunetError
from gpunet.measure import break_even, calls, pairs, progress, threads, timer, training, turns
from gpunet.measure.curves import Step
from gpunet.measure.rows import Ratio
from gpunet.measure.session import Session

MODELS = {"lenet5": nn.LeNet5, "reference_cnn": nn.ReferenceCNN}
BATCH = 64
BATCHES = 8  # that take turns
LEARNING_RATE = 1e-3
PARTS = ("step", "forward", "backward", "update")
PROVED = 3  # steps whose losses must agree
AGREE = 1e-4  # relative
LEAST, FEW = 3, 6  # rounds; with fewer samples than FEW the smallest and the largest are no 95 % interval
MOST_SECONDS = 10.0  # for one network
TOO_LONG = 1.5  # times the seconds of its share: a network that needs more is left out
PAIR_SECONDS = 3.0  # for one pair with another library


class Place(NamedTuple):
    """Where a network is trained."""

    device: Device
    backend: str | None
    """None for the device's own choice."""
    threads: int

    @property
    def name(self) -> str:
        """Device, and the backend where it was asked for by name."""
        return f"{self.device} {self.backend}" if self.backend else str(self.device)

    @property
    def full_name(self) -> str:
        """With the threads."""
        return break_even.name_of(str(self.device), self.backend or "", self.threads).replace("  ", " ").strip()


class Network:
    """A network under training on one lane.

    Args:
        name: of :data:`MODELS`.
        place: where.
        seed: of the weights.
        dropout: False lets dropout pass everything.
    """

    def __init__(self, name: str, place: Place, seed: int, dropout: bool = True):
        self.place = place
        with calls.seeded(seed):
            self.model = MODELS[name]().to(place.device).train()  # drawn on the host, so alike everywhere
        for module in self.model.modules():
            if isinstance(module, nn.Dropout) and not dropout:
                module.p = 0.0
        self.optimizer = optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self.batches = cycle(batches())
        self.samples: dict[str, list[float]] = {part: [] for part in PARTS}
        self.pools = turns.pools()

    def setting(self) -> AbstractContextManager[Any]:
        """Its backend and its threads."""
        stack = ExitStack()
        if self.place.backend is not None:
            stack.enter_context(config.use_backend(self.place.backend))
        stack.enter_context(threads.limited(self.place.threads, self.pools))
        return stack

    def step(self) -> Any:
        """One batch: forward, backward, update; returns the loss before it."""
        loss = self._forward()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _forward(self) -> Any:
        x, labels = next(self.batches)
        self.optimizer.zero_grad()
        logits = self.model(tensor(x, device=self.place.device))
        return F.cross_entropy(logits, tensor(labels, device=self.place.device))

    def sample(self) -> None:
        """Times a step and its parts."""
        with self.setting():
            parts = self._parts()
            if self.place.device.kind == "cuda":
                begin = timer.clock()
                self.step()
                self.place.device.synchronize()
                parts["step"] = timer.clock() - begin
        for part, seconds in parts.items():
            self.samples[part].append(seconds)

    def _parts(self) -> dict[str, float]:
        """Seconds of each part of one step, and their sum."""
        wait = self.place.device.synchronize
        times = [timer.clock()]
        loss = self._forward()
        wait()
        times.append(timer.clock())
        loss.backward()
        wait()
        times.append(timer.clock())
        self.optimizer.step()
        wait()
        times.append(timer.clock())
        return dict(zip(PARTS, (times[-1] - times[0], *np.diff(times).tolist()), strict=True))


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches that all lanes train on, in this order."""
    images = data.load(training.DATA)
    cuts = [slice(k * BATCH, (k + 1) * BATCH) for k in range(BATCHES)]
    return [(images.x_train[cut], images.y_train[cut].astype(np.int64)) for cut in cuts]


def steps_all(session: Session, against: Sequence[str] = ()) -> None:
    """Times training steps on every lane but the simulator's, and beside other libraries.

    Args:
        session: the run; its report gets :class:`Step` records, and ratios for each library.
        against: "torch", or nothing; other libraries have no networks here.
    """
    places = places_of(session)
    with progress.shown(session.screen, "steps", len(MODELS) * (1 + len(against))) as show:
        for number, name in enumerate(MODELS):
            show(name)
            if session.budget.over:
                session.note(f"training steps of {name} left out for lack of time")
                continue
            share = session.budget.left / (len(MODELS) - number) / (1 + len(against))
            session.report.steps += time_steps(session, name, places, min(MOST_SECONDS, share))
            for library in against:
                show(f"{name} against {library}")
                beside(session, name, library, places)
            session.save()


def places_of(session: Session) -> list[Place]:
    """Each device with its own choice of kernels, and each of its backends by name where it has several."""
    kinds = [lane for lane in session.lanes if lane.device.kind != "sim"]
    found = []
    for device in dict.fromkeys(lane.device for lane in kinds):
        names = [lane.backend for lane in kinds if lane.device == device]
        for count in threads.counts(device, (1, threads.ALL)):
            found += [Place(device, each, count) for each in (None, *(names if len(names) > 1 else ()))]
    return found


def time_steps(session: Session, name: str, places: Sequence[Place], seconds: float) -> list[Step]:
    """The steps of one network on all places, in turns.

    Args:
        session: gets a note for each place that takes no part.
        name: of :data:`MODELS`.
        places: where.
        seconds: about as long; at least three rounds are made.
    """
    begin, lanes, truth = timer.clock(), [], None

    def failed(lane: Network, error: Exception) -> None:
        session.note(f"training steps of {name} on {lane.place.full_name} did not run: {error}")

    for place in places:
        lane = Network(name, place, session.options.seed)
        try:
            losses = _losses(lane, session.options.seed)
        except GpunetError as error:  # an op without a kernel there is a finding, not the end of the run
            failed(lane, error)
            continue
        if truth is None:
            truth = losses
            needed = (timer.clock() - begin) * len(places) * (PROVED + LEAST) / PROVED
            if needed > TOO_LONG * seconds:
                session.note(f"training steps of {name} left out: they need about {needed:.0f} s, see --budget")
                return []
        reason = disagree(truth, losses)
        if reason:
            session.note(f"training steps of {name} on {place.full_name} are not timed: {reason}")
        else:
            lanes.append(lane)
    with timer.no_collector():
        lanes = turns.sample(lanes, seconds - (timer.clock() - begin), failed, LEAST)
    if any(len(lane.samples["step"]) < FEW for lane in lanes):
        session.note(f"training steps of {name} were so few that their intervals hold all samples: see n")
    return [step for lane in lanes for step in _records(session, name, lane)]


def _losses(lane: Network, seed: int) -> list[float]:
    """The losses of the first steps, which warm up as well; the same masks of dropout on every lane."""
    with lane.setting(), calls.seeded(seed + 1):
        return [float(lane.step()) for _ in range(PROVED)]


def disagree(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """What is wrong where the losses of the first steps differ; empty where they agree."""
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        apart = abs(a - b) / max(abs(a), abs(b), 1e-12)
        if not apart <= AGREE:
            return f"the loss of step {k + 1} must agree to {AGREE:g} from the same weights, got {a:.6g} and {b:.6g}"
    return ""


def _records(session: Session, name: str, lane: Network) -> list[Step]:
    """The lane's times, and those of an epoch, computed from the steps."""
    place, images = lane.place, len(data.load(training.DATA).x_train)
    count = -(-images // BATCH)
    session.note(f"epochs are computed: the median step times the {count} batches of {training.DATA}'s {images} images")

    def record(part: str, samples: Sequence[float], times: float = 1.0) -> Step:
        ordered = np.sort(samples) * times
        middle, ends = float(np.median(ordered)), timer.median_interval(ordered)
        return Step(name, str(place.device), place.name, part, BATCH, place.threads, middle, *ends, len(ordered))

    found = [record(part, lane.samples[part]) for part in PARTS]
    return [*found, record("epoch", lane.samples["step"], count)]


# ------------------------------------------------------------------------------------------------- another library


def beside(session: Session, name: str, library: str, places: Sequence[Place]) -> None:
    """Times steps in turns with the same network in another library: see Report.ratios, entry "step.<network>".

    Args:
        session: the run.
        name: of :data:`MODELS`.
        library: "torch".
        places: those with the device's own choice of kernels take part.
    """
    peers = importlib.import_module("gpunet.bench.peers")
    reason = "it has no networks here" if library != "torch" else peers.why_not(library)
    if reason:
        session.note(f"training steps against {library} left out: {reason}")
        return
    peer = peers.load(library)
    session.note(
        "losses are held against PyTorch's without dropout, whose masks are others there; it is on in the times"
    )
    for place in places:
        if place.backend is not None or place.device.kind not in peer.KINDS:
            continue
        if session.budget.over:
            session.note(f"training steps of {name} against {library} on {place.full_name} left out for lack of time")
            continue
        wrong = _apart(name, place, session.options.seed, peer)
        if wrong:
            session.note(f"training steps of {name} on {place.full_name} are not timed against {peer.NAME}: {wrong}")
        else:
            session.report.ratios.append(_ratio(session, name, place, peer))


def _twin(network: Network, name: str, dropout: bool) -> Any:
    """The other library's network with the weights that gpunet's has now."""
    networks = importlib.import_module("gpunet.bench.peers.networks")
    device = network.place.device
    state = [np.array(device.to_host(each.data)) for each in network.model.state_dict().values()]
    return networks.Training(name, state, str(device), LEARNING_RATE, dropout)


def _apart(name: str, place: Place, seed: int, peer: Any) -> str:
    """What is wrong where the two disagree in their first steps, without dropout; empty where they agree."""
    ours = Network(name, place, seed, dropout=False)
    theirs = _twin(ours, name, dropout=False)
    with peer.precise():
        wanted = [float(theirs.step(*batch)) for batch in batches()[:PROVED]]
    return disagree(_losses(ours, seed), wanted)


def _ratio(session: Session, name: str, place: Place, peer: Any) -> Ratio:
    ours = Network(name, place, session.options.seed)
    theirs, feed = _twin(ours, name, dropout=True), cycle(batches())

    def setting() -> AbstractContextManager[Any]:
        stack = ExitStack()
        stack.enter_context(peer.precise())
        stack.enter_context(peer.threads(place.threads or threads.machine.cores()))
        return stack

    with ours.setting():
        alone = pairs.alone(place.device)
    first = pairs.Lane([pairs.Around(ours.step, ours.setting)], place.device.synchronize, alone=alone)
    second = pairs.Lane([pairs.Around(lambda: theirs.step(*next(feed)), setting)], theirs.synchronize, alone=alone)
    limits = pairs.Limits(max(0.0, min(PAIR_SECONDS, session.budget.left)), least=FEW)
    pair = pairs.compare(first, second, limits)
    verdict = {"slower": "faster", "faster": "slower"}.get(pair.verdict, pair.verdict)  # pairs judge the second
    return Ratio(
        f"step.{name}", f"batch_{BATCH}", "float32", str(place.device), place.backend or "", "", True, peer.NAME,
        pair.first.median, pair.second.median, pair.ratio, pair.low, pair.high, pair.n, verdict, limits.effect,
        place.threads, "step",
    )  # fmt: skip


__all__ = ["MODELS", "Network", "Place", "beside", "disagree", "places_of", "steps_all", "time_steps"]
