"""Eight optimizers on one plot: gradient descent, with mini-batches, momentum, Nesterov; Adagrad, RMSprop, Adam, AdamW.

The same small network, the same start weights and the same order of the digits for all. Rates that suit one suit no
other, so each is run with seven and shown with the one that brought its training loss down the furthest. Gradient
descent looks at all images before each of its steps, so it makes one step an epoch; the others make 45::

    $ python -m gpunet.examples.optimizers_compared
    gradient descent  lr 1      loss 2.318 to 1.4666  test 83.0 % right
    mini-batch SGD    lr 1      loss 1.687 to 0.0525  test 96.1 % right
    momentum          lr 0.1    loss 1.357 to 0.0357  test 97.8 % right
    Nesterov          lr 0.1    loss 1.260 to 0.0388  test 97.5 % right
    Adagrad           lr 0.1    loss 0.888 to 0.0828  test 96.7 % right
    RMSprop           lr 0.01   loss 0.887 to 0.0668  test 96.4 % right
    Adam              lr 0.03   loss 0.841 to 0.0231  test 97.5 % right
    AdamW             lr 0.03   loss 0.842 to 0.0360  test 96.7 % right
    optimizers_compared.png written
"""

from collections.abc import Sequence

import gpunet as gn
from gpunet import data, nn, optim, plot
from gpunet.train import History, Trainer

BATCH = 32
RULES = {
    "gradient descent": (optim.SGD, {}),
    "mini-batch SGD": (optim.SGD, {}),
    "momentum": (optim.SGD, {"momentum": 0.9}),
    "Nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "Adagrad": (optim.Adagrad, {}),
    "RMSprop": (optim.RMSprop, {}),
    "Adam": (optim.Adam, {}),
    "AdamW": (optim.AdamW, {"weight_decay": 0.01}),
}
RATES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def main(
    epochs: int = 10, rates: Sequence[float] = RATES, path: str = "optimizers_compared.png", seed: int = 0
) -> dict[str, History]:
    """Trains, prints and draws; returns optimizer -> history of the run with its best rate."""
    digits, best = data.load("digits8"), {}
    for name in RULES:
        runs = {lr: run(digits, name, lr, epochs, seed) for lr in rates}
        lr = min(runs, key=lambda lr: loss_at_the_end(runs[lr][0]))
        best[name], accuracy = runs[lr]
        first, last = (best[name].history["loss"][k] for k in (0, -1))
        print(f"{name:16}  lr {lr:<5g}  loss {first:.3f} to {last:.4f}  test {100 * accuracy:.1f} % right")
    plot.curves(best, path, metrics=("loss",), log=True, title="eight optimizers, each with its best rate of seven")
    print(f"{path} written")
    return best


def run(digits: data.Dataset, name: str, lr: float, epochs: int, seed: int) -> tuple[History, float]:
    """The history of one training, and the accuracy on the test images."""
    gn.manual_seed(seed)
    rule, options = RULES[name]
    model = nn.MLP([64, 32, 10])
    trainer = Trainer(model, rule(model.parameters(), lr=lr, **options), "cross_entropy")
    size = len(digits.x_train) if name == "gradient descent" else BATCH
    history = trainer.fit(*digits.train, epochs=epochs, batch_size=size, verbose=0)
    return history, trainer.evaluate(*digits.test)["accuracy"]


def loss_at_the_end(history: History) -> float:
    """The mean training loss of the last epoch; infinite when the run diverged to NaN."""
    loss = history.last["loss"]
    return loss if loss == loss else float("inf")


if __name__ == "__main__":
    main()
