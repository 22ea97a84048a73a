"""Tensors by themselves: making them, dtypes that meet, indexing, comparing, printing, and turning into numbers."""

import array
import operator

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import ArgumentError, DeviceError, DTypeError, ShapeError

# ------------------------------------------------------------------------------------------------------------- making


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"),
        (3, "int64"),
        (True, "bool"),
        ([1, 2.5], "float32"),
        ([[1, 2], [3, 4]], "int64"),
        ([True, False], "bool"),
        ((1.0, 2.0), "float32"),
        ([], "float32"),
        (np.float64(2.0), "float64"),
        (np.arange(3, dtype=np.int8), "int8"),
        (np.ones(2), "float64"),
        ([np.float64(1.0), np.float64(2.0)], "float64"),
        (gn.ones(2, dtype="float64"), "float64"),
        (array.array("d", [1.0, 2.0]), "float32"),
        (np.ones(2, ">f4"), "float32"),
        (range(3), "int64"),
    ],
)
def test_dtype_follows_the_data(data, dtype):
    t = gn.tensor(data)
    assert t.dtype == dtype
    assert t.dtype.isnative
    assert t.shape == np.shape(data.data if isinstance(data, gn.Tensor) else data)
    np.testing.assert_array_equal(t.numpy(), data.data if isinstance(data, gn.Tensor) else np.array(data))


def test_dtype_and_gradient_as_asked():
    t = gn.tensor([1, 2], dtype="float64", requires_grad=True)
    assert t.dtype == np.float64
    assert t.requires_grad
    assert t.is_leaf
    assert gn.tensor(np.ones(2), dtype=np.float32).dtype == np.float32


class Sub(np.ndarray):
    """A subclass of NumPy's array."""


@pytest.mark.parametrize("make", [np.asarray, gn.from_numpy, memoryview, lambda a: a.view(Sub), lambda a: a[::-1]])
def test_tensor_owns_its_memory(make):
    source = np.ones(3, np.float32)
    t = gn.tensor(make(source))
    source[:] = 5
    assert t.data.tolist() == [1.0, 1.0, 1.0]
    assert type(t.data) is np.ndarray


@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        ([[1, 2], [3]], {}, DTypeError, "regular nesting, got a ragged one"),
        ("text", {}, DTypeError, "must be numbers in a regular nesting, got elements of dtype <U4"),
        (None, {}, DTypeError, "got elements of dtype object"),
        (1j, {}, DTypeError, "got elements of dtype complex128"),
        (np.array(["a"]), {"dtype": "float32"}, DTypeError, "got elements of dtype <U1"),
        (1.0, {"dtype": "complex64"}, DTypeError, "must be a floating, integer or bool dtype .* got 'complex64'"),
        (1.0, {"dtype": "float33"}, DTypeError, "got 'float33'"),
        (1.0, {"dtype": int | str}, DTypeError, r"got int \| str"),
        (1, {"requires_grad": True}, DTypeError, r"only floating tensors have gradients, got int64; use .float\(\)"),
        (1.0, {"device": "tpu"}, DeviceError, "must be one of cpu, cuda, cuda:N, sim, auto, got 'tpu'"),
    ],
)
def test_what_is_no_tensor_is_refused(data, options, error, words):
    with pytest.raises(error, match=words):
        gn.tensor(data, **options)


def test_filled_tensors():
    assert gn.zeros(2, 3).tolist() == [[0.0] * 3] * 2
    assert gn.zeros((2, 0)).shape == (2, 0)
    assert gn.ones([2], dtype="int32").dtype == np.int32
    assert gn.full((2,), 7).dtype == np.int64
    assert gn.full(2, 1.5).dtype == np.float32
    assert gn.full(np.int64(2), True).tolist() == [True, True]
    assert gn.eye(2, 3).tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert gn.zeros().shape == ()


def test_arange():
    assert gn.arange(3).tolist() == [0, 1, 2]
    assert gn.arange(1, 6, 2).tolist() == [1, 3, 5]
    assert gn.arange(3).dtype == np.int64
    assert gn.arange(0, 1, 0.25).dtype == np.float32
    assert gn.arange(3, dtype="float64").dtype == np.float64
    assert gn.arange(3, 0, -1).tolist() == [3, 2, 1]


