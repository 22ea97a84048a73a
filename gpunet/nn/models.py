"""Ready models, small enough to read: the reference CNN, LeNet-5, a multi-layer perceptron, and three regressions."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.nn.activations import ReLU
from gpunet.nn.containers import Sequential
from gpunet.nn.conv import Conv2d
from gpunet.nn.dropout import Dropout
from gpunet.nn.linear import Flatten, Linear
from gpunet.nn.module import Module
from gpunet.nn.norm import BatchNorm2d
from gpunet.nn.pooling import AvgPool2d, MaxPool2d
from gpunet.ops.checks import pair, whole


class ReferenceCNN(Sequential):
    """The model that devices and backends are compared on: three convolutional blocks, then two dense layers.

    A block is a 3x3 convolution that keeps the size, ReLU, batch normalisation and 2x2 max pooling; the second drops
    a fifth of its values, between ReLU and normalisation. With the usual arguments there are 256,567 parameters.

    Args:
        num_classes: number of logits.
        in_channels: C of the images.
        image_size: height and width in pixels, an integer or a pair.

    Returns:
        Logits (N, num_classes) for images (N, in_channels, H, W); no softmax: the loss has it.

    Raises:
        ArgumentError: a size below 1.
        ShapeError: in forward, images of another size.

    Example:
        >>> import gpunet as gn
        >>> model = gn.nn.ReferenceCNN()
        >>> sum(p.numel() for p in model.parameters()), model.eval()(gn.zeros(1, 1, 28, 28)).shape
        (256567, (1, 10))
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: Any = 28):
        op = "ReferenceCNN"
        whole(op, "num_classes", num_classes)
        H, W = pair(op, "image_size", image_size, 1)
        for _ in range(3):
            H, W = -(-H // 2), -(-W // 2)  # rounded up: 28, 14, 7, 4
        features = Sequential(
            *_block(in_channels, 75),
            *_block(75, 50, drop=0.2),
            *_block(50, 25),
        )
        classifier = Sequential(Flatten(), Linear(25 * H * W, 512), ReLU(), Dropout(0.3), Linear(512, num_classes))
        super().__init__({"features": features, "classifier": classifier})


def _block(channels: int, filters: int, drop: float = 0.0) -> list[Module]:
    # Keras' pooling with padding "same" pads with minus infinity up to ceil(H / 2) windows, at the bottom and on the
    # right first. For a 2x2 window with stride 2 that is one row or column where the size is odd: ceil_mode.
    pool = MaxPool2d(2, stride=2, ceil_mode=True)
    dropout = [Dropout(drop)] if drop else []
    return [Conv2d(channels, filters, 3, padding="same"), ReLU(), *dropout, BatchNorm2d(filters), pool]


class LeNet5(Sequential):
    """LeNet-5 in its usual modern form: ReLU for the hyperbolic tangents, plain average pooling, every map connected.

    Args:
        num_classes: number of logits.
        in_channels: C of the images.
        image_size: height and width in pixels, an integer or a pair, at least 12. The first convolution pads by 2, so
            28x28 gives the original's 28x28 maps, which it made of images padded to 32x32.

    Returns:
        Logits (N, num_classes) for images (N, in_channels, H, W).

    Raises:
        ArgumentError: images smaller than 12x12, or a size below 1.
        ShapeError: in forward, images of another size.

    Source:
        LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II.B.

    Example:
        >>> import gpunet as gn
        >>> sum(p.numel() for p in gn.nn.LeNet5().parameters())
        61706
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, image_size: Any = 28):
        size = pair("LeNet5", "image_size", image_size, 1)
        if min(size) < 12:
            raise ArgumentError(f"LeNet5: image_size must be at least 12, got {image_size}; use ReferenceCNN or MLP")
        H, W = ((side // 2 - 4) // 2 for side in size)
        super().__init__(
            Conv2d(in_channels, 6, 5, padding=2), ReLU(), AvgPool2d(2),
            Conv2d(6, 16, 5), ReLU(), AvgPool2d(2),
            Flatten(), Linear(16 * H * W, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, num_classes),
        )  # fmt: skip


class MLP(Sequential):
    """A multi-layer perceptron: Flatten, then Linear layers with an activation between them.

    Args:
        sizes: numbers of features from input to output, at least two.
        activation: class (or maker) of the module between two layers.

    Returns:
        (N, sizes[-1]) for an input of sizes[0] numbers a sample.

    Raises:
        ArgumentError: fewer than two sizes, or one below 1.
        ShapeError: in forward, samples of another size.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.MLP([784, 32, 10])(gn.zeros(2, 1, 28, 28)).shape
        (2, 10)
    """

    def __init__(self, sizes: Sequence[int], activation: Callable[[], Module] = ReLU):
        sizes = list(sizes)
        if len(sizes) < 2:
            raise ArgumentError(f"MLP: sizes must hold at least two numbers, input and output, got {sizes}")
        layers: list[Module] = [Flatten()]
        for size, following in pairwise(sizes):
            layers += [Linear(size, following), activation()]
        super().__init__(*layers[:-1])


class SoftmaxRegression(Sequential):
    """Flatten and one Linear layer: logits of several classes, for :class:`CrossEntropyLoss`.

    Args:
        in_features: numbers in one sample.
        num_classes: number of logits.

    Raises:
        ArgumentError: a number below 1.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.SoftmaxRegression(64, 10)(gn.zeros(2, 8, 8)).shape
        (2, 10)
    """

    def __init__(self, in_features: int, num_classes: int):
        super().__init__(Flatten(), Linear(in_features, num_classes))


class LogisticRegression(Sequential):
    """Flatten and one Linear layer with one output: the logit of yes or no, for :class:`BCEWithLogitsLoss`.

    Args:
        in_features: numbers in one sample.

    Returns:
        (N, 1).

    Raises:
        ArgumentError: in_features below 1.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.LogisticRegression(3)(gn.zeros(2, 3)).shape
        (2, 1)
    """

    def __init__(self, in_features: int):
        super().__init__(Flatten(), Linear(in_features, 1))


class LinearRegression(Sequential):
    """Flatten and one Linear layer, for :class:`MSELoss`.

    Args:
        in_features: numbers in one sample.
        out_features: numbers to be predicted.

    Returns:
        (N, out_features).

    Raises:
        ArgumentError: a number below 1.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.LinearRegression(3)(gn.zeros(2, 3)).shape
        (2, 1)
    """

    def __init__(self, in_features: int, out_features: int = 1):
        super().__init__(Flatten(), Linear(in_features, out_features))


def _numbers(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]


Shape = tuple[int, int, int]

# Classifiers by name. Each maker takes the shape (C, H, W) of an image and the number of classes.
MODELS: dict[str, Callable[[Shape, int], Module]] = {
    "reference_cnn": lambda shape, classes: ReferenceCNN(classes, shape[0], shape[1:]),
    "lenet5": lambda shape, classes: LeNet5(classes, shape[0], shape[1:]),
    "mlp": lambda shape, classes: MLP([_numbers(shape), 128, classes]),
    "softmax_regression": lambda shape, classes: SoftmaxRegression(_numbers(shape), classes),
}
