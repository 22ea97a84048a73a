"""Makes ``digits8.npz`` and ``fashion_mini.npz``, byte for byte the same each time.

    apt-get install dataset-fashion-mnist && pip install scikit-learn
    python -m gpunet.data.embedded.build            # write both files beside this one
    python -m gpunet.data.embedded.build --check    # compare with the files that are there, write nothing

fashion_mini: the first 300 images of each class in the training part of Fashion-MNIST and the first 100 of each class
in its test part, in their own order. The four IDX files come from Debian's package.

digits8: the 1,797 digits that scikit-learn carries, cut 4 to 1 within each class by ``train_val_test_split`` with its
own seed, 0, as mnist5k is. At this size the cut matters: a softmax regression gets 97.2 % in five-fold cross-validation
over all images, and from 95.5 to 98.3 % over the cuts of seeds 0 to 5; that of seed 0 is an easy one.

Both are npz files in Keras' layout (x_train, y_train, x_test, y_test, all uint8). Times in the zip are fixed, and the
shuffle is a pure function of its seed. The packed bytes still depend on the zlib in use: the recorded files are zlib
1.2.13's at level 9, another zlib may pack the same arrays differently. ``--check`` therefore compares arrays, and says
so if only the packing differs.
"""

import argparse
import hashlib
import importlib.util
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from gpunet.data.readers import read_csv, read_idx, read_npz
from gpunet.data.readers.npz import NAMES, Arrays
from gpunet.data.sets import DEBIAN_FASHION, EMBEDDED
from gpunet.data.split import train_val_test_split

EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name


def make_fashion_mini() -> Arrays:
    """300 training and 100 test images of each class."""
    parts = []
    for part, each in (("train", 300), ("t10k", 100)):
        x = read_idx(DEBIAN_FASHION / f"{part}-images-idx3-ubyte.gz")
        y = read_idx(DEBIAN_FASHION / f"{part}-labels-idx1-ubyte.gz")
        chosen = np.sort(np.concatenate([np.flatnonzero(y == label)[:each] for label in range(10)]))
        parts += [x[chosen], y[chosen]]
    return parts[0], parts[1], parts[2], parts[3]


def make_digits8() -> Arrays:
    """All digits, cut 4 to 1 within each class, each part in a shuffled order."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit("build: scikit-learn must be installed; pip install scikit-learn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    x, y = read_csv(file, label="last", header=False, shape=(8, 8))
    train, _, test = train_val_test_split(x, y, (0.8, 0.0, 0.2), seed=0)
    return train[0], train[1].astype(np.uint8), test[0], test[1].astype(np.uint8)


MAKERS = {"digits8.npz": make_digits8, "fashion_mini.npz": make_fashion_mini}


def pack(arrays: Arrays) -> bytes:
    """An npz file of the four arrays that holds nothing but them: no time, no user, no machine."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, array in zip(NAMES, arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=EARLIEST)
            info.create_system = 3  # the field is otherwise set by the system this runs on
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return packed.getvalue()


def check(file: Path, data: bytes, arrays: Arrays) -> str:
    """What differs between the file and a fresh build: "same", "packing differs" or "arrays differ"."""
    if not file.is_file():
        return "missing"
    if file.read_bytes() == data:
        return "same"
    same = all(np.array_equal(have, want) for have, want in zip(read_npz(file), arrays))
    return "packing differs" if same else "arrays differ"


def main(arguments: list[str] | None = None) -> int:
    """Build or check both files; the exit status is 1 if a check found other arrays."""
    parser = argparse.ArgumentParser(prog="python -m gpunet.data.embedded.build", description="embedded data sets")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="folder of the files")
    options = parser.parse_args(arguments)
    failed = False
    for name, make in MAKERS.items():
        arrays = make()
        data = pack(arrays)
        verdict = "written"
        if options.check:
            verdict = check(options.out / name, data, arrays)
            failed |= verdict in ("missing", "arrays differ")
        else:
            (options.out / name).write_bytes(data)
        sys.stdout.write(f"{name}: {verdict}, {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
