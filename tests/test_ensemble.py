"""Ensembles: the mean, the vote and its ties, what is refused, members and their seeds, the gain's arithmetic."""

import math

import numpy as np
import pytest

import gpunet as gn
from gpunet import data, nn, optim, random
from gpunet.errors import ArgumentError, DTypeError, ShapeError
from gpunet.train import Trainer, ensemble_gain, fit_members


class Fixed(nn.Module):
    """Gives the same logits for every sample, or row n for sample n."""

    def __init__(self, logits):
        super().__init__()
        self.scores = nn.Parameter(gn.tensor(np.asarray(logits, np.float32)))

    def forward(self, x):
        return self.scores[: len(x)]


def answer(members, **options):
    """What an ensemble of fixed logits (one row or several) says."""
    fixed = [Fixed(np.atleast_2d(each)) for each in members]
    rows = len(np.atleast_2d(members[0]))
    return nn.Ensemble(fixed, **options).eval()(gn.zeros(rows, 1)).detach().numpy()


def softmax(logits):
    grown = np.exp(np.asarray(logits, np.float64))
    return grown / grown.sum(-1, keepdims=True)


class TestMean:
    def test_is_the_mean_of_the_softmax_and_not_of_the_logits(self):
        members = [[[9.0, 0.0, 0.0]], [[0.0, 3.0, 0.0]], [[0.0, 3.0, 0.0]]]
        expected = softmax(members).mean(0)
        np.testing.assert_allclose(answer(members), expected, rtol=1e-6)
        assert expected.argmax() != np.mean(members, 0).argmax()

    def test_one_member_is_itself(self):
        np.testing.assert_allclose(answer([[[1.0, 3.0]]]), softmax([[1.0, 3.0]]), rtol=1e-6)

    def test_logits_are_logarithms_of_the_probabilities_also_of_0(self):
        members = [[[1.0, 3.0, -500.0]], [[2.0, 0.0, -500.0]]]
        logits = answer(members, logits=True)
        assert np.isfinite(logits).all()
        np.testing.assert_allclose(softmax(logits), answer(members), atol=1e-7)

    def test_gradients_reach_every_member(self):
        ensemble = nn.Ensemble([nn.MLP([2, 3]), nn.MLP([2, 3])])
        gn.functional.nll_loss(ensemble(gn.ones(1, 2)).log(), gn.tensor([1])).backward()
        assert all(each.grad is not None for each in ensemble.parameters())
        assert next(name for name, _ in ensemble.named_parameters()) == "members.0.1.weight"


class TestVote:
    MAJORITY = ([[5.0, 0.0, 0.0]], [[0.0, 0.1, 0.0]], [[0.0, 0.1, 0.0]])

    def test_the_majority_wins_against_a_sure_minority(self):
        assert answer(self.MAJORITY).argmax() == 0
        votes = answer(self.MAJORITY, by="vote")
        assert votes.argmax() == 1
        np.testing.assert_allclose(votes.sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(votes, (np.array([1, 2, 0]) + softmax(self.MAJORITY).mean(0) / 2) / 3.5, rtol=1e-6)

    def test_the_mean_decides_a_tie(self):
        members = [[[0.0, 3.0, 0.0], [3.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 4.0]]]
        assert answer(members, by="vote").argmax(1).tolist() == [1, 2]

    def test_even_the_surest_minority_decides_no_more_than_ties(self):
        members = [[[60.0, 0.0]]] * 2 + [[[0.0, 1e-3]]] * 3
        assert answer(members, by="vote").argmax() == 1


class TestRefused:
    def test_what_cannot_be_a_member(self):
        model = nn.SoftmaxRegression(2, 3)
        with_softmax = nn.Sequential(model, nn.Sequential(nn.Softmax(1)))
        for models, message in [
            ([], "at least one model, got none"),
            ([model, nn.MLP([2, 3]), model], "got one object as members 0 and 2"),
            ([model, 3], r"must be a gn\.nn\.Module, got int"),
            ([model, with_softmax], "must give logits, got probabilities from member 1"),
            ([nn.Ensemble([model])], "pass logits=True to an Ensemble"),
        ]:
            with pytest.raises(ArgumentError, match=f"^Ensemble: .*{message}"):
                nn.Ensemble(models)
        with pytest.raises(ArgumentError, match="by must be one of 'mean', 'vote', got 'median'"):
            nn.Ensemble([model], by="median")
        assert len(nn.Ensemble([nn.Ensemble([model], logits=True), nn.MLP([2, 3])])) == 2

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ([nn.MLP([2, 3]), nn.MLP([2, 4])], r"got \(5, 3\) from member 0 and \(5, 4\) from member 1"),
            ([nn.MLP([2, 1])], r"at least 2 classes, got shape \(5, 1\) from member 0"),
            ([nn.Linear(2, 3), nn.Identity()], r"and \(5, 2\) from member 1"),
        ],
    )
    def test_unlike_outputs(self, members, message):
        with pytest.raises(ShapeError, match=f"^Ensemble: .*{message}"):
            nn.Ensemble(members)(gn.zeros(5, 2))


def make():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10))
    return Trainer(model, optim.Adam(model.parameters(), lr=0.01), "cross_entropy")


