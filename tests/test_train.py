"""gpunet.train: fit, evaluate and predict, what callbacks see, what is refused, and that a seed fixes every bit."""

import math
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import data, nn, optim
from gpunet import functional as F
from gpunet.errors import ArgumentError, DTypeError, GpunetError, ShapeError
from gpunet.train import Callback, LambdaCallback, TerminateOnNaN, Trainer
from gpunet.train.measures import LOSSES

X = np.random.Generator(np.random.Philox(0)).standard_normal((40, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)  # three classes
IMAGES = X[:, :4].reshape(40, 1, 2, 2)


def model(drop: float = 0.0, seed: int = 0) -> Any:
    gn.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(drop), nn.BatchNorm1d(8), nn.Linear(8, 3))


def trainer(net: Any = None, loss: Any = "cross_entropy", lr: float = 0.05, **more: Any) -> Trainer:
    net = model() if net is None else net
    return Trainer(net, optim.SGD(net.parameters(), lr=lr), loss, **more)


def fit(one: Trainer, *args: Any, **more: Any) -> Any:
    run: Any = one.fit
    return run(*(args or (X, Y)), **{"verbose": 0, "batch_size": 8, **more})


def small_cnn() -> Any:
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 3))


# ------------------------------------------------------------------------------------------------------- fit


def test_fit_learns_and_keeps_its_history():
    history = fit(trainer(lr=0.2), epochs=30, validation_split=0.25)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(len(values) == 30 for values in history.history.values())
    assert history.epochs == list(range(30))
    assert len(history.seconds) == 30
    assert len(history.batch_losses) == 30 * 4  # 30 of 40 samples in batches of 8
    assert history.last["loss"] < 0.5 * history.history["loss"][0]
    assert history.last["accuracy"] > 0.8
    assert history.stopped is None
    assert "30 epochs" in repr(history)


def test_an_epochs_loss_is_the_mean_over_samples():
    history = fit(trainer(), batch_size=16)  # 16, 16, 8
    first, second, third = history.batch_losses
    assert history.last["loss"] == pytest.approx((16 * first + 16 * second + 8 * third) / 40, rel=1e-12)


def test_fit_is_what_a_plain_loop_does():
    net = model()
    one = trainer(net)
    history = fit(one, epochs=2, shuffle=False)
    other = model()
    optimizer = optim.SGD(other.parameters(), lr=0.05)
    losses = []
    for _ in range(2):
        for start in range(0, 40, 8):
            optimizer.zero_grad()
            loss = F.cross_entropy(other(gn.tensor(X[start : start + 8])), gn.tensor(Y[start : start + 8]))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert history.batch_losses == losses
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value.data, net.state_dict()[name].data)


def test_the_same_seed_gives_the_same_bits():
    def run(seed: int) -> tuple[Any, bytes]:
        net = model(drop=0.5, seed=seed)
        history = fit(trainer(net), epochs=3, validation_split=0.2)
        return (history.history, history.batch_losses), net.state_dict()["0.weight"].data.tobytes()

    first = run(3)
    assert run(3) == first
    assert run(4) != first


def test_each_epoch_has_its_own_order_and_every_sample_once():
    seen: list[float] = []

    def loss(output: Any, target: Any) -> Any:
        seen.extend(target.data.tolist())
        return (output * 0).sum()

    net = nn.Linear(6, 1)
    fit(trainer(net, loss, metrics=()), X, np.arange(40), epochs=2)
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert seen[:40] != seen[40:]
    seen.clear()
    fit(trainer(net, loss, metrics=()), X, np.arange(40), epochs=2, shuffle=False)
    assert seen == [*range(40), *range(40)]


def test_validation_split_takes_the_last_samples():
    seen: set[float] = set()

    def metric(output: Any, target: Any) -> float:
        if output.requires_grad is False and not one.model.training:
            seen.update(target.data.tolist())
        return 0.0

    one = trainer(nn.Linear(6, 1), lambda output, target: (output * 0).sum(), metrics=(metric,))
    history = fit(one, X, np.arange(40), validation_split=0.25)
    assert seen == set(range(30, 40))
    assert set(history.last) == {"loss", "metric", "val_loss", "val_metric"}


