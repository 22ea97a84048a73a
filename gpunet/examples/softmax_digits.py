"""Softmax regression on real handwritten digits: one linear layer, trained and judged with the Trainer.

The 8x8 digits are part of the package::

    $ python -m gpunet.examples.softmax_digits
    OUTPUT
"""

import gpunet as gn
from gpunet.train import Trainer


def main(epochs: int = 20, seed: int = 0) -> float:
    """Trains and prints; returns the accuracy on the test images."""
    gn.manual_seed(seed)
    digits = gn.data.load("digits8")
    model = gn.nn.SoftmaxRegression(64, 10)
    adam = gn.optim.Adam(model.parameters(), lr=0.01)
    trainer = Trainer(model, adam, loss="cross_entropy", metrics=("accuracy",))
    history = trainer.fit(*digits.train, epochs=epochs, batch_size=32, validation_split=0.1, verbose=0)
    for epoch in range(0, epochs, max(1, epochs // 4)):
        values = {name: round(each[epoch], 4) for name, each in history.history.items()}
        print(f"epoch {epoch + 1:2}  {values}")
    result = trainer.evaluate(*digits.test)
    wrong = (trainer.predict(digits.x_test).argmax(1) != digits.y_test).sum()
    print(f"test: loss {result['loss']:.4f}, {100 * result['accuracy']:.1f} % right, {wrong} wrong")
    return result["accuracy"]


if __name__ == "__main__":
    main()
