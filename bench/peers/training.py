"""Runs of ``gpunet train`` in PyTorch as well: the same images, batches, first weights, rule and schedule.

    python -m gpunet.bench.peers.training                                  # a table of all runs
    python -m gpunet.bench.peers.training reference_cnn/mnist5k --json FILE # and as JSON

Dropout draws its own masks there, so the two runs are two samples of the same experiment, not twins: over some seeds
their accuracies should not differ by more than runs of one library among themselves.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
from gpunet.bench.peers import networks
from rich.console import Console
from rich.table import Table

from gpunet.cpu.threads import get_num_threads
from gpunet.train.recipes import OPTIMIZERS
from gpunet.train.runs import Run
from gpunet.train.schedules import LAYOUT, SCHEDULES

torch = networks.torch

#: name -> what `gpunet train` is told
RUNS: dict[str, dict[str, Any]] = {
    "softmax_regression/fashion": {"model": "softmax_regression", "data": "fashion"},
    "reference_cnn/mnist5k": {"model": "reference_cnn", "data": "mnist5k"},
    "reference_cnn/fashion": {"model": "reference_cnn", "data": "fashion", "epochs": 5},
    "reference_cnn/fashion augmented": {
        "model": "reference_cnn", "data": "fashion", "epochs": 20, "schedule": "one_cycle", "lr": 3e-3,
        "augment": "clothes", "validation": 0.05, "early_stop": 6, "monitor": "val_accuracy",
    },
}  # fmt: skip
BATCH = 256  # images at a time where the test images are judged


def theirs(run: Run) -> float:
    """Trains a twin of a run that has not begun yet; its accuracy on the test images. No early stopping."""
    s = run.settings
    model = networks.NETWORKS[s["model"]]()
    state = [np.array(each.detach().numpy()) for each in run.model.state_dict().values()]
    model.load_state_dict(dict(zip(model.state_dict(), map(torch.from_numpy, state), strict=True)))
    kind = getattr(torch.optim, OPTIMIZERS[s["optimizer"]].kind)
    rule = kind(model.parameters(), lr=s["lr"], weight_decay=s["weight_decay"])
    schedule, each_batch = _schedule(s, rule, len(run.loader)), s["schedule"] == "one_cycle"
    torch.manual_seed(s["seed"])
    model.train()
    for _ in range(s["epochs"]):
        for x, y in run.loader:
            rule.zero_grad()
            torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
            rule.step()
            if schedule is not None and each_batch:
                schedule.step()
        if schedule is not None and not each_batch:
            schedule.step()
    return _judged(model, *run.images.test)


def _schedule(s: dict[str, Any], rule: Any, batches: int) -> Any:
    kind = SCHEDULES[s["schedule"]]
    if kind is None:
        return None
    options = LAYOUT[s["schedule"]](s["epochs"], batches)
    if s["schedule"] == "one_cycle":
        options = {**options, "max_lr": s["lr"]}
    return getattr(torch.optim.lr_scheduler, kind.__name__)(rule, **options)


def _judged(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    model.eval()
    with torch.no_grad():
        right = [
            (model(torch.from_numpy(x[k : k + BATCH])).argmax(1).numpy() == y[k : k + BATCH]).sum()
            for k in range(0, len(x), BATCH)
        ]
    return float(sum(right)) / len(x)


def compare(name: str, seed: int) -> dict[str, Any]:
    """One run in both libraries: accuracies on the test images, and seconds."""
    given = {**RUNS[name], "seed": seed}
    begin = time.monotonic()
    ours = Run(given).train(verbose=0)
    between = time.monotonic()
    their = theirs(Run(given))
    return {
        "run": name,
        "seed": seed,
        "settings": ours["settings"],
        "gpunet": ours["test"]["accuracy"],
        "gpunet_seconds": between - begin,
        "torch": their,
        "torch_seconds": time.monotonic() - between,
        "torch_version": torch.__version__,
    }


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
    found = [compare(name, seed) for name in given.runs or RUNS for seed in given.seeds]
    table = Table("run", "seed", "gpunet", "PyTorch", "seconds", "seconds there", title="accuracy on the test images")
    for each in found:
        table.add_row(
            each["run"], str(each["seed"]), f"{each['gpunet']:.2%}", f"{each['torch']:.2%}",
            f"{each['gpunet_seconds']:.0f}", f"{each['torch_seconds']:.0f}",
        )  # fmt: skip
    Console().print(table)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
