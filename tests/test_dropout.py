"""Dropout: the published answers of Philox, the rule of the mask, its statistics, and that backward draws it again.

The bounds on statistics are five standard deviations of an ideal random source: a fair source is outside once in
1.7 million tries, and as the numbers are fixed by the seed, a test that passes once passes always.
"""

import math

import numpy as np
import pytest
from gpunet.kernels.common.philox import philox4x32_10, stream_words
from gpunet.kernels.dropout.dropout_numpy import CHUNK, dropout_forward_reference

import gpunet as gn
import gpunet.functional as F
from gpunet import random
from gpunet.errors import GpunetError

SIGMAS = 5
LOW = 0xFFFFFFFF


@pytest.fixture(autouse=True)
def _definition():
    with gn.use_backend("numpy"):
        yield


def philox_of_integers(counter, key):
    """Philox4x32-10 for one counter in Python's integers, straight from the paper's description."""
    (a, b, c, d), (k0, k1) = counter, key
    for turn in range(10):
        if turn:
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = second // 2**32 ^ b ^ k0, second % 2**32, first // 2**32 ^ d ^ k1, first % 2**32
    return [a, b, c, d]


def word_of_mask(m, seed, op):
    """The word that decides about mask ``m``, as kernels/dropout/__init__.py describes it."""
    block = m // 4
    counter = (block % 2**32, block // 2**32, seed // 2**32, op // 2**32)
    return philox_of_integers(counter, (seed % 2**32, op % 2**32))[m % 4]


# ---------------------------------------------------------------------------------------------------------- Philox

#: the three vectors published with the Random123 library: counter, key, answer
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((LOW, LOW, LOW, LOW), (LOW, LOW), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_published_answers(counter, key, answer):
    words = philox4x32_10(counter, key)
    assert words.dtype == np.uint32
    assert tuple(words.tolist()) == answer
    assert tuple(philox_of_integers(counter, key)) == answer  # the oracle of the other tests is right as well


def test_philox_of_many_counters_is_philox_of_each():
    rng = np.random.default_rng(3)
    counters = rng.integers(0, 2**32, (4, 2, 5), dtype=np.uint32)
    words = philox4x32_10(counters, (7, LOW))
    assert words.shape == (2, 5, 4)
    for at in np.ndindex(2, 5):
        assert words[at].tolist() == philox_of_integers([int(counters[k][at]) for k in range(4)], (7, LOW))
    mixed = philox4x32_10((counters[0], 1, 2, 3), (0, 0))
    assert mixed[1, 4].tolist() == philox_of_integers((int(counters[0, 1, 4]), 1, 2, 3), (0, 0))


def test_stream_words_carry_into_the_high_word_of_the_block():
    seed, op, first = 0x123456789ABCDEF0, 0xFEDCBA9876543210, 2**32 - 2
    words = stream_words(first, 4, seed=seed, op=op)
    assert words.tolist() == [word_of_mask(m, seed, op) for m in range(4 * first, 4 * first + 16)]
    last = stream_words(2**64 - 1, 1, seed=seed, op=op)
    assert last.tolist() == [word_of_mask(m, seed, op) for m in range(2**66 - 4, 2**66)]


def test_stream_words_can_be_drawn_in_parts():
    whole = stream_words(0, 50, seed=5, op=6)
    np.testing.assert_array_equal(stream_words(13, 7, seed=5, op=6), whole[52:80])


# -------------------------------------------------------------------------------------------------- the mask's rule


@pytest.mark.parametrize(("seed", "op"), [(0, 0), (2**64 - 1, 3), (5, 2**40 + 1)])
@pytest.mark.parametrize(("shape", "span"), [((37,), 1), ((3, 5, 2), 1), ((3, 2, 2, 2), 4), ((7, 2), 3)])
def test_the_mask_follows_its_rule(seed, op, shape, span):
    x = np.arange(1.0, math.prod(shape) + 1).reshape(shape)
    for p in (0.1, 0.5, 0.9):
        y = dropout_forward_reference(x, p=p, seed=seed, op=op, span=span)
        for e, (before, after) in enumerate(zip(x.ravel(), y.ravel())):
            dropped = word_of_mask(e // span, seed, op) < round(p * 2**32)
            assert after == (0 if dropped else before * (1 / (1 - p)))


def test_the_mask_has_no_seam_where_the_kernel_begins_a_new_chunk():
    size = 4 * CHUNK + 9
    y = dropout_forward_reference(np.ones(size), p=0.5, seed=8, op=9)
    kept = stream_words(0, CHUNK + 3, seed=8, op=9)[:size] >= 2**31
    np.testing.assert_array_equal(y, 2.0 * kept)


def test_dtype_and_strides_do_not_matter():
    x = np.random.default_rng(1).standard_normal((6, 7, 8))
    key = {"p": 0.4, "seed": 1, "op": 2}
    wanted = dropout_forward_reference(x, **key)
    single = dropout_forward_reference(x.astype("f4"), **key)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single == 0, wanted == 0)
    np.testing.assert_allclose(single, wanted, rtol=1e-6)
    turned = np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(dropout_forward_reference(turned, **key), wanted)
    np.testing.assert_array_equal(
        dropout_forward_reference(x[:, ::2], **key), dropout_forward_reference(x[:, ::2].copy(), **key)
    )


def test_probabilities_that_32_bits_cannot_tell_from_0_and_1():
    x = np.array([3.0, np.inf])
    np.testing.assert_allclose(dropout_forward_reference(x, p=2.0**-40, seed=0, op=0), x, rtol=2.0**-39)
    with np.errstate(all="raise"):
        y = dropout_forward_reference(x, p=1 - 2.0**-40, seed=0, op=0)
    np.testing.assert_array_equal(y, [0.0, np.nan])


# ------------------------------------------------------------------------------------------------------- statistics

COUNT = 200_000


def kept(p, seed=11, op=0, count=COUNT):
    """1.0 for each element that was kept."""
    return (dropout_forward_reference(np.ones(count, "f4"), p=p, seed=seed, op=op) != 0).astype(float)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.75, 0.99])
