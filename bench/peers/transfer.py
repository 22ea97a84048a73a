"""The example ``gpunet.examples.transfer`` in PyTorch as well: the same images, first weights, rule and steps.

    python -m gpunet.bench.peers.transfer                       # 50 and 100 labels, five seeds each, as a table
    python -m gpunet.bench.peers.transfer --seeds 2 --json FILE # and as JSON

The order of the batches and the masks of dropout are others than gpunet's: two samples of one experiment for each seed.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
from gpunet.bench.peers import networks
from gpunet.bench.peers.training import probabilities
from rich.console import Console
from rich.table import Table

import gpunet as gn
from gpunet import data, nn
from gpunet.cpu.threads import get_num_threads
from gpunet.examples import transfer
from gpunet.train.pretrained import weights

torch = networks.torch


def theirs(way: str, x: np.ndarray, y: np.ndarray, epochs: int, seed: int) -> Any:
    """``transfer.trained`` in PyTorch: the module."""
    gn.manual_seed(seed)
    first = nn.ReferenceCNN(num_classes=10)
    if way != "scratch":
        gn.io.load(weights("reference_cnn_mnist5k"), first, include_top=False)
    model = networks.NETWORKS["reference_cnn"]()
    state = [torch.from_numpy(np.array(each.detach().numpy())) for each in first.state_dict().values()]
    model.load_state_dict(dict(zip(model.state_dict(), state, strict=True)))
    torch.manual_seed(seed)
    settling = epochs // 3 if way == "fine-tuned" else epochs
    model.train()
    if way != "scratch":
        model.requires_grad_(False)
        model[0].eval()
        model[1][-1].requires_grad_(True)
    _fit(model, x, y, settling, 1e-3, seed)
    if way == "fine-tuned":
        model.requires_grad_(True).train()
        _fit(model, x, y, epochs - settling, 3e-4, seed + 1)
    return model


def _fit(model: Any, x: np.ndarray, y: np.ndarray, epochs: int, lr: float, seed: int) -> None:
    rule = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=lr)
    loader = data.DataLoader((x, y), 16, shuffle=True, seed=seed)
    for _ in range(epochs):
        for images, labels in loader:
            rule.zero_grad()
            torch.nn.functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
            rule.step()


def compare(count: int, seeds: int, epochs: int) -> dict[str, Any]:
    """So many labels, every way, in both libraries: accuracy on the test images for each seed."""
    digits = data.load("digits8")
    x, y = transfer.enlarged(digits.x_test), digits.y_test
    ways = {way: {"gpunet": [], "torch": []} for way in transfer.WAYS}
    for seed in range(seeds):
        images, labels = transfer.a_few(digits, count, seed)
        images = transfer.enlarged(images)
        for way, found in ways.items():
            ours = transfer.trained(way, images, labels, epochs, seed)
            found["gpunet"].append(ours.evaluate(x, y)["accuracy"])
            other = probabilities(theirs(way, images, labels, epochs, seed), x)
            found["torch"].append(float((other.argmax(1) == y).mean()))
    return {"labels": count, "epochs": epochs, "seeds": list(range(seeds)), "ways": ways}


def main(arguments: list[str] | None = None) -> int:
    """Trains, prints the table and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100], help="labelled images (50 100)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--epochs", type=int, default=30, help="of each run (30)")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    given = parser.parse_args(arguments)
    for count in given.labels:
        if count < 10 or count % 10:
            parser.error(f"--labels must be as many of each of the ten digits, 10, 20 and so on, got {count}")
    for name in ("seeds", "epochs"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(given, name)}")
    torch.set_num_threads(get_num_threads())
    begin = time.monotonic()
    records = [compare(count, given.seeds, given.epochs) for count in dict.fromkeys(given.labels)]
    title = f"accuracy on the test images, mean of {given.seeds} seeds"
    table = Table("labels", "way", "gpunet", "PyTorch", title=title)
    for record in records:
        for way, found in record["ways"].items():
            table.add_row(str(record["labels"]), way, *(f"{np.mean(each):.1%}" for each in found.values()))
    Console().print(table)
    if given.json:
        whole = {"versions": {"gpunet": gn.__version__, "torch": torch.__version__}, "runs": records}
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump({**whole, "seconds": time.monotonic() - begin}, file, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
