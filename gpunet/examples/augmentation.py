"""One image changed in 16 ways, as a model in training would see it, and a picture of them.

The image is the first of 3,000 from Fashion-MNIST that are part of the package. A batch's randomness depends on seed,
pass and batch alone, so two loaders agree, whatever the number of threads that make their batches. Two busy cores
gave::

    $ python -m gpunet.examples.augmentation
    Ankle boot: 9 steps, the first 5 of them one resampling: 5 passes
    mean change of a pixel: 0.14 to 0.39
    batches of 1 thread and of 3 threads are the same: True
    speed: 4,747 images/s
    augmentation.png written
"""

import time

import numpy as np

from gpunet import data
from gpunet.data import augment


def main(path: str = "augmentation.png", seed: int = 0) -> np.ndarray:
    """Writes the picture to ``path`` and prints; returns the 16 images (16, 1, 28, 28)."""
    clothes = data.load("fashion_mini")
    image, name = clothes.x_train[0], clothes.classes[clothes.y_train[0]]
    steps = augment.compose(
        augment.flip(),
        augment.shift(0.1, fill="constant"),
        augment.rotate(15, fill="constant"),
        augment.zoom(0.15, fill="constant"),
        augment.shear(10, fill="constant"),
        augment.brightness(0.2),
        augment.contrast(0.2),
        augment.noise(0.03),
        augment.clip(0, 1),
    )
    print(f"{name}: {len(steps.steps)} steps, the first 5 of them one resampling: {len(steps.passes)} passes")
    images = augment.preview(image, steps, count=16, seed=seed)
    change = np.abs(images - image).mean((1, 2, 3))
    print(f"mean change of a pixel: {change.min():.2f} to {change.max():.2f}")

    one, three = (data.DataLoader(clothes, 64, augment=steps, seed=seed, workers=count) for count in (1, 3))
    same = all(np.array_equal(a, b) for (a, _), (b, _) in zip(one, three))
    print(f"batches of 1 thread and of 3 threads are the same: {same}")
    start = time.perf_counter()
    seen = sum(len(y) for _, y in one)
    print(f"speed: {seen / (time.perf_counter() - start):,.0f} images/s")

    draw(image, images, path)
    print(f"{path} written")
    return images


def draw(image: np.ndarray, images: np.ndarray, path: str) -> None:
    """The image on the left and its 16 changed copies on the right, as a PNG file."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        need = "matplotlib must be installed for the picture"
        raise SystemExit(f"augmentation: {need}, got {error}; pip install matplotlib") from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    grid = figure.add_gridspec(4, 6)
    places = [grid[1:3, 0:2], *(grid[row, 2 + column] for row in range(4) for column in range(4))]
    for place, each in zip(places, [image, *images]):
        axes = figure.add_subplot(place)
        axes.imshow(each.transpose(1, 2, 0).clip(0, 1), cmap="gray_r", vmin=0, vmax=1)
        axes.set_axis_off()
    figure.suptitle("one image (left) and 16 ways to see it")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
