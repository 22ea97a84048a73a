"""Runs of ``gpunet train`` in PyTorch as well: the same images, batches, first weights, rule and schedule.

    python -m gpunet.bench.peers.training                                   # a table of all runs
    python -m gpunet.bench.peers.training reference_cnn/mnist5k --json FILE # and as JSON
    python -m gpunet.bench.peers.training reference_cnn/fashion --seeds 0 1 2

Dropout draws its own masks there, so the two runs are two samples of the same experiment, not twins: over some seeds
their accuracies should not differ by more than runs of one library among themselves. To tell that from the ups and
downs of a single run, the test images are judged after every epoch in both; nothing is chosen by that. The models of
several seeds are also judged as an ensemble, by the mean of their probabilities.
"""

import argparse
import json
import time
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from gpunet.bench.peers import networks
from rich.console import Console
from rich.table import Table

from gpunet import nn
from gpunet.cpu.threads import get_num_threads
from gpunet.train.callbacks import Callback
from gpunet.train.ensemble import Gain, ensemble_gain, gain_of
from gpunet.train.recipes import OPTIMIZERS
from gpunet.train.runs import Run
from gpunet.train.schedules import LAYOUT, SCHEDULES
from gpunet.train.trainer import Trainer

torch = networks.torch

#: name -> what `gpunet train` is told
RUNS: dict[str, dict[str, Any]] = {
    "softmax_regression/fashion": {"model": "softmax_regression", "data": "fashion"},
    "reference_cnn/fashion_mini": {"model": "reference_cnn", "data": "fashion_mini"},
    "reference_cnn/mnist5k": {"model": "reference_cnn", "data": "mnist5k"},
    "reference_cnn/fashion": {"model": "reference_cnn", "data": "fashion", "epochs": 5},
    "reference_cnn/fashion augmented": {
        "model": "reference_cnn", "data": "fashion", "epochs": 20, "schedule": "one_cycle", "lr": 3e-3,
        "augment": "clothes", "validation": 0.05, "early_stop": 6, "monitor": "val_accuracy",
    },
}  # fmt: skip
BATCH = 256  # images at a time where the test images are judged


class Judge(Callback):
    """Judges the test images after every epoch."""

    def __init__(self, images: tuple[np.ndarray, np.ndarray]) -> None:
        self.images, self.found = images, []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        judge = Trainer(self.model, self.trainer.optimizer, "cross_entropy")
        self.found.append({"loss": logs["loss"], "test": judge.evaluate(*self.images, batch_size=BATCH)})


def theirs(run: Run) -> tuple[Any, list[dict[str, Any]]]:
    """A twin of a run that has not begun yet, trained: its module, and what is known after each epoch."""
    s = run.settings
    model = networks.NETWORKS[s["model"]]()
    state = [np.array(each.detach().numpy()) for each in run.model.state_dict().values()]
    model.load_state_dict(dict(zip(model.state_dict(), map(torch.from_numpy, state), strict=True)))
    kind = getattr(torch.optim, OPTIMIZERS[s["optimizer"]].kind)
    rule = kind(model.parameters(), lr=s["lr"], weight_decay=s["weight_decay"])
    schedule, each_batch = _schedule(s, rule, len(run.loader)), s["schedule"] == "one_cycle"
    torch.manual_seed(s["seed"])
    epochs: list[dict[str, Any]] = []
    for _ in range(s["epochs"]):  # no early stopping
        model.train()
        losses = []
        for x, y in run.loader:
            rule.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
            loss.backward()
            rule.step()
            losses.append(loss.item())
            if schedule is not None and each_batch:
                schedule.step()
        if schedule is not None and not each_batch:
            schedule.step()
        epochs.append({"loss": float(np.mean(losses)), "test": judged(probabilities(model, run.images.test[0]), run)})
    return model, epochs


def judged(found: np.ndarray, run: Run) -> dict[str, float]:
    """Cross-entropy and accuracy of probabilities (N, K) for the test images."""
    labels = run.images.test[1]
    loss = -np.log(np.maximum(found[np.arange(len(labels)), labels], np.finfo(np.float32).tiny))
    return {"loss": float(loss.mean()), "accuracy": float((found.argmax(1) == labels).mean())}