def test_validation_data_is_judged_as_evaluate_does():
    one = trainer()
    history = fit(one, epochs=2, validation_data=(X[:9], Y[:9]))
    judged = {f"val_{name}": value for name, value in one.evaluate(X[:9], Y[:9], batch_size=8).items()}
    assert judged.items() < history.last.items()


def test_a_data_loader_decides_batches_and_order():
    loader = data.DataLoader((X, Y), 8, shuffle=True, seed=5)
    first = fit(trainer(), loader, epochs=2)
    second = fit(trainer(), data.DataLoader((X, Y), 8, shuffle=True, seed=5), epochs=2)
    assert first.batch_losses == second.batch_losses
    assert loader.epoch == 2


def test_augmentation_through_a_loader_may_make_floats_of_bytes():
    loader = data.DataLoader(((IMAGES > 0).astype(np.uint8), Y), 8, augment=lambda x, rng: x.astype(np.float32))
    assert len(fit(trainer(small_cnn()), loader).batch_losses) == 5


def test_samples_may_be_tensors_lists_or_float64():
    given = ((X, Y), (gn.tensor(X), gn.tensor(Y)), (X.astype(float), Y.tolist()))
    losses = [fit(trainer(), x, y).batch_losses for x, y in given]
    assert losses[0] == losses[1] == losses[2]


def test_a_model_in_float64_gets_float64():
    net = model().double()
    dtypes = []
    fit(trainer(net, metrics=(lambda output, target: dtypes.append(output.dtype) or 0.0,)))
    assert set(dtypes) == {np.dtype(np.float64)}


@pytest.mark.parametrize("loss", [*LOSSES, nn.CrossEntropyLoss(label_smoothing=0.1)])
def test_every_loss_runs(loss):
    net = nn.Sequential(nn.Linear(6, 3), nn.Sigmoid())
    labels = isinstance(loss, nn.Module) or loss in ("cross_entropy", "nll")
    y = Y if labels else (X[:, :3] > 0).astype(np.float32)
    metrics = ("accuracy",) if labels else ("mse", "mae")
    assert math.isfinite(fit(trainer(net, loss, metrics=metrics), X, y).last["loss"])


def test_a_regularizer_is_part_of_the_loss():
    def penalty(net: Any) -> Any:
        return 10 + 0.1 * sum((p**2).sum() for p in net.parameters())

    plain, held = trainer(model()), trainer(model(), regularizer=penalty)
    expected = plain.evaluate(X, Y)["loss"] + penalty(held.model).item()
    assert held.evaluate(X, Y)["loss"] == pytest.approx(expected, rel=1e-5)
    size = {}
    for name, one in (("plain", plain), ("held", held)):
        fit(one, epochs=10)
        size[name] = float((one.model.state_dict()["0.weight"].data ** 2).sum())
    assert size["held"] < size["plain"]


def test_initial_epoch_counts_on():
    history = fit(trainer(), epochs=5, initial_epoch=3)
    assert history.epochs == [3, 4]
    assert len(fit(trainer(), epochs=2, initial_epoch=2)) == 0


# ------------------------------------------------------------------------------------------------------- judge


def test_evaluate_and_predict_agree_and_batches_do_not_matter():
    one = trainer(model(drop=0.5))
    outputs = one.predict(X)
    assert isinstance(outputs, np.ndarray)
    assert outputs.shape == (40, 3)
    np.testing.assert_allclose(one.predict(X, batch_size=7), outputs, rtol=1e-5, atol=1e-6)
    result = one.evaluate(X, Y, batch_size=7)
    assert result["accuracy"] == (outputs.argmax(1) == Y).mean()
    loss = F.cross_entropy(gn.tensor(outputs), gn.tensor(Y)).item()
    assert result["loss"] == pytest.approx(loss, rel=1e-5)


def test_predict_takes_no_samples():
    assert trainer().predict(X[:0]).shape == (0, 3)


def test_modes_are_restored_part_by_part():
    net = model(drop=0.5)
    net[3].eval()  # a frozen BatchNorm in a model that trains
    before = [module.training for module in net.modules()]
    running = net[3].running_mean.data.copy()
    one = trainer(net)
    one.predict(X)
    one.evaluate(X, Y)
    fit(one)
    assert [module.training for module in net.modules()] == before
    np.testing.assert_array_equal(net[3].running_mean.data, running)
    net.eval()
    modes = []
    fit(one, callbacks=[LambdaCallback(on_batch_end=lambda batch, logs: modes.append(net.training))])
    assert modes == [True] * 5
    assert not any(module.training for module in net.modules())


