"""Checking and preparing what is given to fit, evaluate and predict."""

import operator
from functools import partial
from typing import Any

import numpy as np

from gpunet import devices, functional, nn
from gpunet.data import DataLoader
from gpunet.devices import Device
from gpunet.errors import ArgumentError, DTypeError, ShapeError
from gpunet.tensor import Tensor

Pair = tuple[np.ndarray, np.ndarray]


def whole(op: str, name: str, value: Any, low: int) -> int:
    """``value`` as an integer of at least ``low``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if number < low or isinstance(value, bool):
        raise ArgumentError(f"{op}: {name} must be a whole number of at least {low}, got {value!r}")
    return number


def host(data: Any) -> np.ndarray:
    """A tensor, NumPy or CuPy array, or nested list as a NumPy array."""
    if isinstance(data, Tensor):
        return data.device.to_host(data.data)
    return np.asarray(data.get() if type(data).__module__.partition(".")[0] == "cupy" else data)


def samples(op: str, model: Any, x: Any) -> np.ndarray:
    """``x`` as a NumPy array of floats whose shape the model's first layer can take."""
    x = host(x)
    if x.dtype.kind != "f":
        remedy = "images of bytes: x.astype('float32') / 255" if x.dtype == np.uint8 else "x.astype('float32')"
        raise DTypeError(f"{op}: x must be floating, got {x.dtype}; for {remedy}")
    if x.ndim < 1:
        raise ShapeError(f"{op}: x must have an axis of samples, got a single number")
    layer = first_layer(model)
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        _need_images(op, x, type(layer).__name__, layer.in_channels)
    return x


def first_layer(model: Any) -> Any:
    """The first module with parameters of its own, in order of definition; None when there is none."""
    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            return module
    return None


def _need_images(op: str, x: np.ndarray, layer: str, channels: int) -> None:
    if x.ndim != 4:
        remedy = "; add the axis of channels: x[:, None]" if x.ndim == 3 and channels == 1 else ""
        need = f"x must have 4 axes (N, C, H, W) for a model that begins with {layer}"
        raise ShapeError(f"{op}: {need}, got {x.ndim} in shape {x.shape}{remedy}")
    if x.shape[1] != channels:
        last = x.shape[3] == channels
        remedy = "; the channels stand last: x.transpose(0, 3, 1, 2)" if last else ""
        need = f"x must have the {channels} channels of the model's first {layer} on axis 1"
        raise ShapeError(f"{op}: {need}, got {x.shape[1]} in shape {x.shape}{remedy}")


def pair(op: str, model: Any, x: Any, y: Any) -> Pair:
    """Samples and as many targets, at least one."""
    x, y = samples(op, model, x), host(y)
    need_targets(op, x, y)
    return x, y


def need_targets(op: str, x: np.ndarray, y: np.ndarray) -> None:
    """A number for each sample, and at least one sample."""
    if y.ndim < 1 or len(x) != len(y):
        raise ShapeError(f"{op}: y must have one target for each sample of x, got x {x.shape} and y {y.shape}")
    if not len(x):
        raise ArgumentError(f"{op}: x must hold at least one sample, got shape {x.shape}")
    if y.dtype.kind not in "fiub":
        raise DTypeError(f"{op}: y must be integers or floats, got {y.dtype}")


def first_sample(loader: DataLoader) -> np.ndarray | None:
    """The first sample as the model will see it; None where augmentation cannot take one alone.

    Augmentation draws from a generator of its own here, so that the run's numbers are those without this look.
    """
    x = loader.x[:1]
    if loader.augment is None:
        return x
    try:
        return np.asarray(loader.augment(x.copy(), np.random.Generator(np.random.Philox(0))))
    except Exception:  # anyone's function; the run shows the error at the batch it belongs to
        return None


def tried(op: str, model: Any, sample: Tensor) -> Any:
    """What the model makes of one sample, before any is trained on: a size that does not fit is known by then."""
    try:
        return model(sample)
    except ShapeError as error:
        where = "; ".join(getattr(error, "__notes__", ()))
        need = f"{op}: x must hold samples that the model takes, got some of shape {sample.shape[1:]}"
        raise ShapeError(f"{need}; {error}{where and f' ({where})'}") from error


def need_labels(op: str, loss: Any, output: Any, y: np.ndarray) -> None:
    """Every label is a class of the model's output, where the loss is known to take labels."""
    options = loss.keywords if isinstance(loss, partial) else vars(loss) if isinstance(loss, nn.Module) else {}
    plain = loss.func if isinstance(loss, partial) else loss
    known = plain in (functional.cross_entropy, functional.nll_loss)
    if not (known or isinstance(plain, nn.CrossEntropyLoss | nn.NLLLoss)) or y.dtype.kind == "f" or output.ndim < 2:
        return
    classes, ignored = output.shape[1], options.get("ignore_index", -100)
    wrong = np.argwhere(((y < 0) | (y >= classes)) & (y != ignored))
    if len(wrong):
        need = f"y must be labels from 0 to {classes - 1}, one for each class of the model's output"
        raise ArgumentError(f"{op}: {need}, got {y[tuple(wrong[0])]} at sample {wrong[0][0]}")


def split_off(x: np.ndarray, y: np.ndarray, share: float) -> tuple[Pair, Pair]:
    """The samples without their last ``share``, and those."""
    count = len(x) - int(len(x) * share)
    if not 0 < count < len(x):
        got = f"validation_split={share:g} of {len(x)} samples"
        raise ArgumentError(f"fit: both parts must hold at least one sample, got {got}; use more samples")
    return (x[:count], y[:count]), (x[count:], y[count:])


def place(model: Any) -> tuple[Device, np.dtype[Any]]:
    """Device and dtype of the model's parameters; the default device and float32 when it has none."""
    for parameter in model.parameters():
        return parameter.device, parameter.dtype
    return devices.device(), np.dtype(np.float32)


def to_tensor(array: np.ndarray, device: Device, dtype: np.dtype[Any]) -> Tensor:
    """A batch on the model's device: floats in the model's dtype, labels as int64."""
    return Tensor._wrap(device.asarray(array, dtype if array.dtype.kind == "f" else np.dtype(np.int64)), device)
