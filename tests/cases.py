"""Which shapes and arguments every op is tried on: the one place in the tests that knows sizes.

A case is a public function of ``gpunet.functional`` with tensors and arguments. Everything else is made from it:
run under ``dispatch.capture()``, it yields the calls of every entry that the op launches, forward, backward and in
second derivatives (tests/product.py).

Each op has at least an ordinary case, the smallest, prime sizes, one element past a tile (17, 33), an axis of size 1
and an empty batch; windows and strides that are not square; and whatever options it has. Ops with kinks draw their
inputs away from them.
"""

import math
from collections.abc import Callable
from typing import Any

from tests.draws import (
    Case,
    Draw,
    away,
    constant,
    labels,
    normal,
    positive,
    ramp,
    shifted,
    special,
    ties,
    uniform,
    unit,
)


def _block(op: str, *rows: tuple[Any, ...], names: tuple[str, ...] = ()) -> list[Case]:
    """Cases of one op from rows (name, tensors, arguments); the last tensors go by ``names``."""
    return [Case(op, name, tuple(tensors), args[0] if args else {}, names) for name, tensors, *args in rows]


def _elementwise(op: str, draw: Callable[..., Draw] = normal, **args: Any) -> list[Case]:
    """The shapes of an op that treats each element alone."""
    shapes = {
        "ordinary": (4, 6),
        "single": (1,),
        "number": (),
        "prime": (7, 13),
        "past_tile": (17, 33),
        "size1_axis": (5, 1, 3),
        "empty": (0, 4),
        "images": (2, 3, 5, 4),
    }
    return [Case(op, name, (draw(*shape),), args) for name, shape in shapes.items()]


def _along_axis(op: str) -> list[Case]:
    """The shapes of an op along one axis."""
    return _block(
        op,
        ("ordinary", [normal(4, 6)], {"dim": 1}),
        ("single", [normal(1)], {"dim": 0}),
        ("prime", [normal(7, 13)], {"dim": -1}),
        ("past_tile", [normal(17, 33)], {"dim": 1}),
        ("first_axis", [normal(5, 3, 2)], {"dim": 0}),
        ("middle_axis", [normal(2, 17, 3)], {"dim": 1}),
        ("size1_axis", [normal(4, 1)], {"dim": 1}),
        ("empty_batch", [normal(0, 5)], {"dim": 1}),
        ("long_row", [normal(2, 1031)], {"dim": 1}),
        ("large", [shifted(5, 7, by=1000)], {"dim": 1}),
        ("large_negative", [shifted(5, 7, by=-1000)], {"dim": 1}),
    )


def _loss(op: str, x: Callable[..., Draw], target: Callable[..., Draw]) -> list[Case]:
    """The shapes and reductions of a loss that compares element with element."""
    shapes = {"ordinary": (4, 6), "single": (1,), "prime": (7, 5), "past_tile": (17, 33), "size1_axis": (3, 1, 4)}
    cases = [Case(op, name, (x(*shape), target(*shape))) for name, shape in shapes.items()]
    cases += [Case(op, f"{each}_of_all", (x(3, 5), target(3, 5)), {"reduction": each}) for each in ("none", "sum")]
    return [*cases, Case(op, "empty_sum", (x(0, 3), target(0, 3)), {"reduction": "sum"})]


MATMUL = _block(
    "matmul",
    ("ordinary", [normal(4, 6), normal(6, 5)]),
    ("single", [normal(1, 1), normal(1, 1)]),
    ("prime", [normal(7, 11), normal(11, 13)]),
    ("past_tile", [normal(17, 33), normal(33, 17)]),
    ("tall", [normal(65, 3), normal(3, 2)]),
    ("row_by_column", [normal(1, 7), normal(7, 1)]),
    ("column_by_row", [normal(5, 1), normal(1, 4)]),
    ("batch", [normal(3, 2, 4), normal(3, 4, 5)]),
    ("broadcast_batch", [normal(2, 1, 3, 4), normal(5, 4, 2)]),
    ("matrix_by_batch", [normal(3, 4), normal(2, 4, 5)]),
    ("vector_by_vector", [normal(5), normal(5)]),
    ("vector_by_batch", [normal(4), normal(2, 4, 3)]),
    ("empty_batch", [normal(0, 2, 3), normal(0, 3, 2)]),
    ("empty_rows", [normal(0, 3), normal(3, 2)]),
    ("empty_inner", [normal(3, 0), normal(0, 2)]),
) + _block(
    "linear",
    ("ordinary", [normal(5, 4), normal(3, 4), normal(3)]),
    ("no_bias", [normal(7, 11), normal(13, 11), None]),
    ("one_row", [normal(4), normal(3, 4), normal(3)]),
    ("more_axes", [normal(2, 3, 4), normal(5, 4), normal(5)]),
    ("past_tile", [normal(17, 33), normal(17, 33), normal(17)]),
    ("size1_axis", [normal(3, 1), normal(1, 1), normal(1)]),
    ("empty_batch", [normal(0, 4), normal(3, 4), normal(3)]),
    ("relu", [normal(5, 4), normal(3, 4), normal(3)], {"activation": "relu"}),
    ("relu_past_tile", [normal(17, 33), normal(17, 33), normal(17)], {"activation": "relu"}),
    ("relu_no_bias", [normal(3, 4), normal(2, 4), None], {"activation": "relu"}),
)