class TestTrained:
    def test_trainer_judges_an_ensemble_as_it_judges_a_member(self):
        x, y = data.load("digits8").test
        members = [nn.SoftmaxRegression(64, 10) for _ in range(2)]
        ensemble = nn.Ensemble(members, logits=True)
        trainer = Trainer(ensemble, optim.SGD(ensemble.parameters(), lr=0.1), "cross_entropy")
        logits = [Trainer(each, optim.SGD(each.parameters(), lr=0.1), "mse").predict(x) for each in members]
        shares = softmax(logits).mean(0)
        judged = trainer.evaluate(x, y)
        assert judged["loss"] == pytest.approx(-np.log(shares[np.arange(len(y)), y]).mean(), rel=1e-5)
        assert judged["accuracy"] == pytest.approx((shares.argmax(1) == y).mean())
        np.testing.assert_allclose(softmax(trainer.predict(x)), shares, rtol=1e-4)

    def test_a_member_hangs_on_its_seed_alone(self):
        x, y = (part[:64] for part in data.load("digits8").train)
        gn.manual_seed(11)
        state = str(random.get_state())
        three = fit_members(make, (0, 1, 2), x, y, epochs=2, verbose=0)
        assert str(random.get_state()) == state
        (alone,) = fit_members(make, [2], x, y, epochs=2, verbose=0)
        weights = [each.model.state_dict()["1.weight"].data for each in (*three, alone)]
        np.testing.assert_array_equal(weights[2], weights[3])
        assert not np.array_equal(weights[0], weights[1])
        assert three[2].history.history == alone.history.history

    def test_fit_members_refuses(self):
        x, y = (part[:8] for part in data.load("digits8").train)
        model = make()
        for function, seeds, given, message in [
            (make, (), x, r"seeds must be at least one number, all different, got \[\]"),
            (make, (1, 1), x, r"all different, got \[1, 1\]"),
            (make, (1, 2), data.DataLoader((x, y), 4), "got a DataLoader"),
            (lambda: model, (1, 2), x, "got the same model again"),
            (lambda: model.model, (1, 2), x, "a Trainer with a new model, got Sequential"),
        ]:
            with pytest.raises(ArgumentError, match=f"^fit_members: .*{message}"):
                fit_members(function, seeds, given, y, verbose=0)


class TestGain:
    RIGHT = np.array([[1, 1, 0, 0, 1, 1, 0, 1], [1, 0, 1, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 1, 1, 1]])

    def ensemble(self, by="vote"):
        """Members that are right (class 1) where RIGHT says so, all equally sure."""
        return nn.Ensemble([Fixed(np.stack([1 - row, row], 1) * 2.0) for row in self.RIGHT], by=by)

    def gain(self, **options):
        return ensemble_gain(self.ensemble(), np.zeros((8, 1), np.float32), np.ones(8, np.int64), **options)

    def test_members_ensemble_and_gains_with_paired_errors(self):
        gain = self.gain()
        together = self.RIGHT.sum(0) >= 2
        assert gain.members == (5 / 8, 5 / 8, 5 / 8)
        assert gain.ensemble == together.mean() == 7 / 8
        assert gain.over_best == pytest.approx(2 / 8)
        assert gain.over_mean == pytest.approx(2 / 8)
        for name, against in (("over_best_error", self.RIGHT[0]), ("over_mean_error", self.RIGHT.mean(0))):
            difference = together - against
            assert getattr(gain, name) == pytest.approx(difference.std(ddof=1) / math.sqrt(8))
        assert gain.spread == 0
        assert gain.samples == 8

    def test_the_best_member_is_the_one_that_is_right_most_often(self):
        members = [Fixed(np.stack([1 - row, row], 1) * 2.0) for row in np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]])]
        gain = ensemble_gain(nn.Ensemble(members, by="vote"), np.zeros((3, 1), np.float32), [1, 1, 1])
        assert gain.members == (pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)
        assert gain.over_best == pytest.approx(2 / 3 - 1)
        assert gain.over_mean == pytest.approx(0)
        assert gain.spread == pytest.approx(1 / 3)

    def test_it_is_told_in_points(self):
        gain = self.gain()
        best, mean = (f"+25.0 ± {100 * each:.1f}" for each in (gain.over_best_error, gain.over_mean_error))
        assert str(gain) == (
            f"ensemble 87.5 % of 8 right, {best} points over the best member, {mean} over the mean one\n"
            "members 62.5, 62.5, 62.5 %: mean 62.5, spread 0.0"
        )

    def test_batches_and_modes(self):
        members = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5)) for _ in range(2)]
        ensemble = nn.Ensemble(members)
        members[0].eval()
        x, y = data.load("digits8").test
        assert ensemble_gain(ensemble, x, y, batch_size=50) == ensemble_gain(ensemble, x, y, batch_size=400)
        assert [each.training for each in (ensemble, *members)] == [True, False, True]

    def test_one_member_gains_nothing(self):
        gain = ensemble_gain(nn.Ensemble([Fixed([[1.0, 0.0], [0.0, 1.0]])]), np.zeros((2, 1), np.float32), [1, 1])
        assert (gain.over_best, gain.over_mean, gain.over_mean_error) == (0, 0, 0)
        assert math.isnan(gain.spread)
        assert "spread" not in str(gain)

    def test_refuses(self):
        x, y = np.zeros((8, 1), np.float32), np.ones(8, np.int64)
        with pytest.raises(ArgumentError, match=r"must be a gn\.nn\.Ensemble, got Linear"):
            ensemble_gain(nn.Linear(1, 2), x, y)  # type: ignore[arg-type] wrong on purpose
        with pytest.raises(ArgumentError, match=r"integer labels \(N,\), got float32 \(8, 1\)"):
            ensemble_gain(self.ensemble(), x, x)
        with pytest.raises(ArgumentError, match="labels must be 0 to 1, got 2"):
            ensemble_gain(self.ensemble(), x, y + 1)
        with pytest.raises(ArgumentError, match="at least one sample"):
            ensemble_gain(self.ensemble(), x[:0], y[:0])
        with pytest.raises(DTypeError, match="x must be floating"):
            ensemble_gain(self.ensemble(), y[:, None], y)