def test_random_tensors_repeat_by_seed():
    for make in (gn.rand, gn.randn):
        gn.manual_seed(1)
        first = make(3, 4)
        again = make(3, 4)
        gn.manual_seed(1)
        assert first.tolist() == make(3, 4).tolist()
        assert first.tolist() != again.tolist()
        assert make(2, dtype="float64").dtype == np.float64
    assert 0 <= gn.rand(1000).min().item() < 0.1
    assert 0.9 < gn.rand(1000).max().item() < 1
    assert abs(gn.randn(4000).mean().item()) < 0.1
    assert gn.randn(4000).std().item() == pytest.approx(1, abs=0.1)


def test_like():
    x = gn.ones(2, 3, dtype="float64")
    for make in (gn.zeros_like, gn.ones_like, gn.rand_like, gn.randn_like, lambda x, **k: gn.full_like(x, 3, **k)):
        assert (make(x).shape, make(x).dtype, make(x, dtype="float32").dtype) == (x.shape, x.dtype, np.float32)


@pytest.mark.parametrize("sizes", [(2, -1), (2.0,), ("2",), ((2, None),)])
def test_wrong_sizes_are_refused(sizes):
    with pytest.raises(ArgumentError, match="sizes must be integers of at least 0"):
        gn.zeros(*sizes)


# ----------------------------------------------------------------------------------------------------- dtypes that meet

# What two arrays of these dtypes give, by PyTorch's rule, written down by hand.
MEET = """
          bool     uint8    int8     int32    int64    float32  float64
bool      bool     uint8    int8     int32    int64    float32  float64
uint8     uint8    uint8    int16    int32    int64    float32  float64
int8      int8     int16    int8     int32    int64    float32  float64
int32     int32    int32    int32    int32    int64    float32  float64
int64     int64    int64    int64    int64    int64    float32  float64
float32   float32  float32  float32  float32  float32  float32  float64
float64   float64  float64  float64  float64  float64  float64  float64
"""
HEAD, *BODY = [line.split() for line in MEET.strip().splitlines()]
PAIRS = [(row[0], other, result) for row in BODY for other, result in zip(HEAD, row[1:], strict=True)]


@pytest.mark.parametrize(("a", "b", "expected"), PAIRS)
def test_two_arrays_meet(a, b, expected):
    x, y = gn.ones(2, dtype=a), gn.ones(2, dtype=b)
    assert (x + y).dtype == expected
    assert (x * y).dtype == expected
    assert gn.where(x > 0, x, y).dtype == expected
    assert gn.maximum(x, y).dtype == expected
    assert (x / y).dtype == (expected if expected.startswith("float") else "float32")
    assert (x < y).dtype == "bool"


def test_a_single_number_yields_to_an_array_of_its_kind():
    for name, other in (("float32", "float64"), ("int32", "int64"), ("int8", "int32")):
        assert (gn.ones(2, dtype=name) * gn.ones(dtype=other)).dtype == name
        assert (gn.ones(dtype=other) * gn.ones(2, dtype=name)).dtype == name
        assert (gn.ones(dtype=name) * gn.ones(dtype=other)).dtype == other
    assert (gn.ones(2, dtype="int64") * gn.ones(dtype="float64")).dtype == "float64"  # a higher kind wins all the same
    assert (gn.ones(2, dtype="bool") * gn.ones(dtype="int8")).dtype == "int8"


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [
        ("float32", 2, "float32"),
        ("float32", 2.5, "float32"),
        ("float32", 1e300, "float32"),
        ("float32", np.float64(2.5), "float32"),
        ("float64", 2.5, "float64"),
        ("int8", 2, "int8"),
        ("int8", 2.5, "float32"),
        ("int64", 2.5, "float32"),
        ("uint8", True, "uint8"),
        ("bool", 2, "int64"),
        ("bool", 2.5, "float32"),
        ("bool", True, "bool"),
    ],
)
def test_python_numbers_do_not_widen(dtype, number, expected):
    x = gn.ones(2, dtype=dtype)
    assert (x + number).dtype == expected
    assert (number * x).dtype == expected
    assert gn.where(x > 0, x, number).dtype == expected


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda: gn.ones(2) + "a", "add: both sides must be tensors, arrays or numbers, got str"),
        (lambda: gn.ones(2) * 1j, "mul: .* got complex"),
        (lambda: gn.ones(2) * np.complex64(1j), "mul: .* got complex"),
        (lambda: gn.ones(2) < None, "less: .* got NoneType"),
        (lambda: -gn.tensor([True]), "neg: .* got bool; use ~x"),
        (lambda: gn.tensor([True]) - gn.tensor([True]), "sub: .* got bool and bool; use ^"),
        (lambda: True - gn.tensor([True]), "sub: .* got bool and bool"),
        (lambda: gn.tensor([True]) ** True, "pow: .* got bool and bool"),
        (lambda: ~gn.ones(2), "invert: the tensor must hold bools or integers, got float32"),
    ],
)
def test_operands_that_make_no_sense(run, words):
    with pytest.raises(DTypeError, match=words.replace("^", r"\^")):
        run()