CONV2D = _block(
    "conv2d",
    ("ordinary", [normal(2, 3, 8, 8), normal(4, 3, 3, 3), normal(4)], {"padding": 1}),
    ("single", [normal(1, 1, 1, 1), normal(1, 1, 1, 1), normal(1)]),
    ("no_bias", [normal(2, 2, 5, 4), normal(3, 2, 2, 2), None]),
    ("stride2_odd", [normal(1, 2, 9, 7), normal(3, 2, 3, 3), normal(3)], {"stride": 2, "padding": 1}),
    ("prime", [normal(2, 5, 11, 7), normal(7, 5, 3, 3), None]),
    ("past_tile", [normal(1, 1, 17, 33), normal(1, 1, 3, 3), normal(1)]),
    ("tile_of_channels", [normal(1, 17, 3, 3), normal(33, 17, 1, 1), normal(33)]),
    ("size1_axis", [normal(3, 2, 1, 6), normal(2, 2, 1, 3), normal(2)], {"padding": (0, 1)}),
    ("empty_batch", [normal(0, 2, 5, 5), normal(3, 2, 3, 3), normal(3)]),
    ("not_square", [normal(2, 2, 7, 9), normal(3, 2, 2, 3), normal(3)], {"stride": (2, 3), "padding": (1, 2)}),
    ("dilated", [normal(1, 2, 9, 8), normal(2, 2, 3, 2), normal(2)], {"dilation": (2, 3), "padding": (2, 1)}),
    ("groups", [normal(2, 4, 5, 5), normal(6, 2, 3, 3), normal(6)], {"groups": 2, "padding": 1}),
    ("depthwise", [normal(2, 3, 6, 5), normal(6, 1, 3, 3), None], {"groups": 3, "stride": 2, "padding": 1}),
    ("same_even", [normal(1, 2, 5, 6), normal(2, 2, 2, 4), normal(2)], {"padding": "same"}),
    ("valid", [normal(1, 2, 5, 5), normal(2, 2, 3, 3), None], {"padding": "valid"}),
    ("window_is_image", [normal(2, 3, 4, 5), normal(2, 3, 4, 5), normal(2)]),
    ("window_of_padding", [normal(2, 1, 1, 1), normal(2, 1, 3, 3), None], {"padding": 1}),
    ("wide_padding", [normal(1, 1, 2, 2), normal(1, 1, 2, 2), normal(1)], {"padding": (3, 2), "stride": 2}),
    ("rows_left_over", [normal(1, 1, 8, 8), normal(2, 1, 3, 3), normal(2)], {"stride": 3}),
    ("one_image", [normal(2, 5, 5), normal(3, 2, 3, 3), normal(3)]),
    ("relu", [normal(2, 3, 6, 5), normal(4, 3, 3, 3), normal(4)], {"padding": 1, "activation": "relu"}),
    ("relu_no_bias", [normal(1, 4, 7, 6), normal(6, 2, 3, 2), None], {"stride": 2, "groups": 2, "activation": "relu"}),
) + _block(
    "conv_transpose2d",
    ("ordinary", [normal(2, 3, 4, 4), normal(3, 2, 3, 3), normal(2)], {"stride": 2, "padding": 1}),
    ("single", [normal(1, 1, 1, 1), normal(1, 1, 1, 1), normal(1)]),
    ("prime", [normal(1, 3, 5, 7), normal(3, 5, 3, 2), None]),
    ("not_square", [normal(2, 2, 3, 4), normal(2, 3, 2, 3), normal(3)], {"stride": (2, 3), "padding": (1, 2)}),
    ("more_rows", [normal(1, 2, 3, 3), normal(2, 2, 3, 3), None], {"stride": 2, "padding": 1, "output_padding": 1}),
    ("dilated", [normal(1, 2, 3, 3), normal(2, 2, 2, 3), None], {"dilation": (3, 2), "output_padding": (2, 1)}),
    ("groups", [normal(1, 4, 3, 3), normal(4, 3, 2, 2), normal(6)], {"groups": 2}),
    ("past_tile", [normal(1, 1, 17, 9), normal(1, 1, 3, 3), normal(1)], {"stride": (1, 4)}),
    ("size1_axis", [normal(2, 1, 1, 4), normal(1, 2, 2, 2), None]),
    ("empty_batch", [normal(0, 2, 3, 3), normal(2, 3, 2, 2), normal(3)]),
)


