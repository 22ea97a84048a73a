"""A trained model out of the checkpoint of a run, and the images it is asked about."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpunet import devices, functional, io, nn
from gpunet.data import read_image
from gpunet.data.readers.image import FORMATS, MAX_PIXELS, need_pillow
from gpunet.errors import ArgumentError, DataError
from gpunet.io.container import need_file
from gpunet.modes import no_grad
from gpunet.train.inputs import to_tensor

COLOURS = {1: "L", 3: "RGB"}  # channels -> mode of the images
MAX_CLASSES = 10_000

#: Model by name -> the layer whose size the image decides, and (OUT, IN) of its weight for (C, H, W) and the classes.
#: A file that holds it is as large as the model, so a record cannot ask for more memory than its file has weights.
DENSE: dict[str, tuple[str, Callable[..., tuple[int, int]]]] = {
    "reference_cnn": ("classifier.1.weight", lambda c, h, w, k: (512, 25 * -(-h // 8) * -(-w // 8))),
    "lenet5": ("7.weight", lambda c, h, w, k: (120, 16 * ((h // 2 - 4) // 2) * ((w // 2 - 4) // 2))),
    "mlp": ("1.weight", lambda c, h, w, k: (128, c * h * w)),
    "softmax_regression": ("1.weight", lambda c, h, w, k: (k, c * h * w)),
}


@dataclass(frozen=True)
class Guess:
    """One class and its probability, from 0 to 1."""

    name: str
    probability: float


class Trained:
    """The model of a checkpoint that ``gpunet train --save`` wrote, ready to be asked.

    Model, classes and size of the images come from the checkpoint's own record. After early stopping its weights are
    the best ones; those of a run that is under way, or was interrupted, are of its last whole epoch.

    Args:
        file: the checkpoint.
        device: where to compute; None is the default device.

    Attributes:
        model: the module, in evaluation mode.
        classes: what each output stands for.
        shape: (C, H, W) of the images it takes.

    Raises:
        DataError: the file is no checkpoint, is damaged, or has no record of its training, or one of another model than
            its weights are. A model is made only once they are known to fit.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, file: Any, device: Any = None) -> None:
        metadata = io.load_metadata(file)
        settings, classes, shape = (metadata.get(name, ()) for name in ("settings", "classes", "shape"))
        if not (isinstance(settings, dict) and _are_names(classes) and _is_shape(shape)):
            holds = ", ".join(map(str, metadata))[:200]
            got = f"one whose record holds {holds}" if metadata else "one without any record"
            raise DataError(f"predict: {str(file)!r} must be a checkpoint of `gpunet train --save`, got {got}")
        name = settings.get("model")
        if not isinstance(name, str) or name not in nn.MODELS:
            need = f"the model must be one of {', '.join(nn.MODELS)}"
            raise DataError(f"predict: {str(file)!r}: {need}, got {str(name)[:80]!r}")
        self.classes, self.shape = tuple(classes), tuple(shape)
        self.name, self.data = name, settings.get("data")
        self.device = devices.device(device)
        _need_weights(file, name, self.shape, len(classes))
        try:
            self.model = nn.MODELS[name](self.shape, len(classes))
        except ArgumentError as error:  # an image too small for it
            raise DataError(f"predict: {str(file)!r}: its record must be of a model that there is: {error}") from None
        io.load(file, self.model)
        self.model.to(self.device).eval()

    def read(self, file: Any, invert: bool = False) -> np.ndarray:
        """The image in a file as the model takes it: float32 (C, H, W), 0 black to 1 white.

        Args:
            file: png, jpg, jpeg, bmp, gif, webp, ppm or pgm, in grey or colour and of any size; or npy, with a
                grey image (H, W) or a colour image (C, H, W) or (H, W, C), as uint8 or as floats from 0 to 1.
            invert: whether black and white change places, for dark drawings on light paper.

        Raises:
            DataError: no image, or one that the model cannot take.
            BackendUnavailableError: Pillow is not installed; npy files of the model's size do without.
            FileNotFoundError: there is no such file.
        """
        channels, height, width = self.shape
        path = Path(file)
        if path.suffix.lower() == ".npy":
            image = _resized(_coloured(path, _read_npy(path), channels), height, width)
        elif path.suffix.lower() in FORMATS:
            pixels = read_image(path, (height, width), COLOURS[channels])  # type: ignore[arg-type] a name out of a table
            image = pixels.reshape(self.shape).astype(np.float32) / 255
        else:
            path.stat()  # a name that is not there is not there, whatever its suffix
            need = f"the suffix must be one of {', '.join(FORMATS)}, .npy"
            raise DataError(f"predict: {str(path)!r}: {need}, got {path.suffix!r}")
        return 1 - image if invert else image

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probability of each class, (N, classes), for images (N, C, H, W) of floats from 0 to 1."""
        with no_grad():
            logits = self.model(to_tensor(images, self.device, np.dtype(np.float32)))
            return self.device.to_host(functional.softmax(logits, 1).data)

    def guesses(self, images: np.ndarray, top: int = 3) -> list[list[Guess]]:
        """For each image the ``top`` likeliest classes, the likeliest first."""
        rows = self.probabilities(images)
        order = np.argsort(-rows, axis=1, kind="stable")[:, :top]
        return [[Guess(self.classes[k], float(row[k])) for k in best] for row, best in zip(rows, order)]


def _need_weights(file: Any, name: str, shape: tuple[int, ...], classes: int) -> None:
    """Refuses a record of another model than the weights are of, by the file's header alone."""
    import safetensors

    layer, size = DENSE[name]
    need = size(*shape, classes)
    try:
        with safetensors.safe_open(file, framework="numpy") as content:
            got = content.get_slice(layer).get_shape()
    except safetensors.SafetensorError as error:  # no such layer
        got = error
    if got != list(need):
        what = f"{name} of images {shape} and {classes} classes, whose {layer} is {need}"
        raise DataError(f"predict: {str(file)!r} must be of this model: {what}, got {got}")


