"""IDX and gzip: what was written comes back, and nothing else gets in."""

import gzip
import math
import os
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpunet.data import read_idx, read_npz
from gpunet.data.readers.bounded import MAX_BYTES, MAX_INFLATION
from tests.data_files import FUZZ, outcome, peak_bytes, refuse, write, zeros_gz

CODES = {8: "u1", 9: "i1", 11: "i2", 12: "i4", 13: "f4", 14: "f8"}


def idx_bytes(array: np.ndarray, code: int) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(">" + CODES[code]).tobytes()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 2, 4), (2, 2, 3, 2), (1, 2, 1, 3, 2), (0, 28, 28)], ids=str)
@pytest.mark.parametrize("code", CODES)
def test_idx_gives_back_what_was_written(tmp_path, code, shape, packed):
    values = np.random.default_rng(code).integers(-100, 100, shape)
    array = (values / 3 if code > 12 else values).astype(CODES[code])
    data = idx_bytes(array, code)
    got = read_idx(write(tmp_path, "a-idx-ubyte", gzip.compress(data) if packed else data))
    assert got.dtype == array.dtype
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    assert got.flags.writeable
    np.testing.assert_array_equal(got, array, strict=True)


def test_idx_takes_a_string_and_needs_no_suffix(tmp_path):
    file = write(tmp_path, "x.bin", gzip.compress(idx_bytes(np.arange(4), 8)))
    assert read_idx(str(file)).tolist() == [0, 1, 2, 3]