def test_modes_are_restored_after_an_error():
    net = model()
    with pytest.raises(GpunetError):
        trainer(net).predict(X[:, :5])
    assert all(module.training for module in net.modules())


def test_nothing_of_the_graph_is_kept():
    one = trainer()
    fit(one)
    one.evaluate(X, Y)
    assert gn.is_grad_enabled()
    assert all(parameter._node is None for parameter in one.model.parameters())


# ------------------------------------------------------------------------------------------------------- callbacks


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def on_train_begin(self, logs=None):
        self.calls.append(("train begin", logs))

    def on_train_end(self, logs=None):
        self.calls.append(("train end", sorted(logs)))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch begin", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch end", (epoch, sorted(logs))))

    def on_batch_begin(self, batch, logs=None):
        self.calls.append(("batch begin", batch))

    def on_batch_end(self, batch, logs=None):
        self.calls.append(("batch end", (batch, sorted(logs), type(logs["loss"]))))


def test_callbacks_are_called_in_order():
    recorder = Recorder()
    one = trainer()
    fit(one, epochs=1, batch_size=20, callbacks=[recorder], validation_data=(X, Y))
    names = ["accuracy", "loss"]
    end = ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert recorder.calls == [
        ("train begin", None), ("epoch begin", 0),
        ("batch begin", 0), ("batch end", (0, names, float)), ("batch begin", 1), ("batch end", (1, names, float)),
        ("epoch end", (0, end)), ("train end", end),
    ]  # fmt: skip
    assert recorder.trainer is one
    assert recorder.model is one.model


def test_a_lambda_callback_calls_what_it_was_given():
    seen = []
    both = {"on_train_begin": lambda logs: seen.append("begin"), "on_epoch_end": lambda epoch, logs: seen.append(epoch)}
    fit(trainer(), epochs=2, callbacks=[LambdaCallback(**both)])
    assert seen == ["begin", 0, 1]
    with pytest.raises(ArgumentError, match=r"must be one of on_train_begin.*got 'on_epoch'"):
        LambdaCallback(on_epoch=lambda: None)
    with pytest.raises(ArgumentError, match="on_epoch_end must be a function, got 3"):
        LambdaCallback(on_epoch_end=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["method", "attribute"])
def test_a_callback_can_stop_the_run(by):
    def stop(batch: int, logs: Any) -> None:
        if batch == 2 and by == "method":
            one.stop("enough")
        elif batch == 2:
            one.stop_training = True

    one = trainer()
    history = fit(one, epochs=5, validation_data=(X, Y), callbacks=[LambdaCallback(on_batch_end=stop)])
    assert len(history) == 1
    assert len(history.batch_losses) == 3
    assert {len(values) for values in history.history.values()} == {1}
    assert history.stopped == ("enough" if by == "method" else "stop_training was set")
    assert len(fit(one, epochs=2)) == 2  # the next run starts afresh


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_terminate_on_nan_names_the_batch(bad):
    count = 0

    def loss(output: Any, target: Any) -> Any:
        nonlocal count
        count += 1
        return (output * 0).sum() + (bad if count == 8 else 1.0)

    with pytest.warns(RuntimeWarning, match=rf"the loss is {bad} in epoch 2, batch 3, training ends here; lower the"):
        history = fit(trainer(loss=loss), epochs=5, callbacks=[TerminateOnNaN()])
    assert len(history.batch_losses) == 8
    assert history.stopped == f"the loss is {bad} in epoch 2, batch 3"


