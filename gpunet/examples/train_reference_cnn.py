"""The reference CNN on real images of clothes: three convolutional blocks, batch normalisation, dropout.

3,000 + 1,000 images of Fashion-MNIST are part of the package. About half a minute on two cores::

    $ python -m gpunet.examples.train_reference_cnn
    OUTPUT
"""

import gpunet as gn
from gpunet.train import Trainer


def main(epochs: int = 5, images: int | None = None, seed: int = 0, verbose: int = 2) -> float:
    """Trains and prints; returns the accuracy on the test images."""
    gn.manual_seed(seed)
    clothes = gn.data.load("fashion_mini")
    model = gn.nn.ReferenceCNN(num_classes=len(clothes.classes))
    trainer = Trainer(model, gn.optim.Adam(model.parameters(), lr=1e-3), loss="cross_entropy")
    trainer.fit(clothes.x_train[:images], clothes.y_train[:images], epochs=epochs, batch_size=64, verbose=verbose)
    result = trainer.evaluate(*clothes.test, batch_size=64)
    guess = clothes.classes[trainer.predict(clothes.x_test[:1]).argmax()]
    print(f"test: loss {result['loss']:.4f}, {100 * result['accuracy']:.1f} % right")
    print(f"the first test image: {guess}, in truth {clothes.classes[clothes.y_test[0]]}")
    return result["accuracy"]


if __name__ == "__main__":
    main()