# ----------------------------------------------------------------------------------------------------------- comparing


@pytest.mark.parametrize("op", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
def test_comparisons(op):
    values = np.array([1.0, 2.0, np.nan, np.inf])
    t = gn.tensor(values)
    for other in (2.0, 2, values[::-1].copy(), np.float32(2)):
        result = op(t, other)
        assert result.dtype == "bool"
        np.testing.assert_array_equal(result.numpy(), op(values, other))
        np.testing.assert_array_equal(op(other, t).numpy(), op(other, values))


def test_comparison_with_what_is_no_number_is_false():
    t = gn.ones(2)
    assert (t == None) is False  # noqa: E711 the operator is what is tested
    assert (t != "a") is True
    assert t not in [None, "a"]
    assert t in [None, t]


def test_logic_of_bools():
    a, b = gn.tensor([True, True, False]), gn.tensor([True, False, False])
    assert (a & b).tolist() == [True, False, False]
    assert (a | b).tolist() == [True, True, False]
    assert (a ^ b).tolist() == [False, True, False]
    assert (~a).tolist() == [False, False, True]
    assert (True & a).tolist() == [True, True, False]
    assert (np.array([False, True, True]) | a).tolist() == [True, True, True]
    assert (a.all().item(), a.any().item()) == (False, True)
    assert (~gn.tensor([0, 5])).tolist() == [-1, -6]


# ------------------------------------------------------------------------------------------------------------- indexing

GRID = np.arange(24.0).reshape(2, 3, 4)
KEYS = {
    "integer": 1,
    "negative": -1,
    "three integers": (1, 2, 3),
    "slice": slice(1, None),
    "negative step": (slice(None), slice(None, None, -2)),
    "Ellipsis": (Ellipsis, 0),
    "None": (None, slice(None), None, 1),
    "empty slice": (slice(2, 2),),
    "nothing": (),
    "list": [1, 0, 1],
    "empty list": [],
    "array": (slice(None), np.array([[0, 2], [1, 1]])),
    "two arrays": (np.array([0, 1, 1]), np.array([2, 0, 0])),
    "array and slice and integer": (np.array([0, 1]), slice(1, 3), 2),
    "mask": GRID > 7,
    "mask of an axis": (slice(None), np.array([True, False, True])),
    "bool": True,
    "NumPy integer": np.int32(1),
    "array of one number": (np.array(1), 2),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
def test_indexing(key):
    x = gn.tensor(GRID, requires_grad=True)
    y = x[key]
    np.testing.assert_array_equal(y.detach().numpy(), GRID[key])
    parts = tuple(gn.tensor(k) if isinstance(k, np.ndarray) else k for k in (key if isinstance(key, tuple) else (key,)))
    np.testing.assert_array_equal(x[parts].detach().numpy(), GRID[key])
    weight = 1.0 + np.arange(y.numel()).reshape(y.shape)
    (g,) = gn.grad(y, x, weight)
    expected = np.zeros_like(GRID)
    np.add.at(expected, key, weight)  # repeated positions add up
    np.testing.assert_array_equal(g.numpy(), expected)


def test_basic_indexing_makes_views():
    x = gn.zeros(2, 3)
    x[1].add_(1)
    x[0, 2].add_(5)  # a single element too
    x[:, ::-1][0, 1].fill_(7)
    assert x.tolist() == [[0.0, 7.0, 5.0], [1.0, 1.0, 1.0]]
    x[[0]].zero_()  # a copy
    assert x[0, 1].item() == 7.0


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        (2, ShapeError, r"index: index 2 is out of bounds.*for a tensor of shape \(2, 3, 4\)"),
        ((0, 0, 0, 0), ShapeError, r"index: too many indices"),
        (gn.ones(2), DTypeError, r"index: an index array must hold integers or bools, got float32; use .long\(\)"),
        (0.5, DTypeError, r"index: must be made of integers, slices, None, ... and arrays, got 0.5"),
        ("a", DTypeError, r"got 'a'"),
        (np.array([True, False, True]), ShapeError, "index: boolean index did not match"),
    ],
)
def test_wrong_indices_are_refused(key, error, words):
    with pytest.raises(error, match=words):
        gn.tensor(GRID)[key]


