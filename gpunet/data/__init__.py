"""Data sets by name, readers of data files, splitting, and batches.

    x, y = load("fashion_mini").train
    for x, y in DataLoader(load("digits8"), batch_size=32, shuffle=True, seed=0): ...

Everything here is NumPy: images are arrays (N, C, H, W), labels int64 (N,). No file is trusted and nothing is
downloaded; ``gpunet.data.readers`` has the rules.
"""

from gpunet.data import augment
from gpunet.data.loader import DataLoader
from gpunet.data.readers import read_cifar_binary, read_csv, read_idx, read_image, read_image_folder, read_npz
from gpunet.data.sets import Dataset, load
from gpunet.data.split import train_val_test_split

__all__ = [
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
