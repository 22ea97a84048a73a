"""Pictures of training: curves of one run or several, learning rates ahead of a schedule and behind a run."""

import copy
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import nn, optim
from gpunet.errors import ArgumentError
from gpunet.optim import lr_scheduler
from gpunet.plot import canvas
from gpunet.train import History, Trainer

plot: Any = gn.plot  # the types that matplotlib declares are wider than what its figures give


def history(**values: list[float]) -> History:
    new = History()
    new.history, new.epochs = values, list(range(len(next(iter(values.values())))))
    return new


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]


ONE = history(loss=[2.0, 1.0, 0.5], accuracy=[0.2, 0.5, 0.8], val_loss=[2.1, 1.5, 1.4], val_accuracy=[0.1, 0.4, 0.6])


class TestCurves:
    @pytest.mark.parametrize("given", [ONE, ONE.history, ONE.as_dict()], ids=["History", "lists", "as_dict"])
    def test_one_run_has_a_panel_for_each_metric_with_both_parts(self, given):
        figure = plot.curves(given)
        assert titles(figure) == ["loss", "accuracy"]
        assert lines(figure.axes[0]) == {
            "training": ([1, 2, 3], [2.0, 1.0, 0.5]),
            "validation": ([1, 2, 3], [2.1, 1.5, 1.4]),
        }
        assert lines(figure.axes[1])["validation"] == ([1, 2, 3], [0.1, 0.4, 0.6])
        assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}

    def test_a_trainer_has_its_history(self):
        model = nn.Linear(2, 1)
        trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.1), "mse", metrics=("mae",))
        trainer.fit(np.ones((4, 2), np.float32), np.ones((4, 1), np.float32), epochs=2, verbose=0)
        assert lines(plot.curves(trainer).axes[1])["training"] == ([1, 2], trainer.history.history["mae"])

    def test_epochs_go_on_where_a_resumed_run_does(self):
        later = history(loss=[3.0, 2.0])
        later.epochs = [4, 5]
        assert lines(plot.curves(later).axes[0])["training"] == ([5, 6], [3.0, 2.0])

    def test_several_runs_share_the_panels_of_training_and_of_validation(self):
        figure = plot.curves({"adam": ONE, "sgd": {"loss": [3.0, 2.0]}}, metrics=("loss",), log=True)
        assert titles(figure) == ["training loss", "validation loss"]
        assert lines(figure.axes[0]) == {"adam": ([1, 2, 3], [2.0, 1.0, 0.5]), "sgd": ([1, 2], [3.0, 2.0])}
        assert list(lines(figure.axes[1])) == ["adam"]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["adam", "sgd"]
        assert len({line.get_color() for line in figure.axes[0].lines}) == 2
        assert figure.axes[0].get_yscale() == "log"
        assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()

    def test_side_by_side_each_run_has_panels_of_its_own_on_one_scale(self):
        figure = plot.curves({"small": ONE, "large": ONE}, side_by_side=True, title="both")
        assert titles(figure) == ["small", "large", "small", "large"]
        assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "loss", "accuracy", "accuracy"]
        assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim() != figure.axes[2].get_ylim()
        assert figure.get_suptitle() == "both"

    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 9, 12])
    def test_no_panel_covers_another(self, count):
        figure = plot.curves({str(k): ONE for k in range(count)}, side_by_side=True)
        places = {(axes.get_subplotspec().rowspan.start, axes.get_subplotspec().colspan.start) for axes in figure.axes}
        assert len(places) == len(figure.axes) == 2 * count

    def test_more_runs_than_colours_are_told_apart_by_markers(self):
        figure = plot.curves({str(k): {"loss": [1.0]} for k in range(20)})
        assert len({(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}) == 20

    def test_what_is_not_finite_leaves_a_gap(self):
        drawn = plot.curves({"loss": [1.0, float("nan"), float("inf")]}, log=True)
        assert np.isnan(drawn.axes[0].lines[0].get_ydata()[1])
        canvas.rendered(drawn, "png")

    @pytest.mark.parametrize(
        ("given", "options", "message"),
        [
            (History(), {}, "at least one epoch, got none"),
            ({"adam": History()}, {}, "run 'adam' must hold at least one epoch"),
            ([1.0, 2.0], {}, "must be a History or a dictionary of lists, got list"),
            ({"loss": [1.0, 2.0], "val_loss": [1.0]}, {}, "val_loss must have a value for each of 2 epochs, got 1"),
            ({"loss": "falling"}, {}, "loss must be a list of numbers"),
            ({"loss": 1.0}, {}, "loss must be a list of numbers"),
            (ONE, {"metrics": ("loss", "f1")}, "must be one of loss, accuracy, got 'f1'"),
            (ONE, {"metrics": "loss"}, "must be a list of names, got the string 'loss'"),
            (ONE, {"metrics": ()}, "must name at least one of loss, accuracy"),
        ],
    )
    def test_refuses(self, given, options, message):
        with pytest.raises(ArgumentError, match=f"^curves: .*{message}"):
            plot.curves(given, **options)


class TestLearningRates:
    def schedule(self, **options):
        model = nn.Linear(2, 1)
        groups = [{"params": [model.weight]}, {"params": [model.bias], **options}]
        optimizer = optim.SGD(groups, lr=8.0)
        return optimizer, lr_scheduler.ExponentialLR(optimizer, gamma=0.5)

    def test_shows_what_the_steps_would_set_and_disturbs_nothing(self):
        optimizer, schedule = self.schedule()
        schedule.step()
        before = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
        figure = plot.learning_rates(schedule, steps=4)
        assert lines(figure.axes[0]) == {"_child0": ([1, 2, 3, 4], [4.0, 2.0, 1.0, 0.5])}
        assert (optimizer.state_dict(), schedule.state_dict()) == before
        schedule.step()
        assert schedule.get_last_lr() == [2.0, 2.0]

    def test_groups_with_rates_of_their_own_have_lines_of_their_own(self):
        _, schedule = self.schedule(lr=1.0)
        assert lines(plot.learning_rates(schedule, steps=2).axes[0]) == {
            "group 0": ([0, 1], [8.0, 4.0]),
            "group 1": ([0, 1], [1.0, 0.5]),
        }

    def test_one_cycle_moves_no_momentum(self):
        optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=1.0, momentum=0.9)
        schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=4.0, total_steps=20)
        momentum = optimizer.param_groups[0]["momentum"]
        rates = plot.learning_rates(schedule, steps=20).axes[0].lines[0].get_ydata()
        assert max(rates) == pytest.approx(4.0, rel=0.05)
        assert optimizer.param_groups[0]["momentum"] == momentum

    def test_several_and_histories(self):
        rates = {"learning_rate": [0.1, 0.01], "loss": [1.0, 1.0]}
        run = history(loss=[1.0, 1.0])
        run.learning_rates = [0.4, None]
        figure = plot.learning_rates({"logged": rates, "kept": run}, log=True)
        drawn = lines(figure.axes[0])
        assert drawn["logged"] == ([1, 2], [0.1, 0.01])
        assert drawn["kept"][1][0] == 0.4
        assert np.isnan(drawn["kept"][1][1])
        assert figure.axes[0].get_xlabel() == "epoch"

    def test_refuses(self):
        optimizer, _ = self.schedule()
        with pytest.raises(ArgumentError, match="got ReduceLROnPlateau; pass the history"):
            plot.learning_rates(lr_scheduler.ReduceLROnPlateau(optimizer))
        with pytest.raises(ArgumentError, match="must hold a learning rate for each epoch, got loss"):
            plot.learning_rates({"loss": [1.0]})
        with pytest.raises(ArgumentError, match="steps must be an integer of at least 1, got 0"):
            plot.learning_rates(lr_scheduler.StepLR(optimizer, 2), steps=0)
