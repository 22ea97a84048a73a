"""Under- and overfitting and their cures: training against validation, on 300 images of clothes.

A network of four hidden units is too small: it does badly on both. One of 2 x 256 learns 300 images by heart; on images
it has not seen its loss falls, turns and rises, while it grows surer of its errors. Then five cures of that, each alone
on the same network, and two together. Accuracies on 600 validation images are good to some two points; the loss tells
more::

    $ python -m gpunet.examples.overfitting
    too small                training  40.7 %, validation 34.3 %, validation loss 1.71 after 60 epochs
    too large                training 100.0 %, validation 76.2 %, validation loss 1.20 after 60 epochs
    weight decay             training 100.0 %, validation 77.0 %, validation loss 0.86 after 60 epochs
    dropout                  training  98.7 %, validation 74.8 %, validation loss 0.88 after 60 epochs
    augmentation             training  82.7 %, validation 75.2 %, validation loss 0.74 after 60 epochs
    early stopping           training  92.3 %, validation 76.5 %, validation loss 0.71 after 23 epochs
    more images              training  99.7 %, validation 81.7 %, validation loss 1.10 after 60 epochs
    more images and dropout  training  95.4 %, validation 82.7 %, validation loss 0.65 after 60 epochs
    overfitting.png written
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gpunet as gn
from gpunet import data, nn, optim, plot
from gpunet.data import augment
from gpunet.train import EarlyStopping, Trainer


def small() -> nn.Module:
    """Four hidden units."""
    return nn.MLP([784, 4, 10])


def large() -> nn.Module:
    """Two hidden layers of 256 units."""
    return nn.MLP([784, 256, 256, 10])


def with_dropout() -> nn.Module:
    """The large network, half of whose hidden units are left out at random in each step."""
    inside = [each for size in (784, 256) for each in (nn.Linear(size, 256), nn.ReLU(), nn.Dropout(0.5))]
    return nn.Sequential(nn.Flatten(), *inside, nn.Linear(256, 10))


@dataclass
class Way:
    """One way to train; what is left out is as in "too large"."""

    model: Callable[[], nn.Module] = large
    lr: float = 1e-3
    weight_decay: float = 0.0
    more: bool = False  # all other images instead of the few
    fit: dict[str, Any] = field(default_factory=dict)  # further arguments of fit


SHAKEN = augment.compose(augment.flip(), augment.shift(0.1, fill="constant"))
WAYS = {
    "too small": Way(model=small, lr=1e-2),
    "too large": Way(),
    "weight decay": Way(weight_decay=1.0),
    "dropout": Way(model=with_dropout),
    "augmentation": Way(fit={"augment": SHAKEN}),
    "early stopping": Way(fit={"callbacks": [EarlyStopping(patience=10, restore_best_weights=True)]}),
    "more images": Way(more=True),
    "more images and dropout": Way(more=True, model=with_dropout),
}


def main(
    images: int = 300,
    epochs: int = 60,
    ways: Sequence[str] = tuple(WAYS),
    path: str = "overfitting.png",
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Trains each way, prints and draws; returns way -> loss and accuracy, on validation images with "val_"."""
    clothes = data.load("fashion_mini")
    share = images / len(clothes.x_train)
    few, held_out, others = data.train_val_test_split(*clothes.train, (share, 0.2, 0.8 - share), seed=seed)
    runs, found = {}, {}
    for name in ways:
        gn.manual_seed(seed)
        way = WAYS[name]
        model, (x, y) = way.model(), others if way.more else few
        adam = optim.AdamW(model.parameters(), lr=way.lr, weight_decay=way.weight_decay)
        trainer = Trainer(model, adam, "cross_entropy")
        runs[name] = trainer.fit(x, y, epochs, 32, validation_data=held_out, verbose=0, **way.fit)
        judged = {f"val_{measure}": value for measure, value in trainer.evaluate(*held_out).items()}
        found[name] = {**trainer.evaluate(x, y), **judged}
        told = f"training {100 * found[name]['accuracy']:5.1f} %, validation {100 * judged['val_accuracy']:.1f} %"
        print(f"{name:23}  {told}, validation loss {judged['val_loss']:.2f} after {len(runs[name])} epochs")
    plot.curves(runs, path, metrics=("loss",), side_by_side=True, title=f"learning from {len(few[0])} images")
    print(f"{path} written")
    return found


if __name__ == "__main__":
    main()
