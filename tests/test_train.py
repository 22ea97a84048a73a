"""gpunet.train: fit, evaluate and predict, and that a seed fixes every bit."""

import math
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import data, nn, optim
from gpunet import functional as F
from gpunet.errors import GpunetError
from gpunet.train import LambdaCallback
from gpunet.train.measures import LOSSES
from tests.training import IMAGES, X, Y, fit, model, small_cnn, trainer

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
