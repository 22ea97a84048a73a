"""npz: arrays come back, claims are checked before memory is taken, nothing is unpickled."""

import io
import struct
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gpunet.data import read_npz
from tests.data_files import outcome, peak_bytes, refuse, write


def keras(**changed) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    arrays = {
        "x_train": rng.integers(0, 256, (6, 3, 4), dtype=np.uint8),
        "y_train": np.arange(6, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (2, 3, 4), dtype=np.uint8),
        "y_test": np.array([1, 0], np.uint8),
    }
    return arrays | changed


def npz_file(folder: Path, name: str = "t.npz", compressed: bool = True, **changed) -> Path:
    arrays = {key: value for key, value in keras(**changed).items() if value is not None}
    save = np.savez_compressed if compressed else np.savez
    save(folder / name, **arrays)  # type: ignore[arg-type]
    return folder / name


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
def test_npz_gives_back_what_was_written(tmp_path, compressed):
    want = keras()
    got = read_npz(npz_file(tmp_path, compressed=compressed, left_unread=np.array([{}], object)))
    for name, array in zip(("x_train", "y_train", "x_test", "y_test"), got):
        np.testing.assert_array_equal(array, want[name])
        assert array.dtype == (np.uint8 if name.startswith("x") else np.int64)


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", "<i4", ">u8", "f2", ">f4", "f8", "?"])
def test_npz_dtypes_and_orders(tmp_path, dtype):
    x = np.asfortranarray(np.arange(24).reshape(2, 3, 4).astype(dtype))
    got = read_npz(npz_file(tmp_path, x_train=x, y_train=np.array([[1], [2]], ">i4")))
    np.testing.assert_array_equal(got[0], x)
    assert got[0].dtype.isnative
    assert got[0].flags.c_contiguous
    assert got[1].tolist() == [1, 2]


def member(data: bytes) -> dict[str, bytes]:
    """A zip's entries, x_train replaced."""
    entries = {}
    for name, array in keras().items():
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array)
        entries[f"{name}.npy"] = stream.getvalue()
    return entries | {"x_train.npy": data}


def zip_file(
    folder: Path, entries: dict[str, bytes], name: str = "bad.npz", method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(folder / name, "w", method) as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)
    return folder / name


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def plain_header(descr: str = "|u1", shape: str = "(2, 2)") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


BAD_MEMBERS = {
    "empty": (b"", "byte 0", "npy array"),
    "not npy": (b"hello, this is text", "byte 0", "npy array"),
    "version 2": (npy(plain_header(), bytes(4), b"\x02\x00"), "byte 0", "version 1.0"),
    "objects": (npy(plain_header("|O"), bytes(16)), "byte 10", "Python objects"),
    "text": (npy(plain_header("<U3"), bytes(48)), "byte 10", "integers or floats"),
    "a structure": (
        npy("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }", bytes(4)),
        "byte 10",
        "[('a'",
    ),
    "code in the header": (npy("__import__('os').system('true')"), "byte 10", "integers or floats"),
    "a deep header": (npy("(" * 60000), "byte 10", "integers or floats"),
    "a cut header": (npy(plain_header())[:30], "byte 10", "integers or floats"),
    "a huge shape": (
        npy(plain_header(shape="(2147483648, 2147483648)"), bytes(4)),
        "byte 88",
        "4611686018427387904 bytes",
    ),
    "a shape of endless digits": (npy(plain_header(shape=f"({'9' * 5000},)"), bytes(4)), "byte 10", "sizes"),
    "a negative size": (npy(plain_header(shape="(-1, 4)"), bytes(4)), "byte 10", "integers or floats"),
    "no items of an endless size": (
        npy(plain_header(shape="(0, 999999999999, 999999999999)")),
        "byte ",
        "needs 0 bytes",
    ),
    "too short": (npy(plain_header(), bytes(3)), "byte 7", "needs 4 bytes, got 3"),
    "too long": (npy(plain_header(), bytes(5)), "byte 7", "needs 4 bytes, got 5"),
}


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_npz_refuses_an_array(tmp_path, case):
    data, *parts = BAD_MEMBERS[case]
    file = zip_file(tmp_path, member(data))
    assert peak_bytes(lambda: refuse(lambda: read_npz(file), "read_npz", "bad.npz", "x_train", *parts)) < 2 << 20