def test_the_share_kept_is_binomial(p):
    # The number kept has mean n * (1 - p) and variance n * p * (1 - p).
    assert abs(kept(p).sum() - COUNT * (1 - p)) < SIGMAS * math.sqrt(COUNT * p * (1 - p))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_expected_value_is_kept(p):
    # y = 1 / (1 - p) with probability 1 - p has variance p / (1 - p).
    y = dropout_forward_reference(np.ones(COUNT), p=p, seed=4, op=4)
    assert abs(y.mean() - 1) < SIGMAS * math.sqrt(p / (1 - p) / COUNT)


def correlation(a, b):
    """The sample correlation; of n independent pairs it has mean 0 and, for large n, standard deviation 1/sqrt(n)."""
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8, 32, 1024])
def test_neighbours_are_independent(lag):
    mask = kept(0.5)
    assert abs(correlation(mask[:-lag], mask[lag:])) < SIGMAS / math.sqrt(COUNT - lag)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"op": 0}, {"op": 1}), ({"op": 0}, {"op": 2**32}), ({"op": 1}, {"op": 2**31}), ({"seed": 0}, {"seed": 1}),
        ({"seed": 0}, {"seed": 2**32}), ({"seed": 2, "op": 1}, {"seed": 1, "op": 2}),
    ],
)  # fmt: skip
def test_ops_and_seeds_are_independent(one, other):
    a, b = kept(0.5, **one), kept(0.5, **other)
    assert abs(correlation(a, b)) < SIGMAS / math.sqrt(COUNT)


# ------------------------------------------------------------------------------------------------------------ the op


def gradient_of(y, x):
    (gx,) = gn.grad(y, x, gn.ones_like(y), create_graph=True)
    return gx


def test_backward_draws_the_same_mask_again():
    x = gn.ones(5, 33, requires_grad=True)
    y = F.dropout(x, 0.3)
    np.testing.assert_array_equal(gradient_of(y, x).detach().numpy(), y.detach().numpy())
    again = F.dropout(x, 0.3)
    assert (again.detach().numpy() != y.detach().numpy()).any()  # a call of its own, with a mask of its own
    np.testing.assert_array_equal(gradient_of(again, x).detach().numpy(), again.detach().numpy())


