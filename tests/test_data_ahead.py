"""Batches made ahead by threads: the same ones, a bounded number, errors with their place, and no thread left over."""

import threading
import traceback
from collections.abc import Iterator

import numpy as np
import pytest

import gpunet as gn
from gpunet.data import DataLoader, augment
from gpunet.data.ahead import THREADS, made_ahead
from gpunet.errors import ArgumentError, ShapeError
from gpunet.train import LambdaCallback, Trainer

X = np.random.default_rng(0).random((46, 1, 9, 9), dtype=np.float32)
Y = np.arange(46)
STEPS = augment.compose(augment.flip(), augment.rotate(20), augment.shift(0.1), augment.noise(0.1))


def left_over() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]


@pytest.fixture(autouse=True)
def _no_thread_left_over() -> Iterator[None]:
    assert left_over() == []
    yield
    assert left_over() == []


def loader(**more) -> DataLoader:
    return DataLoader((X, Y), 6, shuffle=True, augment=STEPS, seed=3, **more)


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a, b) for one, two in zip(first, second) for a, b in zip(one, two)
    )


# The same batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "prefetch"), [(0, 1), (1, 1), (1, 9), (3, 1), (4, 20)])
def test_batches_are_the_same_with_any_number_of_threads(workers, prefetch):
    plain, ahead = loader(workers=0), loader(workers=workers, prefetch=prefetch)
    for _ in range(3):
        assert same(list(plain), list(ahead))
    assert (plain.epoch, ahead.epoch) == (3, 3)


def test_batches_do_not_hang_on_which_thread_is_first():
    x, y = np.ones((8, 1, 4, 4)) * np.arange(8)[:, None, None, None], np.arange(8)
    finished, others = [], threading.Event()

    def first_comes_last(x, rng):
        number = int(x[0, 0, 0, 0])
        if number == 0:
            assert others.wait(10)
        x = STEPS(x, rng)
        finished.append(number)
        if len(finished) == 3:
            others.set()
        return x

    plain = list(DataLoader((x, y), 2, augment=STEPS, seed=1, workers=0))
    assert same(plain, list(DataLoader((x, y), 2, augment=first_comes_last, seed=1, workers=4)))
    assert sorted(finished[:3]) == [2, 4, 6]
    assert finished[3] == 0


def test_labels_stay_with_their_images():
    x = np.ones((46, 1, 5, 5), np.float32) * np.arange(46, dtype=np.float32)[:, None, None, None]
    steps = augment.compose(augment.flip(), augment.rotate(90), augment.random_crop(4, padding=1, fill="nearest"))
    for images, labels in DataLoader((x, Y), 7, shuffle=True, augment=steps, seed=0, workers=2):
        np.testing.assert_allclose(images, x[labels][:, :, :4, :4], rtol=1e-5)


@pytest.mark.parametrize("stop", [0, 1, 5, 7, 8, 11])
def test_run_resumed_in_the_middle_of_a_pass_goes_on_exactly(stop):
    whole = [batch for each in [loader(workers=0)] for _ in range(2) for batch in each]
    first, seen = loader(workers=2, prefetch=5), []
    state = first.state_dict()
    while len(seen) < stop:
        for batch in first:
            seen.append(batch)
            state = first.state_dict()  # counts what was handed out, not what is made already
            if len(seen) == stop:
                break
    assert state["epoch"] * 46 + state["position"] == stop // 8 * 46 + stop % 8 * 6
    second = DataLoader((X, Y), 6, shuffle=True, augment=STEPS, seed=99, prefetch=1)
    second.load_state_dict(state)
    while len(seen) < len(whole):
        seen += list(second)
    assert same(seen, whole)


# Bounds, ends and errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "ahead", "most"), [(1, 1, 1), (1, 3, 3), (2, 1, 2), (2, 4, 4)])
def test_no_more_is_made_ahead_than_asked_for(workers, ahead, most):
    begun = threading.Semaphore(0)
    results = made_ahead(lambda job: begun.release() or job, ((job,) for job in range(20)), workers, ahead)
    for job in range(3):
        assert next(results) == job
        for _ in range(1 if job else most + 1):  # one is handed out, ``most`` are made ahead
            assert begun.acquire(timeout=10)
        assert not begun.acquire(timeout=0.05)
    results.close()
    assert left_over() == []


def test_batches_are_made_while_the_caller_works():
    second = threading.Event()

    def change(x, rng):
        if done:
            second.set()
        done.append(1)
        return x

    done = []
    for number, _ in enumerate(DataLoader((X, Y), 23, augment=change, seed=0)):
        if number == 0:
            assert second.wait(10)


def inverses(batches) -> list[float]:
    return [1 / (len(y) - 6) for _, y in batches]


