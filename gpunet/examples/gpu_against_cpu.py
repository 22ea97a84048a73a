"""One network, trained from the same weights on the same batches by the processor and by a GPU.

What must agree: the losses, to rounding. What must not: the time. Without a GPU the two ways of the processor are held
against each other instead, NumPy and kernels compiled by Numba, and it is said what could not be measured. On two
cores::

    $ python -m gpunet.examples.gpu_against_cpu
    a GPU could not be measured: device: 'cuda:0' cannot be used here: CuPy is not installed; pip
    install "gpunet[cuda13]" (driver 580 or newer) or "gpunet[cuda12]" (driver 525 or newer)
    cpu, numpy          388 images/s, loss 0.7156, 53.5 % of 200 test images right
    cpu, numba_cpu    1,659 images/s, loss 0.7161, 54.0 % of 200 test images right
    cpu, numba_cpu is 4.27 times as fast as cpu, numpy
    losses of the first 5 steps differ by 2e-07 of themselves at most
    gpu_against_cpu.png written

``gpunet compare`` does this thoroughly, kernel by kernel.
"""

import textwrap
from contextlib import nullcontext

import numpy as np

import gpunet as gn
from gpunet import data, nn, optim, plot
from gpunet.errors import DeviceError
from gpunet.train import Trainer

BATCH = 50
COMPARED = 5  # steps whose losses must agree; later, rounding has grown


def main(
    images: int = 500, tested: int = 200, epochs: int = 2, path: str = "gpu_against_cpu.png", seed: int = 0
) -> dict[str, float]:
    """Trains on each, prints and draws; returns lane -> images a second."""
    lanes: dict[str, tuple[str, str | None]] = {"cpu": ("cpu", None), "cuda": ("cuda", None)}
    try:
        gn.device("cuda")
    except DeviceError as error:
        print(textwrap.fill(f"a GPU could not be measured: {error}", 100))
        lanes = {"cpu, numpy": ("cpu", "numpy"), "cpu, numba_cpu": ("cpu", "numba_cpu")}
    clothes, runs, speed = data.load("fashion_mini"), {}, {}
    x, y = clothes.x_train[:images], clothes.y_train[:images]
    for lane, (device, backend) in lanes.items():
        with nullcontext() if backend is None else gn.use_backend(backend):
            train(device, x[:BATCH], y[:BATCH], 1, seed)  # the first use of a kernel compiles it, and is not counted
            trainer = train(device, x, y, epochs, seed)
            accuracy = trainer.evaluate(clothes.x_test[:tested], clothes.y_test[:tested])["accuracy"]
        runs[lane] = trainer.history
        speed[lane] = len(x) * epochs / sum(runs[lane].seconds)
        told = f"loss {runs[lane].last['loss']:.4f}, {100 * accuracy:.1f} % of {tested} test images right"
        print(f"{lane:14}  {speed[lane]:7,.0f} images/s, {told}")
    first, second = runs
    a, b = (np.array(run.batch_losses[:COMPARED]) for run in runs.values())
    print(f"{second} is {speed[second] / speed[first]:.2f} times as fast as {first}")
    print(f"losses of the first {len(a)} steps differ by {(abs(a - b) / abs(a)).max():.0e} of themselves at most")
    plot.curves(runs, path, title=f"the same training twice: {speed[first]:,.0f} and {speed[second]:,.0f} images/s")
    print(f"{path} written")
    return speed


def train(device: str, x: np.ndarray, y: np.ndarray, epochs: int, seed: int) -> Trainer:
    """The reference CNN after training; the seed's weights are the same on every device."""
    gn.manual_seed(seed)
    model = nn.ReferenceCNN(num_classes=10).to(device)
    trainer = Trainer(model, optim.Adam(model.parameters(), lr=1e-3), "cross_entropy")
    trainer.fit(x, y, epochs, BATCH, verbose=0)
    return trainer


if __name__ == "__main__":
    main()