def _max_pool(op: str, **more: Any) -> list[Case]:
    return _block(
        op,
        ("ordinary", [ramp(2, 3, 8, 8)], {"kernel_size": 2}),
        ("single", [ramp(1, 1, 1, 1)], {"kernel_size": 1}),
        ("overlapping", [ramp(2, 2, 7, 7)], {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("prime", [ramp(1, 3, 11, 13)], {"kernel_size": 3, "stride": 1}),
        ("past_tile", [ramp(1, 1, 17, 33)], {"kernel_size": 2}),
        ("not_square", [ramp(2, 2, 9, 8)], {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0)}),
        ("not_square_turned", [ramp(1, 2, 8, 9)], {"kernel_size": (2, 3), "stride": (3, 2), "padding": (0, 1)}),
        ("ceil", [ramp(1, 2, 6, 8)], {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        ("ceil_padded", [ramp(1, 1, 8, 7)], {"kernel_size": 3, "stride": 4, "padding": 1, "ceil_mode": True}),
        ("ceil_fits", [ramp(1, 1, 8, 8)], {"kernel_size": 4, "stride": 2, "padding": 1, "ceil_mode": True}),
        ("gaps", [ramp(1, 1, 9, 9)], {"kernel_size": 2, "stride": 3}),
        ("size1_axis", [ramp(2, 1, 1, 7)], {"kernel_size": (1, 3), "stride": 2}),
        ("whole_packs", [ramp(2, 2, 8, 16)], {"kernel_size": 2}),
        ("whole_packs_overlapping", [ramp(1, 2, 8, 16)], {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("empty_batch", [ramp(0, 2, 4, 4)], {"kernel_size": 2}),
        ("one_image", [ramp(2, 5, 5)], {"kernel_size": 2}),
        *(more.get("rows", ())),
    )


POOLS = _max_pool(
    "max_pool2d",
    rows=(
        ("dilated", [ramp(1, 2, 9, 10)], {"kernel_size": (2, 3), "dilation": (3, 2), "stride": 2, "padding": 1}),
        ("wide_window", [ramp(1, 1, 18, 19)], {"kernel_size": 17, "stride": 1}),  # positions beyond uint8
        ("window_of_256", [ramp(1, 1, 17, 16)], {"kernel_size": 16, "stride": 1}),  # the last that fits into uint8
        ("window_of_257", [ramp(1, 1, 1, 258)], {"kernel_size": (1, 257), "stride": 1}),
        ("window_of_200", [ramp(1, 1, 3, 101)], {"kernel_size": (2, 100), "stride": 1}),
        ("dilated_ceil", [ramp(1, 1, 10, 9)], {"kernel_size": 3, "dilation": 2, "stride": 3, "ceil_mode": True}),
    ),
) + _max_pool(
    "avg_pool2d",
    rows=(
        (
            "padding_not_counted",
            [normal(1, 2, 6, 7)],
            {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        ),
        (
            "ceil_not_counted",
            [normal(1, 1, 7, 8)],
            {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True, "count_include_pad": False},
        ),
        ("ceil_counted", [normal(1, 1, 7, 8)], {"kernel_size": 4, "stride": 3, "padding": 2, "ceil_mode": True}),
        ("divisor", [normal(1, 2, 5, 5)], {"kernel_size": 2, "divisor_override": 3}),
    ),
)

ADAPTIVE = [
    case
    for op, draw in (("adaptive_avg_pool2d", normal), ("adaptive_max_pool2d", ramp))
    for case in _block(
        op,
        ("ordinary", [draw(2, 3, 8, 8)], {"output_size": 4}),
        ("single", [draw(1, 1, 1, 1)], {"output_size": 1}),
        ("to_one", [draw(2, 3, 7, 5)], {"output_size": 1}),
        ("uneven", [draw(1, 2, 7, 11)], {"output_size": (3, 4)}),
        ("prime", [draw(1, 1, 13, 7)], {"output_size": (5, 3)}),
        ("larger_than_input", [draw(1, 2, 3, 4)], {"output_size": (5, 7)}),
        ("past_tile", [draw(1, 1, 17, 33)], {"output_size": (4, 16)}),
        ("keeps_height", [draw(1, 2, 5, 6)], {"output_size": (None, 3)}),
        ("size1_axis", [draw(2, 1, 1, 6)], {"output_size": (1, 4)}),
        ("empty_batch", [draw(0, 2, 4, 4)], {"output_size": 2}),
        ("one_image", [draw(2, 5, 4)], {"output_size": 2}),
    )
]

ACTIVATIONS = [
    *_elementwise("relu", away),
    *_elementwise("leaky_relu", away),
    Case("leaky_relu", "steep", (away(3, 5),), {"negative_slope": 0.3}),
    Case("leaky_relu", "negative_slope", (away(3, 5),), {"negative_slope": -0.5}),
    *_elementwise("sigmoid"),
    *_elementwise("tanh"),
    *_elementwise("gelu"),
    Case("gelu", "wide", (uniform(5, 9, low=-8, high=8),)),
    Case("gelu", "tanh", (normal(5, 7),), {"approximate": "tanh"}),
    Case("gelu", "tanh_wide", (uniform(5, 9, low=-8, high=8),), {"approximate": "tanh"}),
    *_elementwise("softplus"),
    Case("gelu", "many", (normal(16400),)),
    Case("softplus", "sharp", (normal(4, 5),), {"beta": 3.0, "threshold": 1.0}),
    Case("softplus", "wide", (uniform(4, 9, low=-40, high=40),)),
    *_block(
        "prelu",
        ("ordinary", [away(4, 3), normal(3)]),
        ("single", [away(1), normal(1)]),
        ("one_slope", [away(2, 3, 4), normal(1)]),
        ("number", [away(), normal(1)]),
        ("two_channels", [away(3, 2), normal(2)]),
        ("prime", [away(7, 11), normal(11)]),
        ("past_tile", [away(2, 17, 33), normal(17)]),
        ("images", [away(2, 3, 4, 5), normal(3)]),
        ("size1_axis", [away(4, 1, 3), normal(1)]),
        ("empty_batch", [away(0, 3), normal(3)]),
    ),
]

DROPOUT = [
    *_elementwise("dropout"),
    *_block(
        "dropout",
        ("seldom", [normal(13, 7)], {"p": 0.1}),
        ("many", [normal(3, 10931)], {"p": 0.3}),
        ("never", [normal(3, 4)], {"p": 0.0}),
        ("always", [normal(3, 4)], {"p": 1.0}),
        ("evaluation", [normal(3, 4)], {"training": False}),
    ),
    *_block(
        "dropout2d",
        ("ordinary", [normal(3, 4, 3, 3)]),
        ("single", [normal(1, 1, 1, 1)]),
        ("past_tile", [normal(2, 17, 3, 11)], {"p": 0.2}),
        ("size1_axis", [normal(3, 5, 1, 2)]),
        ("empty_batch", [normal(0, 2, 3, 3)]),
    ),
]


def _statistics(C: int) -> list[Draw]:
    return [normal(C, grad=False), positive(C, grad=False)]


NORMS = _block(
    "batch_norm",
    ("ordinary", [normal(4, 3, 5, 5), *_statistics(3), normal(3), normal(3)], {"training": True}),
    ("plain", [normal(6, 4), None, None, None, None], {"training": True}),
    ("scale_alone", [normal(5, 2, 3), *_statistics(2), normal(2), None], {"training": True, "momentum": 0.3}),
    ("shift_alone", [normal(5, 2, 3), *_statistics(2), None, normal(2)], {"training": True, "eps": 0.1}),
    ("two_values", [normal(2, 1), *_statistics(1), normal(1), normal(1)], {"training": True, "eps": 0.5}),
    ("prime", [normal(7, 5, 3, 2), *_statistics(5), normal(5), normal(5)], {"training": True}),
    ("far", [shifted(8, 3, 4, by=100000), *_statistics(3), normal(3), normal(3)], {"training": True}),
    ("far_plain", [shifted(8, 3, 4, by=-100000), None, None, None, None], {"training": True}),
    ("past_tile", [normal(3, 17, 33), *_statistics(17), normal(17), normal(17)], {"training": True}),
    ("size1_axis", [normal(4, 3, 1, 5), *_statistics(3), normal(3), normal(3)], {"training": True}),
    ("whole_packs", [normal(2, 3, 4, 4), *_statistics(3), normal(3), normal(3)], {"training": True}),
    ("empty_batch", [normal(0, 2, 3), *_statistics(2), normal(2), normal(2)], {"training": True}),
    ("evaluation", [normal(4, 3, 5, 2), *_statistics(3), normal(3), normal(3)]),
    ("evaluation_whole_packs", [normal(2, 3, 4, 4), *_statistics(3), normal(3), normal(3)]),
    ("evaluation_plain", [normal(3, 2), *_statistics(2), None, None], {"eps": 0.01}),
    ("evaluation_empty", [normal(0, 2, 3), *_statistics(2), normal(2), normal(2)]),
) + _block(
    "layer_norm",
    ("ordinary", [normal(4, 6), normal(6), normal(6)], {"normalized_shape": (6,)}),
    ("plain", [normal(5, 3), None, None], {"normalized_shape": 3}),
    ("scale_alone", [normal(5, 3), normal(3), None], {"normalized_shape": (3,)}),
    ("shift_alone", [normal(5, 3), None, normal(3)], {"normalized_shape": (3,)}),
    ("two_values", [normal(3, 2), normal(2), normal(2)], {"normalized_shape": (2,), "eps": 0.5}),
    ("single", [normal(1, 1), normal(1), normal(1)], {"normalized_shape": (1,), "eps": 0.5}),
    ("prime", [normal(7, 13), normal(13), normal(13)], {"normalized_shape": (13,)}),
    ("two_axes", [normal(2, 3, 4, 5), normal(4, 5), normal(4, 5)], {"normalized_shape": (4, 5)}),
    ("all_axes", [normal(3, 4), normal(3, 4), normal(3, 4)], {"normalized_shape": (3, 4)}),
    ("past_tile", [normal(17, 33), normal(33), normal(33)], {"normalized_shape": (33,)}),
    ("far", [shifted(5, 32, by=100000), normal(32), normal(32)], {"normalized_shape": (32,)}),
    ("size1_axis", [normal(2, 1, 5), normal(1, 5), normal(1, 5)], {"normalized_shape": (1, 5)}),
    ("empty_batch", [normal(0, 4), normal(4), normal(4)], {"normalized_shape": (4,)}),
    names=("weight", "bias"),
)

LOSSES = [
    *_block(
        "cross_entropy",
        ("ordinary", [normal(6, 4), labels(6, classes=4)]),
        ("single", [normal(1, 1), labels(1, classes=1)]),
        ("one_row", [normal(5), labels(classes=5)]),
        ("prime", [normal(7, 11), labels(7, classes=11)], {"reduction": "sum"}),
        ("past_tile", [normal(17, 33), labels(17, classes=33)], {"reduction": "none"}),
        ("pixels", [normal(2, 3, 4, 5), labels(2, 4, 5, classes=3)]),
        ("ignored", [normal(9, 4), labels(9, classes=4, ignored=-100)]),
        ("one_class", [normal(5, 1), labels(5, classes=1, ignored=-100)]),
        ("large", [shifted(6, 5, by=1000), labels(6, classes=5)]),
        ("large_negative", [shifted(6, 5, by=-1000), labels(6, classes=5)]),
        ("ignored_class", [normal(3, 4, 5), labels(3, 5, classes=4, ignored=1)], {"ignore_index": 1}),
        ("weighted", [normal(6, 4), labels(6, classes=4), positive(4, grad=False)]),
        ("weighted_none", [normal(6, 4), labels(6, classes=4), positive(4, grad=False)], {"reduction": "none"}),
        ("smoothed", [normal(6, 4), labels(6, classes=4)], {"label_smoothing": 0.2}),
        (
            "all_options",
            [normal(5, 4, 3), labels(5, 3, classes=4, ignored=2), positive(4, grad=False)],
            {"label_smoothing": 0.3, "ignore_index": 2},
        ),
        ("size1_axis", [normal(4, 3, 1), labels(4, 1, classes=3)]),
        ("empty_batch", [normal(0, 4), labels(0, classes=4)], {"reduction": "sum"}),
    ),
    *_block(
        "nll_loss",
        ("ordinary", [normal(6, 4), labels(6, classes=4)]),
        ("pixels", [normal(2, 3, 4, 5), labels(2, 4, 5, classes=3)], {"reduction": "sum"}),
        ("weighted", [normal(7, 4), labels(7, classes=4, ignored=-100), positive(4, grad=False)]),
        ("none", [normal(5, 3), labels(5, classes=3, ignored=0), None], {"reduction": "none", "ignore_index": 0}),
        ("empty_batch", [normal(0, 4), labels(0, classes=4)], {"reduction": "sum"}),
    ),
    *_loss("mse_loss", normal, normal),
    *_loss("l1_loss", lambda *shape: away(*shape, low=1.2), lambda *shape: uniform(*shape, low=-1, high=1)),
    *_loss("binary_cross_entropy", unit, lambda *shape: unit(*shape, grad=False)),
    *_block(
        "binary_cross_entropy",
        ("weighted", [unit(4, 3), unit(4, 3, grad=False), positive(3)]),
        names=("weight",),
    ),
    *_loss("binary_cross_entropy_with_logits", normal, lambda *shape: unit(*shape, grad=False)),
    *_block(
        "binary_cross_entropy_with_logits",
        ("weighted", [normal(4, 3), unit(4, 3, grad=False), positive(4, 1), positive(3)]),
        ("wide", [uniform(4, 5, low=-60, high=60), unit(4, 5, grad=False), None, positive(5)]),
        names=("weight", "pos_weight"),
    ),
]

SPECIAL = [
    Case(op, f"{name}{suffix}", (draw(*shape), *more), args, smooth=False)
    for name, draw in (("special", special), ("ties", ties))
    for op, shape, more, args, suffix in (
        ("matmul", (5, 7), (normal(7, 3),), {}, ""),
        ("conv2d", (2, 2, 6, 7), (normal(3, 2, 3, 3), normal(3)), {"padding": 1}, ""),
        ("max_pool2d", (2, 3, 7, 8), (), {"kernel_size": 3, "stride": 2, "padding": 1}, ""),
        ("max_pool2d", (2, 2, 8, 9), (), {"kernel_size": 2, "stride": 3, "dilation": 2, "ceil_mode": True}, "_dilated"),
        ("avg_pool2d", (2, 2, 7, 8), (), {"kernel_size": 3, "stride": 2, "padding": 1}, ""),
        ("adaptive_max_pool2d", (2, 2, 9, 7), (), {"output_size": (4, 3)}, ""),
        ("adaptive_avg_pool2d", (2, 2, 9, 7), (), {"output_size": (4, 3)}, ""),
        ("relu", (9, 8), (), {}, ""),
        ("leaky_relu", (9, 8), (), {}, ""),
        ("prelu", (9, 3, 4), (normal(3),), {}, ""),
        ("sigmoid", (9, 8), (), {}, ""),
        ("tanh", (9, 8), (), {}, ""),
        ("gelu", (9, 8), (), {}, ""),
        ("gelu", (9, 8), (), {"approximate": "tanh"}, "_tanh"),
        ("softplus", (9, 8), (), {}, ""),
        ("softplus", (9, 8), (), {"threshold": 1.0}, "_on_threshold"),
        ("dropout", (9, 8), (), {}, ""),
        ("softmax", (12, 5), (), {"dim": 1}, ""),
        ("log_softmax", (12, 5), (), {"dim": 1}, ""),
        ("batch_norm", (3, 6, 2), (None, None, normal(6), normal(6)), {"training": True}, ""),
        ("layer_norm", (9, 6), (), {"normalized_shape": (6,)}, ""),
        ("cross_entropy", (12, 5), (labels(12, classes=5, ignored=-100),), {"reduction": "sum"}, ""),
        ("cross_entropy", (12, 5), (labels(12, classes=5),), {"label_smoothing": 0.1}, "_smoothed"),
    )
]

SPECIAL += [
    Case("max_pool2d", f"nothing{suffix}", (constant(1, 2, 5, 7, value=-math.inf),), args, smooth=False)
    for suffix, args in (
        ("", {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 1)}),
        ("_dilated", {"kernel_size": (3, 2), "stride": 2, "padding": (1, 1), "dilation": (2, 1)}),
        ("_far", {"kernel_size": 4, "stride": 2, "padding": 2}),
    )
]

SOFTMAX = [*_along_axis("softmax"), *_along_axis("log_softmax")]
CASES: list[Case] = MATMUL + CONV2D + POOLS + ADAPTIVE + ACTIVATIONS + DROPOUT + SOFTMAX + NORMS + LOSSES + SPECIAL