def test_npz_never_unpickles(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    file = npz_file(tmp_path, y_test=np.array([Trap(), Trap()], object))
    refuse(lambda: read_npz(file), "t.npz", "y_test", "byte 10", "Python objects")


def test_npz_refuses_a_file(tmp_path):
    refuse(lambda: read_npz(write(tmp_path, "a.npz", b"")), "a.npz", "byte 0", "zip file")
    refuse(lambda: read_npz(write(tmp_path, "b.npz", b"PK\3\4" + bytes(100))), "b.npz", "byte 0", "zip file")
    good = npz_file(tmp_path).read_bytes()
    refuse(lambda: read_npz(write(tmp_path, "c.npz", good[:-30])), "c.npz", "byte 0", "zip file")
    refuse(lambda: read_npz(npz_file(tmp_path, "d.npz", y_test=None)), "d.npz", "y_test", "must be in the file once")
    lzma = zip_file(tmp_path, member(b"x"), "e.npz", zipfile.ZIP_LZMA)
    refuse(lambda: read_npz(lzma), "e.npz", "x_train", "byte 0", "stored or deflated")
    refuse(lambda: read_npz(npz_file(tmp_path, "f.npz"), max_bytes=500), "f.npz", "max_bytes=500", "pass max_bytes=")


@pytest.mark.parametrize(
    ("part", "y"),
    [("train", np.arange(5)), ("test", np.arange(3)), ("train", np.zeros((6, 2), int)), ("test", np.array([0.5, 1]))],
    ids=["one short", "one over", "two each", "fractions"],
)
def test_npz_refuses_wrong_labels(tmp_path, part, y):
    file = npz_file(tmp_path, **{f"y_{part}": y})
    refuse(lambda: read_npz(file), "t.npz", f"y_{part}", "byte 0", "one for each image")


def lie(file: Path, entry: str, **fields: int) -> Path:
    """Change what the zip directory (and the local header) says of an entry."""
    data = bytearray(file.read_bytes())
    places = {b"PK\x01\x02": (46, {"packed": 20, "size": 24}), b"PK\x03\x04": (30, {"packed": 18, "size": 22})}
    for mark, (length, at) in places.items():
        name = data.find(entry.encode())
        while name != -1:
            start = name - length
            if data[start : start + 4] == mark:
                for field, value in fields.items():
                    struct.pack_into("<I", data, start + at[field], value)
            name = data.find(entry.encode(), name + 1)
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize(
    "fields",
    [
        {"size": 4_000_000_000},
        {"size": 4_000_000_000, "packed": 4_000_000_000},
        {"size": 201},
        {"size": 199},
        {"size": 0},
        {"packed": 10},
    ],
    ids=str,
)
def test_npz_refuses_an_entry_that_lies_about_its_size(tmp_path, compressed, fields):
    file = lie(npz_file(tmp_path, "lie.npz", compressed), "x_train.npy", **fields)
    call = lambda: read_npz(file, max_bytes=1 << 40)  # noqa: E731
    assert peak_bytes(lambda: refuse(call, "lie.npz", "x_train", "byte ")) < 2 << 20


def test_npz_with_a_lying_directory_size(tmp_path):
    data = bytearray(npz_file(tmp_path).read_bytes())
    end = data.rfind(b"PK\x05\x06")
    struct.pack_into("<I", data, end + 12, 0xFFFFFFF0)
    assert peak_bytes(lambda: refuse(lambda: read_npz(write(tmp_path, "dir.npz", bytes(data))), "dir.npz")) < 2 << 20


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
def test_npz_with_any_byte_changed_is_right_or_refused(tmp_path, compressed):
    good = npz_file(tmp_path, compressed=compressed).read_bytes()
    want = list(keras().values())
    rng = np.random.default_rng(4)
    for where in rng.choice(len(good), 300, replace=False):
        data = bytearray(good)
        data[where] ^= int(rng.integers(1, 256))
        got, message = outcome(partial(read_npz, write(tmp_path, "fuzz.npz", bytes(data))))
        if message:
            assert "fuzz.npz" in message
            assert "byte " in message
        else:
            for a, b in zip(got, want):
                np.testing.assert_array_equal(a, b)
