"""Image folders and CIFAR's binary files."""

import gzip
import itertools
import pickle
import struct
import sys
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gpunet.data import read_cifar_binary, read_image_folder
from gpunet.errors import ArgumentError, BackendUnavailableError
from tests.data_files import peak_bytes, refuse, write, zeros_gz


@pytest.fixture
def pillow():
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra: data)")


def image_folder(pillow, root: Path, suffix: str = ".png") -> np.ndarray:
    """Two classes of two images each, 4 high and 6 wide."""
    pixels = np.random.default_rng(5).integers(0, 256, (4, 4, 6, 3), dtype=np.uint8)
    names = itertools.product(("cat", "dog"), ("a", "b"))
    for (folder, name), image in zip(names, pixels):
        (root / folder).mkdir(parents=True, exist_ok=True)
        pillow.fromarray(image).save(root / folder / (name + suffix))
    return pixels


def test_folder_rgb(tmp_path, pillow):
    pixels = image_folder(pillow, tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.txt").write_text("not a class")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "cat" / ".hidden.png").write_text("not shown")
    x, y, classes = read_image_folder(tmp_path, mode="RGB")
    np.testing.assert_array_equal(x, pixels.transpose(0, 3, 1, 2), strict=True)
    np.testing.assert_array_equal(y, np.array([0, 0, 1, 1]), strict=True)
    assert classes == ("cat", "dog")
    assert x.flags.c_contiguous


def test_folder_grey_and_size(tmp_path, pillow):
    pixels = image_folder(pillow, tmp_path)
    x, _, _ = read_image_folder(str(tmp_path))
    want = pixels @ np.array([0.299, 0.587, 0.114])
    assert x.shape == (4, 4, 6)
    np.testing.assert_allclose(x, want, atol=1)
    assert read_image_folder(tmp_path, size=8)[0].shape == (4, 8, 8)
    assert read_image_folder(tmp_path, size=(3, 5), mode="RGB")[0].shape == (4, 3, 3, 5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_folder_takes_every_mode_of_eight_bits(tmp_path, pillow, mode):
    (tmp_path / "a").mkdir()
    pillow.new(mode, (3, 2)).save(tmp_path / "a" / "x.png")
    assert read_image_folder(tmp_path)[0].shape == (1, 2, 3)
    assert read_image_folder(tmp_path, mode="RGB")[0].shape == (1, 3, 2, 3)


def test_folder_refuses(tmp_path, pillow):
    refuse(lambda: read_image_folder(tmp_path), str(tmp_path.name), "one folder for each class")
    image_folder(pillow, tmp_path)
    (tmp_path / "empty").mkdir()
    refuse(lambda: read_image_folder(tmp_path), "empty", ".png")
    (tmp_path / "empty").rmdir()
    refuse(lambda: read_image_folder(tmp_path, max_bytes=95), "max_bytes=95", "got 96")
    refuse(lambda: read_image_folder(tmp_path, max_pixels=23), "a.png", "byte 0", "6 x 4", "max_pixels=24")
    pillow.new("L", (6, 5)).save(tmp_path / "dog" / "c.png")
    refuse(lambda: read_image_folder(tmp_path), "c.png", "(4, 6)", "(5, 6)", "size=(H, W)")
    pillow.fromarray(np.zeros((4, 6), np.uint16)).save(tmp_path / "dog" / "c.png")
    refuse(lambda: read_image_folder(tmp_path), "c.png", "8 bits")
    with pytest.raises(ArgumentError, match="mode"):
        read_image_folder(tmp_path, mode="F")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="size"):
        read_image_folder(tmp_path, size=0)
    with pytest.raises(FileNotFoundError):
        read_image_folder(tmp_path / "absent")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".ppm"])
