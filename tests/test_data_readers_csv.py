"""CSV: both orders come back, and a wrong field is named by line and column."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpunet.data import read_csv
from gpunet.data.readers import csv as csv_module
from gpunet.errors import ArgumentError
from tests.data_files import FUZZ, outcome, peak_bytes, refuse, write, zeros_gz

IMAGES = np.random.default_rng(1).integers(0, 256, (7, 4, 4), dtype=np.uint8)
LABELS = np.array([3, 1, 24, 0, 9, 9, 2])


def csv_bytes(label: str = "first", header: bool = True, end: str = "\n", quote: str = "") -> bytes:
    names = [f"pixel{n}" for n in range(16)]
    rows = [[str(value) for value in image.ravel()] for image in IMAGES]
    lines = []
    for cells, one in zip([names, *rows] if header else rows, ["label", *LABELS] if header else list(LABELS)):
        cells = [str(one), *cells] if label == "first" else [*cells, str(one)]
        lines.append(",".join(quote + cell + quote for cell in cells))
    return (end.join(lines) + end).encode()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("quote", ["", '"'], ids=["bare", "quoted"])
@pytest.mark.parametrize("label", ["first", "last"])
@pytest.mark.parametrize("header", [True, False], ids=["header", "no-header"])
def test_csv_gives_back_what_was_written(tmp_path, label, header, quote, end, packed):
    data = csv_bytes(label, header, end, quote)
    file = write(tmp_path, "t.csv", gzip.compress(data) if packed else data)
    for x, y in [read_csv(file, label=label)] + ([read_csv(file)] if header else []):
        np.testing.assert_array_equal(x, IMAGES, strict=True)
        np.testing.assert_array_equal(y, LABELS.astype(np.int64), strict=True)


@pytest.mark.parametrize(
    "data",
    [
        csv_bytes()[:-1],
        csv_bytes() + b"\n\n \n",
        b"\n" * 3000 + csv_bytes(),
        b"\xef\xbb\xbf" + csv_bytes(),
        csv_bytes().replace(b",", b" , "),
        csv_bytes().replace(b"\n", b"\n\n"),
    ],
    ids=["no last line end", "blank tail", "blank head", "byte order mark", "blanks", "every other line empty"],
)
def test_csv_forgives_what_cannot_be_misread(tmp_path, data):
    x, y = read_csv(write(tmp_path, "t.csv", data))
    np.testing.assert_array_equal(x, IMAGES)
    np.testing.assert_array_equal(y, LABELS)


def test_csv_shapes(tmp_path):
    square = write(tmp_path, "a.csv", b"1,1,2,3,4\n")
    other = write(tmp_path, "b.csv", b"1,1,2,3,4,5,6\n")
    assert read_csv(square, label="first")[0].shape == (1, 2, 2)
    assert read_csv(square, label="first", shape=(4, 1))[0].shape == (1, 4, 1)
    assert read_csv(other, label="first")[0].shape == (1, 6)
    assert read_csv(other, label="first", shape=(3, 1, 2))[0].shape == (1, 3, 1, 2)
    refuse(lambda: read_csv(other, label="first", shape=(2, 2)), "b.csv", "line 1", "got 6", "has 4")


def test_csv_header_of_pandas_column_numbers(tmp_path):
    file = write(tmp_path, "t.csv", b"label,0,1,2,3\n7,1,2,3,4\n")
    assert read_csv(file)[1].tolist() == [7]
    file = write(tmp_path, "u.csv", b"0,1,2,3,Class\n1,2,3,4,7\n")
    assert read_csv(file)[1].tolist() == [7]
    file = write(tmp_path, "v.csv", b"5,6,7,8,9\n1,2,3,4,7\n")
    assert read_csv(file, header=True, label="last")[1].tolist() == [7]


def test_csv_many_blocks(tmp_path, monkeypatch):
    rows = np.random.default_rng(2).integers(0, 256, (3000, 17))
    text = "\n".join(",".join(map(str, row)) for row in rows)
    file = write(tmp_path, "t.csv", text.encode())
    for chunk in (1 << 18, 1000, 70):
        monkeypatch.setattr(csv_module, "CHUNK", chunk)
        x, y = read_csv(file, label="first", header=False)
        np.testing.assert_array_equal(x.reshape(3000, 16), rows[:, 1:])
        np.testing.assert_array_equal(y, rows[:, 0])
    bad = text.replace("\n", "\r\n").split("\r\n")
    bad[2500] += "x"
    file = write(tmp_path, "bad.csv", "\r\n".join(bad).encode())
    refuse(lambda: read_csv(file, label="first", header=False), "bad.csv", "line 2501, column 17", "x'")


BAD_CSV = {
    "empty": (b"", "line 1", "empty"),
    "blank": (b"\n\n", "line 1", "empty"),
    "header alone": (b"label,a,b\n", "line 1", "only a header"),
    "a word": (b"label,a,b\n1,2,3\n4,cat,6\n", "line 3, column 2", "'cat'"),
    "a fraction": (b"label,a,b\n1,2,3.5\n", "line 2, column 3", "'3.5'"),
    "a negative pixel": (b"label,a,b\n1,-2,3\n", "line 2, column 2", "'-2'"),
    "a missing field": (b"label,a,b\n1,,3\n", "line 2, column 2", "''"),
    "a split number": (b"label,a,b\n1,1 2,3\n", "line 2, column 2", "'1 2'"),
    "an endless number": (b"label,a,b\n1," + b"1" * 5000 + b",3\n", "line 2, column 2", "whole number"),
    "a row too short": (b"label,a,b\n1,2,3\n1,2\n", "line 3, column 3", "3 columns", "got 2"),
    "a row too long": (b"label,a,b\n1,2,3\n1,2,3,4\n", "line 3, column 4", "3 columns", "got 4"),
    "rows that even out": (b"label,a,b\n1,2\n3,4,5,6\n", "line 2, column 3", "got 2"),
    "a pixel of 256": (b"label,a,b\n1,2,3\n300,2,256\n", "line 3, column 3", "got 256"),
    "one column": (b"1\n2\n", "line 1", "one column"),
    "binary": (bytes(range(256)) * 10, "line 1", ""),
    "a word where no header may be": (b"1,x,3\n4,5,6\n", "line 1", ""),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("case", BAD_CSV)
def test_csv_refuses(tmp_path, case, packed):
    data, *parts = BAD_CSV[case]
    file = write(tmp_path, "bad.csv", gzip.compress(data) if packed else data)
    refuse(lambda: read_csv(file), "read_csv", "bad.csv", *parts)


def test_csv_without_a_named_label_is_not_guessed(tmp_path):
    file = write(tmp_path, "t.csv", b"1,2,3\n")
    refuse(lambda: read_csv(file), "t.csv", "line 1", "label='first'", "label='last'")
    file = write(tmp_path, "u.csv", b"a,b,c\n1,2,3\n")
    refuse(lambda: read_csv(file), "u.csv", "line 1", "label='last'")
    # The wrong choice shows: a label's column read as a pixel, or a pixel's as a label.
    file = write(tmp_path, "v.csv", b"300,2,3\n")
    refuse(lambda: read_csv(file, label="last"), "v.csv", "line 1, column 1", "is label= right?")
    file = write(tmp_path, "w.csv", b"1,x,3\n1,2,3\n")
    refuse(lambda: read_csv(file, label="first"), "w.csv", "line 1, column 2", "'x'")


def test_csv_arguments(tmp_path):
    file = write(tmp_path, "t.csv", b"1,2,3\n")
    with pytest.raises(ArgumentError, match="label must be"):
        read_csv(file, label="middle")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="header must be"):
        read_csv(file, header="no")  # type: ignore[arg-type]


def test_csv_bombs_cost_little_memory(tmp_path):
    endless = write(tmp_path, "endless.csv.gz", zeros_gz(64))
    assert peak_bytes(lambda: refuse(lambda: read_csv(endless), "endless", "line 1", "a longer one")) < 16 << 20
    rows = write(tmp_path, "rows.csv.gz", gzip.compress(b"0,0,0,0,0\n" * 1_000_000, 1))
    call = lambda: read_csv(rows, label="first", header=False, max_bytes=1 << 20)  # noqa: E731
    assert peak_bytes(lambda: refuse(call, "rows.csv.gz", "byte 1310720", "max_bytes=1048576")) < 32 << 20


def test_csv_damaged_gzip(tmp_path):
    file = write(tmp_path, "cut.csv.gz", gzip.compress(csv_bytes())[:-6])
    refuse(lambda: read_csv(file), "cut.csv.gz", "byte ", "truncated")


@FUZZ
@given(
    rows=st.lists(st.lists(st.integers(0, 300), min_size=5, max_size=5), min_size=1, max_size=6),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(b'0123456789,,,\n\n\r "x-.\0')), max_size=3),
)
def test_csv_fast_way_agrees_with_the_definition(tmp_path, monkeypatch, rows, edits):
    text = bytearray("\n".join(",".join(map(str, row)) for row in rows), "ascii")
    for where, letter in edits:
        text[where % len(text)] = letter
    file = write(tmp_path, "fuzz.csv", bytes(text))

    def read():
        return [array.tolist() for array in read_csv(file, label="first", header=False)]

    fast = outcome(read)
    with monkeypatch.context() as patch:
        patch.setattr(csv_module, "_parse_clean", lambda block, columns: None)
        assert fast == outcome(read)
    assert fast[0] or ("fuzz.csv" in fast[1] and "line " in fast[1])
