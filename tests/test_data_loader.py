"""Splitting and batching: every sample once, the same order from the same seed, and runs that resume exactly."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.data import DataLoader, load, train_val_test_split
from gpunet.data.order import SHUFFLE, shuffled
from gpunet.errors import ArgumentError, ShapeError

X = np.arange(23 * 6, dtype=np.float32).reshape(23, 1, 2, 3)
Y = np.arange(23)


def labels(loader) -> list[list[int]]:
    return [y.tolist() for _, y in loader]


# Orders --------------------------------------------------------------------------------------------------------------


def test_order_is_a_permutation_that_no_version_changes():
    # Recorded once: a change here would silently change every split, and every resumed run.
    assert shuffled(10, 0, SHUFFLE, 0).tolist() == [7, 6, 8, 3, 2, 4, 1, 5, 0, 9]
    assert shuffled(10, 0, SHUFFLE, 1).tolist() == [2, 5, 1, 8, 6, 7, 0, 4, 3, 9]
    assert sorted(shuffled(1000, 2**64 - 1, 7)) == list(range(1000))
    assert len(shuffled(0, 0)) == 0


# DataLoader ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("size", "drop", "sizes"), [
    (5, False, [5, 5, 5, 5, 3]), (5, True, [5] * 4), (23, True, [23]), (100, False, [23]), (1, False, [1] * 23),
])  # fmt: skip
def test_batches_hold_every_sample_once(shuffle, size, drop, sizes):
    loader = DataLoader((X, Y), size, shuffle=shuffle, seed=0, drop_last=drop)
    batches = list(loader)
    assert [len(y) for _, y in batches] == sizes
    assert len(loader) == len(sizes)
    for x, y in batches:
        np.testing.assert_array_equal(x, X[y], strict=True)  # a label is its sample's number
        assert x.flags.c_contiguous
        assert y.flags.c_contiguous
    seen = [label for _, y in batches for label in y]
    assert len(set(seen)) == len(seen) == sum(sizes)
    assert (seen == list(range(len(seen)))) != shuffle


def test_each_pass_has_its_own_order_and_the_seed_gives_it_again():
    one, two = (DataLoader((X, Y), 4, shuffle=True, seed=3) for _ in range(2))
    passes = [labels(one) for _ in range(3)]
    assert len({str(order) for order in passes}) == 3
    assert [labels(two) for _ in range(3)] == passes
    assert labels(DataLoader((X, Y), 4, shuffle=True, seed=4)) != passes[0]
    # The order does not hang on the batch size.
    wide = DataLoader((X, Y), 7, shuffle=True, seed=3)
    np.testing.assert_array_equal(np.concatenate(labels(wide)), np.concatenate(passes[0]))


def test_batches_are_copies():
    x = X.copy()
    for shuffle in (False, True):
        for batch, y in DataLoader((x, Y), 4, shuffle=shuffle, seed=0):
            batch[...] = -1
            y[...] = 0
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(Y, np.arange(23))


def test_batches_of_a_strided_array_are_contiguous():
    x = np.asfortranarray(np.random.default_rng(0).random((8, 3, 5, 4))).transpose(0, 1, 3, 2)
    for batch, y in DataLoader((x, np.arange(8)[::-1]), 3):
        assert batch.flags.c_contiguous
        np.testing.assert_array_equal(batch, x[7 - y])


def test_dataset_gives_its_training_part():
    data = load("digits8")
    assert len(DataLoader(data, 100)) == 15
    assert len(DataLoader(data.test, 100)) == 4
    x, y = next(iter(DataLoader(data, 100)))
    np.testing.assert_array_equal(x, data.x_train[:100], strict=True)
    np.testing.assert_array_equal(y, data.y_train[:100], strict=True)


def noisy(x, rng):
    x += rng.random(x.shape, dtype=np.float32)
    return x


def test_augment_is_new_each_batch_and_pass_and_repeats_with_the_seed():
    def run(seed, passes=2):
        loader = DataLoader((X * 0, Y), 8, augment=noisy, seed=seed)
        return [x for _ in range(passes) for x, _ in loader]

    first, again, other = run(0), run(0), run(1)
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[3])
    assert not np.array_equal(first[0], other[0])
    assert X.max() == 23 * 6 - 1


def test_augment_may_change_shape_and_layout_but_not_the_number():
    loader = DataLoader((X, Y), 8, augment=lambda x, rng: x.transpose(0, 1, 3, 2))
    x, _ = next(iter(loader))
    assert x.shape == (8, 1, 3, 2)
    assert x.flags.c_contiguous
    with pytest.raises(ShapeError, match="augment must return 8 samples"):
        next(iter(DataLoader((X, Y), 8, augment=lambda x, rng: x[1:])))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    size=st.integers(1, 12), stop=st.integers(0, 40), shuffle=st.booleans(), drop=st.booleans(), seed=st.integers(0, 9)
)
def test_resumed_run_sees_what_the_unbroken_run_sees(size, stop, shuffle, drop, seed):
    def make(seed):
        return DataLoader((X, Y), size, shuffle=shuffle, augment=noisy, seed=seed, drop_last=drop)

    whole = make(seed)
    unbroken = [batch for _ in range(4) for batch in whole]
    stop = min(stop, len(unbroken))

    seen, loader = [], make(seed)
    state = loader.state_dict()
    while len(seen) < stop:
        for batch in loader:
            seen.append(batch)
            state = loader.state_dict()
            if len(seen) == stop:
                break
    resumed = make(seed + 1)  # the state brings its own seed
    resumed.load_state_dict(json.loads(json.dumps(state)))
    assert resumed.state_dict() == state
    while len(seen) < len(unbroken):
        seen += list(resumed)
    assert len(seen) == len(unbroken)
    for (x, y), (want_x, want_y) in zip(seen, unbroken):
        np.testing.assert_array_equal(x, want_x)
        np.testing.assert_array_equal(y, want_y)


def test_loop_left_early_counts_as_a_pass():
    loader = DataLoader((X, Y), 5, shuffle=True, seed=0)
    second = labels_of_pass(1)
    next(iter(loader))
    assert loader.state_dict()["position"] == 5
    assert labels(loader) == second
    assert loader.epoch == 2


def labels_of_pass(number: int) -> list[list[int]]:
    loader = DataLoader((X, Y), 5, shuffle=True, seed=0)
    return [labels(loader) for _ in range(number + 1)][number]


def test_state_between_passes_points_at_the_next():
    loader = DataLoader((X, Y), 5, shuffle=True, seed=0)
    list(loader)
    assert loader.state_dict() == {"seed": 0, "epoch": 1, "position": 0, "samples": 23, "shuffle": True}
    other = DataLoader((X, Y), 5, shuffle=True, seed=9)
    other.load_state_dict(loader.state_dict())
    assert labels(other) == labels_of_pass(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": 22}, "samples=23"),
        ({"shuffle": False}, "shuffle=True"),
        ({"position": 23}, "position"),
        ({"position": -1}, "position"),
        ({"epoch": 0.5}, "epoch"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_state_is_refused_and_changes_nothing(change, words):
    loader = DataLoader((X, Y), 5, shuffle=True, seed=0)
    before = loader.state_dict()
    with pytest.raises(ArgumentError, match=words):
        loader.load_state_dict(before | change)
    with pytest.raises(ArgumentError, match="lacks"):
        loader.load_state_dict({})
    assert loader.state_dict() == before


def test_seed_is_drawn_from_the_global_generator():
    random = pytest.importorskip("gpunet.random")
    before = random.get_state()
    try:
        random.manual_seed(5)
        first, second = (DataLoader((X, Y), 5, shuffle=True) for _ in range(2))
        random.manual_seed(5)
        again = DataLoader((X, Y), 5, shuffle=True)
    finally:
        random.set_state(before)
    assert first.seed == again.seed != second.seed
    assert labels(first) == labels(again)


def test_bad_arguments():
    for batch_size in (0, -1, 2.5, "4"):
        with pytest.raises(ArgumentError, match="batch_size"):
            DataLoader((X, Y), batch_size)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"\(23, 1, 2, 3\).*\(22,\)"):
        DataLoader((X, Y[1:]), 4)
    with pytest.raises(ArgumentError, match="pair"):
        DataLoader(X, 4)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="at least one batch"):
        DataLoader((X, Y), 24, drop_last=True)
    with pytest.raises(ArgumentError, match="at least one batch"):
        DataLoader((X[:0], Y[:0]), 4)
    with pytest.raises(ArgumentError, match="seed"):
        DataLoader((X, Y), 4, seed=-1)
    assert repr(DataLoader((X, Y), 4, shuffle=True, seed=1)) == (
        "DataLoader(23 samples shuffled with seed 1, batch_size=4, 6 batches)"
    )


# train_val_test_split ------------------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    counts=st.lists(st.integers(7, 40), min_size=1, max_size=5),
    shares=st.sampled_from([(0.7, 0.15, 0.15), (0.6, 0.2, 0.2), (0.8, 0.0, 0.2), (1.0, 0.0, 0.0), (0.5, 0.5, 0.0)]),
    seed=st.integers(0, 2**64 - 1),
)
def test_split_is_disjoint_complete_and_balanced(counts, shares, seed):
    y = np.repeat(np.arange(len(counts)) * 3, counts)
    x = np.arange(len(y))
    parts = train_val_test_split(x, y, shares, seed)
    assert sorted(np.concatenate([part[0] for part in parts])) == x.tolist()
    for (part_x, part_y), share in zip(parts, shares):
        np.testing.assert_array_equal(part_y, y[part_x])
        for label, count in enumerate(counts):
            assert abs((part_y == label * 3).sum() - count * share) < 1
    again = train_val_test_split(x, y, shares, seed)
    for (a, _), (b, _) in zip(parts, again):
        np.testing.assert_array_equal(a, b)


def test_split_exact_shares_and_seeds():
    y = np.repeat([0, 1, 2], 100)
    x = np.arange(300.0).reshape(300, 1, 1)
    train, val, test = train_val_test_split(x, y)
    assert [np.bincount(part[1]).tolist() for part in (train, val, test)] == [[70] * 3, [15] * 3, [15] * 3]
    assert train[0].shape == (210, 1, 1)
    assert np.diff(train[1]).any() != np.all(np.diff(train[1]) >= 0)  # the classes are mixed
    other = train_val_test_split(x, y, seed=1)
    assert not np.array_equal(train[0], other[0][0])
    train[0][...] = -1
    assert x.min() == 0  # copies


def test_split_without_strata_takes_any_labels():
    y = np.random.default_rng(0).random(10)
    parts = train_val_test_split(y * 2, y, (0.5, 0.3, 0.2), stratify=False)
    assert [len(part[0]) for part in parts] == [5, 3, 2]
    for x, part in parts:
        np.testing.assert_array_equal(x, part * 2)
    with pytest.raises(ArgumentError, match="stratify=False"):
        train_val_test_split(y, y)


@pytest.mark.parametrize(
    "fractions",
    [(0.7, 0.2, 0.2), (0.7, 0.3), (0.5, 0.5, 0.1, -0.1), (1.2, -0.1, -0.1), (0, 0.5, 0.5), (float("nan"),) * 3],
)
def test_split_refuses_fractions(fractions):
    with pytest.raises(ArgumentError, match="fractions must"):
        train_val_test_split(Y, Y * 0, fractions)


def test_split_refuses_what_it_cannot_cut():
    y = np.array([0] * 20 + [7] * 2)
    with pytest.raises(ArgumentError, match=r"class 7 .*got 2"):
        train_val_test_split(np.arange(22), y)
    with pytest.raises(ArgumentError, match="got 1"):
        train_val_test_split(np.arange(1), np.zeros(1, int), stratify=False)
    for stratify in (True, False):
        with pytest.raises(ArgumentError, match="got none"):
            train_val_test_split(X[:0], Y[:0], stratify=stratify)
    with pytest.raises(ShapeError, match="one label for each"):
        train_val_test_split(X, Y[1:])
    with pytest.raises(ShapeError):
        train_val_test_split(X, np.zeros((23, 2), int))
    with pytest.raises(ArgumentError, match="seed"):
        train_val_test_split(X, Y * 0, seed=-1)


def test_split_names_the_classes_that_are_missing():
    y = np.repeat([0, 1, 3], 20)
    train_val_test_split(y, y)  # labels may be any integers
    with pytest.raises(ArgumentError, match=r"each of 5 classes must have samples, got none of \[2, 4\]"):
        train_val_test_split(y, y, classes=5)
    with pytest.raises(ArgumentError, match="labels must be from 0 to 2, got 3"):
        train_val_test_split(np.arange(80), np.append(y, np.full(20, 2)), classes=3)
    parts = train_val_test_split(np.arange(80), np.append(y, np.full(20, 2)), classes=4)
    assert [np.unique(part[1]).tolist() for part in parts] == [[0, 1, 2, 3]] * 3