def _schedule(s: dict[str, Any], rule: Any, batches: int) -> Any:
    kind = SCHEDULES[s["schedule"]]
    if kind is None:
        return None
    options = LAYOUT[s["schedule"]](s["epochs"], batches)
    if s["schedule"] == "one_cycle":
        options = {**options, "max_lr": s["lr"]}
    return getattr(torch.optim.lr_scheduler, kind.__name__)(rule, **options)


def probabilities(model: Any, x: np.ndarray) -> np.ndarray:
    """(N, K) of PyTorch's module for the images x."""
    model.eval()
    with torch.no_grad():
        parts = [model(torch.from_numpy(x[k : k + BATCH])).softmax(1).numpy() for k in range(0, len(x), BATCH)]
    return np.concatenate(parts)


class Pair(NamedTuple):
    """One run in both libraries."""

    record: dict[str, Any]
    """What is written: what `gpunet train --json` writes but the loss of each batch, and beside it PyTorch's."""
    model: nn.Module
    theirs: np.ndarray
    """(N, K), probabilities of the test images there."""
    test: tuple[np.ndarray, np.ndarray]


def compare(name: str, seed: int) -> Pair:
    """One run in both libraries."""
    run, twin = (Run({**RUNS[name], "seed": seed}) for _ in range(2))
    judge = Judge(run.images.test)
    run.callbacks.insert(0, judge)  # before early stopping puts other weights back
    begin = time.monotonic()
    ours = run.train(verbose=0)
    between = time.monotonic()
    model, epochs = theirs(twin)
    torch_seconds = time.monotonic() - between
    found = probabilities(model, run.images.test[0])
    del ours["batch_losses"]
    accuracy = judged(found, run)["accuracy"]
    record = {
        "run": name,
        "seed": seed,
        "gpunet": {**ours, "total_seconds": between - begin, "judged": judge.found},
        "torch": {"version": torch.__version__, "accuracy": accuracy, "total_seconds": torch_seconds, "judged": epochs},
    }
    return Pair(record, run.model, found, run.images.test)


def together(pairs: list[Pair]) -> tuple[Gain, Gain]:
    """What the models of several seeds gain as an ensemble, ours and theirs."""
    x, y = pairs[0].test
    mean = np.mean([each.theirs for each in pairs], axis=0)
    answers = np.stack([mean, *(each.theirs for each in pairs)]).argmax(2)
    return ensemble_gain(nn.Ensemble([each.model for each in pairs]), x, y), gain_of(answers, y)


def main(arguments: list[str] | None = None) -> int:
    """Trains, prints the table and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"any of {', '.join(RUNS)}; all without")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a run for each (0)")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    given = parser.parse_args(arguments)
    if unknown := set(given.runs) - set(RUNS):
        parser.error(f"RUN must be one of {', '.join(RUNS)}, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(get_num_threads())
    screen, records, ensembles = Console(), [], []
    table = Table("run", "seed", "gpunet", "PyTorch", "seconds", "seconds there", title="accuracy on the test images")
    for name in given.runs or RUNS:
        seeds = list(dict.fromkeys(given.seeds))
        pairs = [compare(name, seed) for seed in seeds]
        for record, *_ in pairs:
            ours, other = record["gpunet"], record["torch"]
            table.add_row(
                name, str(record["seed"]), f"{ours['test']['accuracy']:.2%}", f"{other['accuracy']:.2%}",
                f"{ours['total_seconds']:.0f}", f"{other['total_seconds']:.0f}",
            )  # fmt: skip
        records += [each.record for each in pairs]
        if len(pairs) > 1:
            ours, other = together(pairs)
            ensembles.append({"run": name, "seeds": seeds, "gpunet": asdict(ours), "torch": asdict(other)})
            table.add_row(name, "all together", f"{ours.ensemble:.2%}", f"{other.ensemble:.2%}", "", "")
            screen.print(f"{name}, {ours}\nPyTorch, {other}", highlight=False)
    screen.print(table)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({"runs": records, "ensembles": ensembles}, file, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