def test_leaving_the_loop_ends_the_thread():
    for _ in loader():
        assert len(left_over()) == 1
        break
    assert left_over() == []
    with pytest.raises(ZeroDivisionError):
        inverses(loader(workers=2))
    assert left_over() == []
    batches = iter(loader())
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert left_over() == []


def test_forgotten_iterators_end_their_threads():
    kept = [iter(loader(workers=2)) for _ in range(3)]
    assert left_over() == []  # nothing begins before the first batch is asked for
    assert [len(next(each)) for each in kept] == [2, 2, 2]
    assert left_over()
    del kept
    assert left_over() == []


def faulty(x, rng):
    if x[0, 0, 0, 0] == 12:
        raise ZeroDivisionError("in my augmentation")
    return x


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_error_in_a_thread_reaches_the_caller_at_its_batch_with_its_traceback(workers):
    x = np.ones((20, 1, 2, 2)) * np.arange(20)[:, None, None, None]
    seen, data = [], DataLoader((x, np.arange(20)), 4, augment=faulty, workers=workers, prefetch=5)
    with pytest.raises(ZeroDivisionError, match="in my augmentation") as caught:
        seen.extend(y[0] for _, y in data)
    assert seen == [0, 4, 8]
    assert data.state_dict()["position"] == 12  # a run resumed from here meets that batch again
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "faulty"
    assert frames[-1].line == 'raise ZeroDivisionError("in my augmentation")'
    assert left_over() == []
    with pytest.raises(ShapeError, match="augment must return 4 samples"):
        next(iter(DataLoader((x, np.arange(20)), 4, augment=lambda x, rng: x[1:], workers=workers)))


def test_threads_are_used_only_for_augmentation_unless_asked_for():
    assert (loader().workers, DataLoader((X, Y), 6).workers, DataLoader((X, Y), 6, workers=2).workers) == (1, 0, 2)
    for more in ({"workers": -1}, {"workers": 1.5}, {"prefetch": 0}):
        with pytest.raises(ArgumentError, match=next(iter(more))):
            loader(**more)
    with pytest.raises(ArgumentError, match="augment must be a function"):
        DataLoader((X, Y), 6, augment=3)  # type: ignore[arg-type]


# Training -------------------------------------------------------------------------------------------------------------


def trainer() -> Trainer:
    gn.manual_seed(0)
    model = gn.nn.Sequential(gn.nn.Flatten(), gn.nn.Linear(81, 2))
    return Trainer(model, gn.optim.SGD(model.parameters(), lr=0.1), "cross_entropy")


def test_fit_trains_on_augmented_batches_and_validates_on_plain_ones():
    seen = []

    def brighter(x, rng):
        seen.append(x.copy())
        return x + 5

    one, judged = trainer(), []
    judge = LambdaCallback(on_epoch_end=lambda epoch, logs: judged.append(one.evaluate(X[37:], Y[37:] % 2)["loss"]))
    history = one.fit(
        X, Y % 2, epochs=2, batch_size=6, validation_split=0.2, augment=brighter, callbacks=[judge], verbose=0
    )
    np.testing.assert_allclose(history.history["val_loss"], judged, rtol=1e-5)
    kept = {image.tobytes() for image in X[:37]}
    look, *batches = seen  # one sample is looked at before the run
    assert len(look) == 1
    assert sorted(image.tobytes() for image in np.concatenate(batches)) == sorted([*kept, *kept])
    plain = trainer().fit(X, Y % 2, epochs=2, batch_size=6, validation_split=0.2, verbose=0)
    assert plain.batch_losses != history.batch_losses


def test_fit_repeats_with_the_seed_and_equals_a_loader():
    runs = [trainer().fit(X, Y % 2, epochs=2, batch_size=6, augment=STEPS, verbose=0).batch_losses for _ in range(2)]
    assert runs[0] == runs[1]
    given = []
    for workers in (0, 3):
        data = DataLoader((X, Y % 2), 6, shuffle=True, augment=STEPS, seed=8, workers=workers)
        given.append(trainer().fit(data, epochs=2, verbose=0).batch_losses)
    assert given[0] == given[1] != runs[0]
    with pytest.raises(ArgumentError, match="got augment too"):
        trainer().fit(loader(), augment=STEPS)


def test_error_or_stop_in_the_middle_of_training_leaves_no_thread():
    def fail(batch, logs):
        raise RuntimeError("from a callback")

    with pytest.raises(RuntimeError, match="from a callback"):
        trainer().fit(X, Y % 2, batch_size=6, augment=STEPS, callbacks=[LambdaCallback(on_batch_end=fail)], verbose=0)
    assert left_over() == []
    one = trainer()
    stop_now = LambdaCallback(on_batch_end=lambda batch, logs: one.stop())
    one.fit(X, Y % 2, batch_size=6, augment=STEPS, callbacks=[stop_now], verbose=0)
    assert len(one.history.batch_losses) == 1
    assert left_over() == []