def test_folder_refuses_damage(tmp_path, pillow, suffix):
    image_folder(pillow, tmp_path, suffix)
    file = tmp_path / "dog" / f"b{suffix}"
    good = file.read_bytes()
    for data in (b"", b"hello", good[: len(good) // 2]):
        file.write_bytes(data)
        refuse(lambda: read_image_folder(tmp_path), f"b{suffix}", "byte ", "intact")


def test_folder_opens_a_file_only_as_what_it_is_called(tmp_path, pillow):
    (tmp_path / "a").mkdir()
    pillow.new("RGB", (2, 2)).save(tmp_path / "a" / "x.bmp")
    (tmp_path / "a" / "x.bmp").rename(tmp_path / "a" / "x.png")
    refuse(lambda: read_image_folder(tmp_path), "x.png", "intact PNG")


def test_folder_refuses_decompression_bombs(tmp_path, pillow):
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "bomb.png"
    pillow.new("1", (8, 8)).save(file)
    data = bytearray(file.read_bytes())
    for side in (9_000, 12_000, 60_000):  # over our limit, over Pillow's warning, over Pillow's error
        struct.pack_into(">2I", data, 16, side, side)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
        file.write_bytes(data)
        assert peak_bytes(lambda: refuse(lambda: read_image_folder(tmp_path), "bomb.png", "bomb")) < 4 << 20


def test_folder_without_pillow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(BackendUnavailableError, match=r"Pillow.*gpunet\[data\]"):
        read_image_folder(tmp_path)


def cifar_bytes(labels: list[tuple[int, ...]]) -> tuple[bytes, np.ndarray]:
    pixels = np.random.default_rng(6).integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
    return b"".join(bytes(label) + image.tobytes() for label, image in zip(labels, pixels)), pixels


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_cifar10(tmp_path, packed):
    data, pixels = cifar_bytes([(3,), (0,), (9,)])
    file = write(tmp_path, "data_batch_1.bin", gzip.compress(data) if packed else data)
    for paths, times in ((file, 1), (str(file), 1), ([file, file], 2)):
        x, y = read_cifar_binary(paths)
        np.testing.assert_array_equal(x, np.tile(pixels, (times, 1, 1, 1)), strict=True)
        np.testing.assert_array_equal(y, np.array([3, 0, 9] * times), strict=True)
        assert x.flags.c_contiguous


def test_cifar100(tmp_path):
    data, pixels = cifar_bytes([(19, 99), (4, 30)])
    file = write(tmp_path, "train.bin", data)
    np.testing.assert_array_equal(read_cifar_binary(file, classes=100)[0], pixels)
    assert read_cifar_binary(file, classes=100)[1].tolist() == [99, 30]
    assert read_cifar_binary(file, classes=20)[1].tolist() == [19, 4]


def test_cifar_refuses(tmp_path):
    data, _ = cifar_bytes([(3,), (0,), (9,)])
    file = write(tmp_path, "b.bin", data[:-1])
    refuse(lambda: read_cifar_binary(file), "b.bin", "byte 6146", "3073", "truncated")
    refuse(lambda: read_cifar_binary(write(tmp_path, "b.bin", data + b"\0")), "b.bin", "byte 9219")
    refuse(lambda: read_cifar_binary(write(tmp_path, "e.bin", b"")), "e.bin", "byte 0", "empty")
    refuse(lambda: read_cifar_binary(write(tmp_path, "c.bin", data), classes=100), "c.bin", "3074")
    wrong = bytearray(data)
    wrong[3073] = 10
    refuse(lambda: read_cifar_binary(write(tmp_path, "l.bin", bytes(wrong))), "l.bin", "byte 3073", "0 to 9, got 10")
    data, _ = cifar_bytes([(0, 0), (1, 100)])
    fine = write(tmp_path, "f.bin", data)
    refuse(lambda: read_cifar_binary(fine, classes=20), "f.bin", "byte 3075", "fine label", "got 100")
    with pytest.raises(ArgumentError, match="10, 20 or 100"):
        read_cifar_binary(fine, classes=11)
    with pytest.raises(ArgumentError, match="at least one file"):
        read_cifar_binary([])


def test_cifar_refuses_pickle_and_archives_by_name(tmp_path):
    for protocol in (2, 3, 4, 5):
        file = write(tmp_path, "data_batch_1", pickle.dumps({b"data": bytes(9000)}, protocol))
        refuse(partial(read_cifar_binary, file), "data_batch_1", "byte 0", "pickle", "cifar-10-binary")
    archive = bytearray(10240)
    archive[257:262] = b"ustar"
    file = write(tmp_path, "cifar-10-binary.tar.gz", gzip.compress(bytes(archive)))
    refuse(lambda: read_cifar_binary(file), "tar.gz", "byte 0", "unpack")


def test_cifar_limit_holds_for_all_files_together(tmp_path):
    data, _ = cifar_bytes([(1,), (2,)])
    plain, packed = write(tmp_path, "a.bin", data), write(tmp_path, "b.bin.gz", gzip.compress(data))
    for second in (plain, packed):
        assert len(read_cifar_binary([plain, second], max_bytes=2 * len(data))[0]) == 4
        refuse(partial(read_cifar_binary, [plain, second], max_bytes=2 * len(data) - 1), second.name, "max_bytes")
    bomb = write(tmp_path, "bomb.gz", zeros_gz(64))
    assert (
        peak_bytes(lambda: refuse(lambda: read_cifar_binary(bomb, max_bytes=1 << 20), "bomb.gz", "max_bytes")) < 4 << 20
    )