def test_backward_stores_nothing_and_launches_the_same_entry():
    x = gn.ones(4, 4, requires_grad=True)
    with gn.trace() as launches:
        y = F.dropout(x)
        assert y._node.saved == ()
        y.sum().backward()
    assert [(each.phase, each.entry) for each in launches] == [
        ("forward", "dropout.forward"), ("backward", "dropout.forward")
    ]  # fmt: skip


def test_the_second_derivative_runs_through_the_same_mask():
    x = gn.tensor(np.arange(1.0, 41.0), requires_grad=True)
    y = F.dropout(x, 0.5)
    factor = y.detach().numpy() / x.detach().numpy()
    v = gn.ones(40, dtype="float64", requires_grad=True)
    (gx,) = gn.grad(y, x, v, create_graph=True)
    (gv,) = gn.grad((gx * gx).sum(), v)
    np.testing.assert_allclose(gv.numpy(), 2 * factor**2)


@pytest.mark.parametrize("op", [F.dropout, F.dropout2d])
def test_without_training_or_with_p_0_it_is_x_itself(op):
    x = gn.tensor(np.full((2, 3, 4, 4), np.nan))
    state = random.get_state()["ops"]
    assert op(x, 0.5, training=False) is x
    assert op(x, 1.0, False) is x
    assert op(x, 0.0) is x
    assert random.get_state()["ops"] == state  # and the next call gets the mask it would have got


@pytest.mark.parametrize("op", [F.dropout, F.dropout2d])
def test_with_p_1_everything_is_multiplied_by_0(op):
    x = gn.tensor(np.array([1.0, -1.0, np.inf, np.nan]).reshape(1, 1, 2, 2), requires_grad=True)
    y = op(x, 1)
    np.testing.assert_array_equal(y.detach().numpy().ravel(), [0.0, 0.0, np.nan, np.nan])
    np.testing.assert_array_equal(gradient_of(y, x).detach().numpy(), 0.0)


def test_the_seed_begins_the_sequence_of_masks_anew():
    x = gn.ones(64)
    gn.manual_seed(5)
    first = [F.dropout(x).tolist() for _ in range(3)]
    gn.manual_seed(5)
    assert [F.dropout(x).tolist() for _ in range(3)] == first
    gn.manual_seed(6)
    assert F.dropout(x).tolist() not in first
    assert len({tuple(each) for each in first}) == 3


def test_the_op_number_counts_the_calls():
    gn.manual_seed(9)
    x = gn.ones(30, dtype="float64")
    for number in range(3):
        wanted = dropout_forward_reference(x.data, p=0.5, seed=9, op=number)
        np.testing.assert_array_equal(F.dropout(x).numpy(), wanted)


def test_a_refused_call_takes_no_mask():
    state = random.get_state()["ops"]
    for call in (lambda: F.dropout(gn.ones(2), 2.0), lambda: F.dropout2d(gn.ones(2)), lambda: F.dropout(gn.arange(2))):
        with pytest.raises(GpunetError, match="dropout"):
            call()
    assert random.get_state()["ops"] == state


def test_dropout2d_drops_whole_channels():
    x = gn.rand(20, 16, 3, 5, dtype="float64", requires_grad=True)
    y = F.dropout2d(x, 0.25)
    ratio = (y.detach().numpy() / x.detach().numpy()).reshape(320, 15)
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(15, axis=1), rtol=1e-15)
    dropped = int((ratio[:, 0] == 0).sum())
    assert abs(dropped - 320 * 0.25) < SIGMAS * math.sqrt(320 * 0.25 * 0.75)
    np.testing.assert_allclose(gradient_of(y, x).detach().numpy().reshape(320, 15), ratio)
    gn.manual_seed(0)  # the tests' seed: channel k of dropout2d is element k of dropout
    channels = F.dropout(gn.ones(20, 16, dtype="float64"), 0.25).numpy().ravel()
    np.testing.assert_allclose(channels, ratio[:, 0], rtol=1e-15)


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3)])
def test_nothing_can_be_dropped_from_nothing(shape):
    for op in (F.dropout, F.dropout2d):
        x = gn.zeros(*shape, requires_grad=True)
        op(x).sum().backward()
        assert x.grad is not None
        assert x.grad.shape == shape
    assert F.dropout(gn.tensor(1.0), 0.5).item() in (0.0, 2.0)
