"""Logistic regression on real handwritten digits: is it an 8 or a 3? One linear layer with one output.

The output is a logit, the logarithm of the odds for an 8; the sigmoid of it is the probability. The 8x8 digits are part
of the package. The picture shows the 64 weights where their pixels lie: blue ones speak for an 8, red ones for a 3::

    $ python -m gpunet.examples.logistic_regression
    epoch  1  {'loss': 0.5211, 'accuracy': 0.786}
    epoch 11  {'loss': 0.1015, 'accuracy': 0.986}
    epoch 21  {'loss': 0.0697, 'accuracy': 0.993}
    test: loss 0.0553, 100.0 % of 72 right
    the most doubtful one: an 8 with probability 0.65
    logistic_regression.png written
"""

import numpy as np

import gpunet as gn
from gpunet import data, nn, optim, plot
from gpunet.train import Trainer

NO, YES = 3, 8


def main(epochs: int = 30, path: str = "logistic_regression.png", seed: int = 0) -> float:
    """Trains, prints and draws; returns the accuracy on the test images."""
    gn.manual_seed(seed)
    digits = data.load("digits8")
    (x, y), (x_test, y_test) = two_classes(*digits.train), two_classes(*digits.test)
    model = nn.LogisticRegression(64)
    sgd = optim.SGD(model.parameters(), lr=0.5)
    trainer = Trainer(model, sgd, loss="binary_cross_entropy_with_logits", metrics=(accuracy,))
    history = trainer.fit(x, y, epochs=epochs, batch_size=32, verbose=0)
    for epoch in range(0, epochs, max(1, epochs // 3)):
        values = {name: round(each[epoch], 4) for name, each in history.history.items()}
        print(f"epoch {epoch + 1:2}  {values}")
    result = trainer.evaluate(x_test, y_test)
    chance = 1 / (1 + np.exp(-trainer.predict(x_test)))  # the sigmoid of the logits
    doubtful = np.abs(chance - 0.5).argmin()
    print(f"test: loss {result['loss']:.4f}, {100 * result['accuracy']:.1f} % of {len(x_test)} right")
    print(f"the most doubtful one: an {YES} with probability {chance[doubtful, 0]:.2f}")
    heading = f"blue pixels speak for an {YES}, red ones for a {NO}"
    plot.filters(model[1].weight.reshape(1, 1, 8, 8), path, title=heading)
    print(f"{path} written")
    return result["accuracy"]


def two_classes(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images of both digits, and 1.0 for an 8, 0.0 for a 3, shaped (N, 1) as the model's output is."""
    mine = (y == NO) | (y == YES)
    return x[mine], (y[mine] == YES).astype(np.float32)[:, None]


def accuracy(output: gn.Tensor, target: gn.Tensor) -> float:
    """Share of the logits on the right side of 0, where the probability is one half."""
    return ((output.data > 0) == (target.data > 0.5)).mean()


if __name__ == "__main__":
    main()