def _are_names(classes: Any) -> bool:
    listed = isinstance(classes, list) and 0 < len(classes) <= MAX_CLASSES
    return listed and all(isinstance(each, str) for each in classes)


def _is_shape(shape: Any) -> bool:
    whole = isinstance(shape, list | tuple) and len(shape) == 3 and all(type(size) is int for size in shape)
    return whole and shape[0] in COLOURS and min(shape) > 0


def _read_npy(path: Path) -> np.ndarray:
    """The array of an npy file: never unpickled, and not larger than the file says it is."""
    need_file("predict", path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # a size beyond the file's end fails to map
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("it is a zip file of several arrays")
        if array.size > 3 * MAX_PIXELS or array.ndim not in (2, 3) or 0 in array.shape:
            raise ValueError(f"its shape is {array.shape}, where (H, W), (C, H, W) or (H, W, C) is needed")
        pixels = np.array(array)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"predict: {str(path)!r} must be an npy file with one image, got: {error}") from None
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255
    if pixels.dtype.kind != "f" or not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is in no range
        got = f"{pixels.dtype}" + (f" from {pixels.min()} to {pixels.max()}" if pixels.dtype.kind in "fiub" else "")
        raise DataError(f"predict: {str(path)!r} must hold uint8, or floats from 0 to 1, got {got}")
    return pixels.astype(np.float32)


def _coloured(path: Path, pixels: np.ndarray, channels: int) -> np.ndarray:
    """(C, H, W) with the model's channels: grey becomes colour by repeating, colour grey by its brightness."""
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.shape[0] not in COLOURS and pixels.shape[2] in COLOURS:
        pixels = pixels.transpose(2, 0, 1)
    if pixels.shape[0] not in COLOURS:
        need = "an image must be (H, W), (C, H, W) or (H, W, C) with 1 or 3 channels"
        raise DataError(f"predict: {str(path)!r}: {need}, got {pixels.shape}")
    if len(pixels) == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=0)
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # of ITU-R 601, as Pillow's
    return np.tensordot(weights, pixels, 1)[None]


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, height, width), bilinear as in :func:`read_image`."""
    if image.shape[1:] == (height, width):
        return np.ascontiguousarray(image)
    pillow = need_pillow("predict")
    planes = [pillow.fromarray(np.ascontiguousarray(plane), "F") for plane in image]
    return np.stack([np.asarray(plane.resize((width, height), resample=2)) for plane in planes]).clip(0, 1)