IDX = idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3), 8)
BAD_IDX = {
    "empty": (b"", "byte 0", "magic"),
    "half a magic number": (b"\0\0\x08", "byte 3", "truncated"),
    "text": (b"label,pixel0", "byte 0", "not an IDX file"),
    "unknown dtype": (b"\0\0\x0a\x01\0\0\0\x01\0", "byte 2", "got 10"),
    "no axes": (b"\0\0\x08\x00", "byte 3", "got 0"),
    "too many axes": (b"\0\0\x08\xff" + bytes(2000), "byte 3", "got 255"),
    "half the sizes": (IDX[:9], "byte 9", "truncated"),
    "one item short": (IDX[:-1], "byte 4", "must be 6 bytes", "got 5 bytes"),
    "one item over": (IDX + b"\0", "byte 18", "trailing"),
    "2**31 x 2**31 items": (b"\0\0\x08\x02" + struct.pack(">2I", 1 << 31, 1 << 31), "byte 4", "hostile"),
    "2**32 - 1 items": (b"\0\0\x0e\x01" + struct.pack(">I", 2**32 - 1), "byte 4", "hostile"),
    "no items of an endless size": (b"\0\0\x08\x04" + struct.pack(">4I", 0, *[2**32 - 1] * 3), "byte 4", "max_bytes"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("case", BAD_IDX)
def test_idx_refuses(tmp_path, case, packed):
    data, *parts = BAD_IDX[case]
    if packed and case == "one item short":
        parts = ["byte 17", "must be 6 bytes", "got 5"]
    file = write(tmp_path, "bad-idx", gzip.compress(data) if packed else data)
    message = refuse(lambda: read_idx(file), "read_idx", "bad-idx", *parts)
    assert ("of the decompressed data" in message) == packed


def test_idx_limit_can_be_raised(tmp_path):
    file = write(tmp_path, "big", idx_bytes(np.zeros(1000), 8))
    refuse(lambda: read_idx(file, max_bytes=999), "'" + str(file) + "'", "byte 4", "max_bytes=999", "max_bytes=1000")
    assert len(read_idx(file, max_bytes=1000)) == 1000


def test_damaged_gzip_is_refused(tmp_path):
    good = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 255, 4000), 8))
    refuse(lambda: read_idx(write(tmp_path, "cut.gz", good[:-9])), "cut.gz", "byte ", "truncated")
    refuse(lambda: read_idx(write(tmp_path, "half.gz", good[: len(good) // 2])), "half.gz", "byte ", "truncated")
    wrong_sum = good[:-8] + bytes([good[-8] ^ 1]) + good[-7:]
    refuse(lambda: read_idx(write(tmp_path, "crc.gz", wrong_sum)), "crc.gz", "byte 4008", "intact")
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    refuse(lambda: read_idx(write(tmp_path, "bit.gz", bytes(flipped))), "bit.gz", "byte ")
    refuse(lambda: read_idx(write(tmp_path, "tail.gz", good + b"junk")), "tail.gz", "byte 4008")


def test_hostile_sizes_cost_no_memory(tmp_path):
    head = b"\0\0\x0e\x02" + struct.pack(">2I", 1 << 31, 1 << 31)
    plain = write(tmp_path, "plain", head)
    packed = write(tmp_path, "packed.gz", gzip.compress(head))
    assert peak_bytes(lambda: refuse(lambda: read_idx(plain))) < 1 << 20
    assert peak_bytes(lambda: refuse(lambda: read_idx(packed))) < 1 << 20
    # Even if the caller allows everything.
    assert peak_bytes(lambda: refuse(lambda: read_idx(packed, max_bytes=1 << 80))) < 1 << 20


def test_gzip_bomb_is_left_after_one_byte_too_many(tmp_path):
    bomb = write(tmp_path, "bomb.gz", zeros_gz(64, b"\0\0\x08\x01" + struct.pack(">I", 100)))
    assert peak_bytes(lambda: refuse(lambda: read_idx(bomb), "bomb.gz", "byte 108", "trailing")) < 2 << 20


def test_memory_grows_with_the_data_and_not_with_the_claim(tmp_path):
    # 16 MB are claimed and would be possible for a gzip file of this size, but 4 MB come.
    file = write(tmp_path, "short.gz", zeros_gz(4, b"\0\0\x08\x01" + struct.pack(">I", 16 << 20)))
    padded = write(tmp_path, "padded.gz", file.read_bytes() + bytes(16384))
    assert padded.stat().st_size * MAX_INFLATION > 16 << 20
    assert peak_bytes(lambda: refuse(lambda: read_idx(padded), "truncated")) < 12 << 20


def test_only_regular_files(tmp_path):
    refuse(lambda: read_idx(tmp_path), "regular file")
    refuse(lambda: read_npz(tmp_path), "regular file")
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "absent")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refuse(lambda: read_idx(tmp_path / "pipe"), "pipe", "regular file")


def parse_idx(data: bytes) -> np.ndarray | None:
    """A second reading of the format, element by element, None where it is broken."""
    if len(data) < 4 or data[0] or data[1] or data[2] not in CODES or not 1 <= data[3] <= 32:
        return None
    start = 4 + 4 * data[3]
    if len(data) < start:
        return None
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    count, extent = math.prod(shape), math.prod(size for size in shape if size)
    letter = {"u1": "B", "i1": "b", "i2": "h", "i4": "i", "f4": "f", "f8": "d"}[CODES[data[2]]]
    width = struct.calcsize(letter)
    if len(data) - start != count * width or extent * width > MAX_BYTES:
        return None
    return np.array(struct.unpack(f">{count}{letter}", data[start:]), CODES[data[2]]).reshape(shape)


@FUZZ
@given(
    code=st.sampled_from(sorted(CODES)),
    shape=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    edit=st.sampled_from(["change", "insert", "delete", "none"]),
    where=st.integers(0, 2**16),
    value=st.integers(0, 255),
    packed=st.booleans(),
)
@example(code=8, shape=[3], edit="change", where=2, value=9, packed=False)
def test_idx_with_any_byte_edited_is_right_or_refused(tmp_path, code, shape, edit, where, value, packed):
    data = bytearray(idx_bytes(np.arange(np.prod(shape)).reshape(shape), code))
    where %= len(data)
    if edit == "change":
        data[where] = value
    elif edit == "insert":
        data.insert(where, value)
    elif edit == "delete":
        del data[where]
    file = write(tmp_path, "fuzz", gzip.compress(bytes(data)) if packed else bytes(data))
    want = parse_idx(bytes(data))
    if want is None:
        refuse(lambda: read_idx(file), "fuzz", "byte ")
    else:
        np.testing.assert_array_equal(read_idx(file), want, strict=True)


@FUZZ
@given(where=st.integers(0, 2**16), value=st.integers(0, 255))
def test_gzip_with_any_byte_changed_is_right_or_refused(tmp_path, where, value):
    array = np.arange(60, dtype=np.uint8).reshape(5, 12)
    data = bytearray(gzip.compress(idx_bytes(array, 8), mtime=0))
    data[where % len(data)] = value
    file = write(tmp_path, "fuzz.gz", bytes(data))
    got, message = outcome(lambda: read_idx(file))
    if message:
        assert "fuzz.gz" in message
        assert "byte " in message
    else:
        np.testing.assert_array_equal(got, array, strict=True)
