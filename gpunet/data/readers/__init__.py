"""Readers of image files: IDX, CSV, npz, folders of images, CIFAR's binary files.

What they share, because data files come from strangers:

- A size in a header is held against the real size of the file before memory is taken for it, and compressed data is
  unpacked piece by piece. A file that lies raises, it does not fill the memory.
- No reader accepts more than ``max_bytes`` (1 GiB) after decompression. Pass a larger ``max_bytes=`` for larger data.
- Too few bytes and too many are both errors. So are a wrong checksum and a label out of range.
- Every error is a ``DataError`` that names the file and the byte offset, or the line and column for CSV. A missing file
  is Python's own FileNotFoundError.
- Nothing is unpickled, evaluated or downloaded.

Images come back as uint8 and labels as int64; grey images are (N, H, W), colour images (N, 3, H, W). ``read_idx`` and
``read_npz`` keep the dtype and shape in the file.
"""

from gpunet.data.readers.bounded import MAX_BYTES
from gpunet.data.readers.cifar import read_cifar_binary
from gpunet.data.readers.csv import read_csv
from gpunet.data.readers.folder import read_image_folder
from gpunet.data.readers.idx import read_idx
from gpunet.data.readers.image import read_image
from gpunet.data.readers.npz import read_npz

__all__ = ["MAX_BYTES", "read_cifar_binary", "read_csv", "read_idx", "read_image", "read_image_folder", "read_npz"]