def test_iteration_and_unpacking():
    a, b = gn.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert (a.tolist(), b.tolist()) == ([1.0, 2.0], [3.0, 4.0])
    assert [each.item() for each in gn.arange(3)] == [0, 1, 2]
    assert 2 in gn.arange(3)


# ----------------------------------------------------------------------------------------- numbers, text, and the rest


def test_numbers_out_of_single_elements():
    t = gn.tensor([[2.5]])
    assert (t.item(), float(t), int(t), bool(t), f"{t:.1f}") == (2.5, 2.5, 2, True, "2.5")
    assert isinstance(gn.tensor(3).item(), int)
    assert [10, 20, 30][gn.tensor(1)] == 20
    assert len(gn.zeros(4, 2)) == 4


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        (lambda x: x.item(), ArgumentError, r"item: the tensor must hold one element, got shape \(2,\); use"),
        (float, ArgumentError, "item"),
        (bool, ArgumentError, r"bool: the tensor must hold one element, got shape \(2,\); use .any\(\) or .all\(\)"),
        (lambda x: bool(x[:0]), ArgumentError, r"got shape \(0,\)"),
        (lambda x: len(x.sum()), ArgumentError, "len: the tensor must have an axis"),
        (lambda x: [1, 2][x[0]], DTypeError, "index: the tensor must hold an integer, got float32"),
        (lambda x: x.to("nonsense"), DTypeError, "to: dtype must be .* got 'nonsense'"),
    ],
)
def test_numbers_out_of_other_tensors_are_refused(run, error, words):
    with pytest.raises(error, match=words):
        run(gn.tensor([1.0, 2.0]))


def test_text():
    assert repr(gn.tensor([1.0, 2.0])) == "tensor([1., 2.])"
    assert repr(gn.tensor([1, 2])) == "tensor([1, 2])"
    assert repr(gn.ones(2, dtype="float64")) == "tensor([1., 1.], dtype=float64)"
    x = gn.ones(1, requires_grad=True)
    assert repr(x) == "tensor([1.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2.], made_by=Mul)"
    assert str(gn.tensor(True)) == "tensor(True)"
    assert f"{gn.zeros(2)}" == "tensor([0., 0.])"
    assert repr(gn.eye(2)) == "tensor([[1., 0.],\n        [0., 1.]])"
    assert len(repr(gn.zeros(100, 100))) < 1000


def test_sizes():
    x = gn.zeros(2, 3)
    assert (x.shape, x.size(), x.size(-1), x.ndim, x.numel()) == ((2, 3), (2, 3), 3, 2, 6)
    assert x.T.shape == (3, 2)


def test_casts():
    x = gn.tensor([1.7, -1.7])
    assert x.to("int64").tolist() == [1, -1]
    assert x.double().dtype == np.float64
    assert x.float() is x
    assert x.long().dtype == np.int64
    assert x.to("cpu", "float64").dtype == np.float64
    assert x.to(dtype=np.float32, device="cpu") is x
    assert x.cpu() is x


def test_tensors_are_keys_by_identity():
    a, b = gn.ones(1), gn.ones(1)
    assert len({a, b, a}) == 2


def test_contiguous():
    x = gn.zeros(2, 3)
    assert x.contiguous() is x
    assert x.T.contiguous().data.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_the_dtype_is_numpys_own_object(dtype):
    """An equal one of its own is compared at length in every launch: 10 microseconds each."""
    own = np.dtype(dtype)
    other = own.newbyteorder("=")
    assert other == own
    for given in (np.ones(2, other), np.ones(2, own.newbyteorder(">")), np.ones(2, own)):
        assert gn.tensor(given).data.dtype is own
    assert gn.tensor([1, 0], dtype=dtype).data.dtype is own