def test_without_it_a_nan_stands_in_the_history():
    history = fit(trainer(loss=lambda output, target: (output * 0).sum() + float("nan")), epochs=2)
    assert all(math.isnan(value) for value in history.history["loss"])


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X[:0], Y[:0], ArgumentError, r"fit: x must hold at least one sample, got shape \(0, 6\)"),
        (X, Y[:-1], ShapeError, r"one target for each sample of x, got x \(40, 6\) and y \(39,\)"),
        (X, None, ArgumentError, "y must be given with x"),
        (np.uint8(X > 0), Y, DTypeError, r"x must be floating, got uint8; .*astype\('float32'\) / 255"),
        (np.int64(X), Y, DTypeError, "x must be floating, got int64"),
        (X, Y + 1, GpunetError, r"cross_entropy: .*3"),
        (X, Y - 1, GpunetError, "cross_entropy: .*-1"),
        (X, Y.astype(str), DTypeError, "y must be integers or floats"),
        (X[:, :5], Y, ShapeError, "linear"),
        (np.float32(3), Y, ShapeError, "axis of samples"),
    ],
)
def test_wrong_data_is_refused(x, y, error, message):
    with pytest.raises(error, match=message):
        fit(trainer(), x, y)


def test_wrong_images_are_refused_before_training():
    one = trainer(small_cnn())
    with pytest.raises(ShapeError, match=r"4 axes \(N, C, H, W\).*Conv2d, got 3 in shape \(40, 2, 2\).*x\[:, None\]"):
        fit(one, IMAGES[:, 0], Y)
    with pytest.raises(ShapeError, match=r"1 channels.*got 2 in shape \(40, 2, 2, 1\).*x\.transpose\(0, 3, 1, 2\)"):
        fit(one, IMAGES.transpose(0, 2, 3, 1), Y)
    for judge in (one.predict, lambda x: one.evaluate(x, Y)):
        with pytest.raises(ShapeError, match="4 axes"):
            judge(IMAGES[:, 0])
    assert fit(one, IMAGES, Y)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"validation_split": 1.0}, r"validation_split must be from 0 to below 1, got 1\.0"),
        ({"validation_split": -0.1}, "validation_split must be"),
        ({"validation_split": float("nan")}, "validation_split must be"),
        ({"validation_split": 0.01}, r"both parts must hold at least one sample, got validation_split=0\.01 of 40"),
        ({"validation_split": 0.5, "validation_data": (X, Y)}, "got both"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, r"epochs must be a whole number of at least 1, got 1\.5"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"initial_epoch": -1}, "initial_epoch must be"),
        ({"callbacks": [print]}, "callbacks must be gpunet.train.Callback instances"),
    ],
)
def test_wrong_settings_are_refused(more, message):
    with pytest.raises(ArgumentError, match=message):
        fit(trainer(), **more)


def test_wrong_trainers_are_refused():
    net = model()
    sgd = optim.SGD(net.parameters(), lr=0.1)
    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((net, sgd, "hinge"), "loss must be a function or one of cross_entropy, .*got 'hinge'"),
        ((net, sgd, "mse", ("f1",)), "a metric must be a function or one of accuracy, mse, mae, got 'f1'"),
        ((net, sgd, "mse", "mae"), "metrics must be a list, got the string 'mae'"),
        ((net, sgd, "mse", ("mae", "mae")), "names must differ"),
        ((net, None, "mse"), r"optimizer must have step\(\) and zero_grad\(\)"),
        ((lambda x: x, sgd, "mse"), "model must be a gn.nn.Module"),
    ]
    for args, message in wrong:
        with pytest.raises(ArgumentError, match=message):
            Trainer(*args)


def test_wrong_measures_are_refused():
    with pytest.raises(ShapeError, match=r"the loss must be a tensor of one number, got shape \(8, 3\)"):
        fit(trainer(loss=lambda output, target: output))
    with pytest.raises(ShapeError, match=r"accuracy: .*pass metrics=\('mae',\)"):
        fit(trainer(nn.Linear(6, 1), "mse"), X, X[:, :1])
    with pytest.raises(ShapeError, match=r"mae: output and target must have one shape, got \(8, 1\) and \(8,\)"):
        fit(trainer(nn.Linear(6, 1), lambda o, t: (o * 0).sum(), metrics=("mae",)), X, X[:, 0])

    def rows(output: Any, target: Any) -> Any:
        return output.sum(1)

    with pytest.raises(ArgumentError, match="rows must be one number for a batch"):
        fit(trainer(metrics=(rows,)))


def test_a_loader_comes_alone():
    loader = data.DataLoader((X, Y), 8)
    with pytest.raises(ArgumentError, match="without y and validation_split"):
        fit(trainer(), loader, Y)
    with pytest.raises(DTypeError, match="x must be floating"):
        fit(trainer(), data.DataLoader((X.astype(np.int64), Y), 8))
