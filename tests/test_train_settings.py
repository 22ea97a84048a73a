"""What a run can be told: checks of every value, defaults that fit each other, schedules and augmentations as text."""

import numpy as np
import pytest

from gpunet import config
from gpunet.data.augment.named import POLICIES, STEPS, named
from gpunet.errors import ArgumentError
from gpunet.train import recipes
from gpunet.train.schedules import SCHEDULES, Schedule


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", "nope", "model must be one of reference_cnn, lenet5, .*got 'nope'"),
        ("data", "nope", "data must be one of digits8, .*got 'nope'"),
        ("optimizer", "lion", "optimizer must be one of gd, sgd, .*got 'lion'"),
        ("epochs", 0, "epochs must be a whole number of at least 1, got 0"),
        ("epochs", 2.5, "epochs must be a whole number of at least 1, got 2.5"),
        ("epochs", True, "epochs must be a whole number of at least 1, got True"),
        ("epochs", "5", "epochs must be a whole number of at least 1, got '5'"),
        ("batch_size", 0, "batch-size must be a whole number of at least 1, got 0"),
        ("lr", float("nan"), "lr must be a number of at least 0, got nan"),
        ("lr", float("inf"), "lr must be a number of at least 0, got inf"),
        ("lr", -1, "lr must be a number of at least 0, got -1"),
        ("lr", [1], r"lr must be a number of at least 0, got \[1\]"),
        ("momentum", 1.0, "momentum must be a number from 0 to below 1, got 1.0"),
        ("dropout", 1, "dropout must be a number from 0 to below 1, got 1"),
        ("label_smoothing", 1.5, "label-smoothing must be a number from 0 to below 1, got 1.5"),
        ("validation", 1, "validation must be a number from 0 to below 1, got 1"),
        ("early_stop", -1, "early-stop must be a whole number of at least 0, got -1"),
        ("seed", 2**64, f"seed must be a whole number from 0 to below {2**64}, got {2**64}"),
        ("monitor", "loss", "monitor must be one of val_loss, val_accuracy, got 'loss'"),
        ("model", 3, "model must be text, got 3"),
        ("schedule", "cosin", "schedule must be one of none, cosine, .*plateau, got 'cosin'"),
        ("schedule", "step:size=3", "schedule must be step:option=value with options out of step_size, gamma, got"),
        ("schedule", "none:gamma=3", "schedule must be none, got 'none:gamma=3'"),
        ("augment", "blur=3", r"augment must be a policy \(clothes, digits\) or steps .*got 'blur=3'"),
        ("augment", "rotate", "augment must have the numbers that rotate takes, got 'rotate'"),
        ("augment", "rotate=1:2:3", "augment must have the numbers that rotate takes, got 'rotate=1:2:3'"),
        ("augment", "rotate=wild", "augment must have a number behind rotate, or two as in 0.8:1.2, got 'wild'"),
        ("augment", "rotate=999", "augment must have steps that can be made: rotate: degrees must be a number from 0"),
        ("augment", "random_crop=1.5", "random_crop: padding must be whole pixels, got 1.5"),
        ("augment", "flip,,shift", "augment must be a policy .*got ''"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, value, message):
    with pytest.raises(ArgumentError, match=f"^train: .*{message}"):
        recipes.completed({name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.5}, "momentum must go with one of momentum, nesterov, rmsprop, got 0.5 with adam; choose"),
        ({"optimizer": "gd", "batch_size": 8}, "batch-size must be all images with gd, got 8; leave"),
        ({"early_stop": 3, "validation": 0}, "validation must be above 0 with early-stop, got 0; leave it out"),
        ({"schedule": "plateau", "validation": 0.0}, "validation must be above 0 with schedule plateau, got 0"),
        ({"colour": 1}, "a setting must be one of model, .*got 'colour'"),
    ],
)
def test_values_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=message):
        recipes.completed(settings)


def test_what_is_not_given_fits_what_is():
    plain = recipes.completed({})
    assert list(plain) == list(recipes.OPTIONS)
    assert [plain[name] for name in ("model", "optimizer", "lr", "validation")] == ["reference_cnn", "adam", 1e-3, 0.0]
    assert plain["seed"] == config.settings.seed
    digits = recipes.completed({"model": "softmax_regression", "data": "digits8"})
    assert (digits["lr"], digits["weight_decay"], digits["epochs"]) == (1e-2, 1e-4, 100)
    other = recipes.completed({"model": "softmax_regression", "data": "digits8", "optimizer": "adamw"})
    assert (other["lr"], other["weight_decay"], other["epochs"]) == (1e-3, 0.01, 100)
    assert recipes.completed({"early_stop": 2})["validation"] == recipes.HELD_BACK
    assert recipes.completed({"optimizer": "gd"})["batch_size"] is None
    for settings in (plain, digits, other):
        assert recipes.completed(settings) == settings  # a written down run says all


def test_every_recipe_can_be_completed():
    for model in recipes.MODELS:
        for data in recipes.DATA:
            assert recipes.completed({"model": model, "data": data})["model"] == model
    assert "softmax_regression on digits8: 100 epochs" in recipes.told()


# ------------------------------------------------------------------------------------------------------- schedules


def test_a_schedule_knows_whether_it_was_laid_out_over_the_epochs():
    hang = {name: Schedule(name).hangs_on_epochs for name in SCHEDULES}
    assert [name for name, does in hang.items() if does] == ["cosine", "step", "exponential", "one_cycle"]
    assert not Schedule("step:step_size=3").hangs_on_epochs
    assert not Schedule("cosine:T_max=10").hangs_on_epochs


WRONG = ("step:step_size=0", "exponential:gamma=fast", "plateau:factor=2", "one_cycle:pct_start=7")


@pytest.mark.parametrize("text", WRONG)
def test_options_that_a_schedule_cannot_take_are_refused_with_its_name(text):
    import gpunet as gn

    optimizer = gn.optim.SGD([gn.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ArgumentError, match=f"schedule {text.partition(':')[0]} must have options that fit it: "):
        Schedule(text).callback(optimizer, 4, 10, "val_loss")


# ------------------------------------------------------------------------------------------------------- augmentations


def test_every_step_and_policy_can_be_named():
    x = np.random.default_rng(0).random((4, 1, 8, 8), np.float32)
    rng = np.random.default_rng(1)
    for name in STEPS:
        number = "=2" if name == "random_crop" else "" if name in ("flip", "shift") else "=0.1"
        changed = named(f"{name}{number}")(x, rng)
        assert changed.shape == x.shape
        assert not np.array_equal(changed, x), name
    for name in POLICIES:
        assert named(name)(x, rng).shape == x.shape


def test_two_numbers_are_a_range_and_what_is_uncovered_is_black():
    x = np.ones((64, 1, 9, 9), np.float32)
    rng = np.random.default_rng(0)
    assert named("brightness=0.5:0.6")(x, rng).max() <= 0.6
    assert named("zoom=0.5:0.5")(x, rng)[:, :, 0].max() == 0
    assert named("shift=0.5:0")(x, rng)[:, 0].min(axis=2).max() < 1  # along the width alone: each row is the same
    assert len(np.unique(named("shift=0.5:0")(x, rng)[0, 0], axis=0)) == 1


def test_pixels_stay_in_range_where_a_step_could_take_them_out():
    x = np.random.default_rng(0).random((8, 1, 8, 8), np.float32)
    for text in ("noise=2", "brightness=1,flip", "channel_shift=0.9"):
        changed = named(text)(x, np.random.default_rng(1))
        assert changed.min() >= 0
        assert changed.max() <= 1
