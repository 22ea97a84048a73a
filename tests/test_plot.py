"""Pictures: what is drawn is what was given, files are whole, bad input is refused, matplotlib is asked for lazily."""

import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpunet as gn
from gpunet import functional as F
from gpunet import nn
from gpunet.errors import ArgumentError, BackendUnavailableError, DTypeError, ShapeError

plot: Any = gn.plot  # the types that matplotlib declares are wider than what its figures give


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}


def texts(axes) -> dict[tuple[float, float], str]:
    return {each.get_position(): each.get_text() for each in axes.texts}


ONE = {"loss": [2.0, 1.0, 0.5], "val_loss": [2.1, 1.5, 1.4]}


class TestConfusionMatrix:
    def test_counts_shares_and_names(self):
        truth, guesses = [0, 0, 0, 0, 1, 1], [0, 0, 0, 2, 1, 0]
        figure = plot.confusion_matrix(truth, guesses, ("cat", "dog", "elephant"))
        axes = figure.axes[0]
        shares = axes.images[0].get_array().filled(np.nan)
        np.testing.assert_array_equal(shares, [[0.75, 0, 0.25], [0.5, 0.5, 0], [np.nan] * 3])
        assert texts(axes) == {(0, 0): "3", (2, 0): "1", (0, 1): "1", (1, 1): "1"}
        assert [each.get_text() for each in axes.get_yticklabels()] == ["cat", "dog", "elephant"]
        assert titles(figure)[0] == "66.7 % of 6 right"
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("guess", "truth")

    def test_scores_and_tensors(self):
        scores = gn.tensor([[0.1, 0.9, 0.0], [5.0, 1.0, 0.0]])
        axes = plot.confusion_matrix(gn.tensor([1, 1]), scores).axes[0]
        assert texts(axes) == {(1, 1): "1", (0, 1): "1"}
        assert len(axes.get_xticks()) == 3  # as many as there are scores

    @pytest.mark.parametrize(
        ("truth", "guesses", "classes", "error", "message"),
        [
            ([0, 1], [0], None, ShapeError, r"labels \(N,\) or scores \(N, K\), got \(2,\) and \(1,\)"),
            ([0.0, 1.0], [0, 1], None, DTypeError, "truth must be integers, got float64"),
            ([0, 1], [0.5, 1.5], None, DTypeError, r"guesses from logits are logits.argmax\(1\)"),
            ([0, -1], [0, 1], None, ArgumentError, "truth must be labels from 0, got -1"),
            ([0, 2], [0, 1], ("a", "b"), ArgumentError, "a name for each of 3 classes, got 2"),
            ([0, 1], [0, 1], "ab", ArgumentError, "must be a list of names, got the string"),
            (np.zeros(0, int), np.zeros(0, int), None, ArgumentError, "at least one label, got none"),
        ],
    )
    def test_refuses(self, truth, guesses, classes, error, message):
        with pytest.raises(error, match=f"^confusion_matrix: .*{message}"):
            plot.confusion_matrix(truth, guesses, classes)


class TestImages:
    def test_grey_images_keep_their_values_and_order(self):
        x = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2)
        figure = plot.images(x, [0, 1, 0, 1, 0, 1], classes=("no", "yes"), columns=3, title="six")
        assert [axes.images[0].get_array().tolist() for axes in figure.axes] == x[:, 0].tolist()
        assert titles(figure) == ["no", "yes"] * 3
        assert [axes.get_subplotspec().colspan.start for axes in figure.axes] == [0, 1, 2, 0, 1, 2]
        assert figure.axes[0].images[0].get_clim() == (0, 255)

    def test_colours_stand_last_and_are_scaled_where_they_leave_0_to_1(self):
        x = np.zeros((1, 3, 2, 2), np.float32)
        x[0, 1], x[0, 2] = -2.0, 2.0
        shown = plot.images(x).axes[0].images[0].get_array()
        assert shown[0, 0].tolist() == [0.5, 0.0, 1.0]

    def test_floats_from_0_to_1_are_not_stretched(self):
        figure = plot.images(np.full((1, 2, 2), 0.25))
        assert figure.axes[0].images[0].get_clim() == (0, 1)

    @pytest.mark.parametrize(
        ("x", "options", "error", "message"),
        [
            (np.zeros((2, 5, 3)), {"titles": ["a"]}, ShapeError, r"one for each of 2 images, got shape \(1,\)"),
            (np.zeros((2, 5, 5, 3)), {}, ShapeError, "the channels stand last"),
            (np.zeros((5, 5)), {}, ShapeError, r"got shape \(5, 5\); one image: x\[None\]"),
            (np.zeros((0, 5, 5)), {}, ArgumentError, "at least one image"),
            (np.array([[["a"]]]), {}, DTypeError, "must be numbers"),
            (np.zeros((1, 5, 5)), {"titles": [3], "classes": ("a", "b")}, ArgumentError, "each of 4 classes, got 2"),
        ],
    )
    def test_refuses(self, x, options, error, message):
        with pytest.raises(error, match=f"^images: .*{message}"):
            plot.images(x, **options)


class TestWrongPredictions:
    IMAGES = np.arange(5.0)[:, None, None] * np.ones((5, 2, 2)) / 5
    SHARES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3], [0.55, 0.45]])

    def test_the_surest_come_first_with_guess_probability_and_truth(self):
        figure = plot.wrong_predictions(self.IMAGES, [0, 0, 0, 1, 0], self.SHARES, ("cat", "dog"))
        assert titles(figure) == ["dog: 80 %\nin truth cat", "cat: 70 %\nin truth dog", "dog: 60 %\nin truth cat"]
        assert [axes.images[0].get_array()[0, 0] for axes in figure.axes] == [0.4, 0.6, 0.2]
        assert figure.get_suptitle() == "3 of 5 wrong"

    def test_logits_become_probabilities(self):
        logits = np.log(self.SHARES) + 7
        figure = plot.wrong_predictions(self.IMAGES, [0, 0, 0, 1, 0], logits, most=1)
        assert titles(figure) == ["1: 80 %\nin truth 0"]
        assert figure.get_suptitle() == "3 of 5 wrong, the surest 1"

    def test_none_wrong_is_a_picture_too(self, tmp_path):
        figure = plot.wrong_predictions(self.IMAGES, [0, 1, 1, 0, 0], self.SHARES, path=tmp_path / "none.png")
        assert figure.get_suptitle() == "0 of 5 wrong"
        assert figure.axes == []

    @pytest.mark.parametrize(
        ("truth", "shares", "error", "message"),
        [
            ([0, 0], SHARES, ShapeError, "must have one length, got 5"),
            ([0] * 5, SHARES[:, :1], ShapeError, "for at least 2 classes"),
            ([0] * 5, np.where(SHARES == 0.8, np.nan, SHARES), ArgumentError, "got NaN for image 2"),
            ([0, 0, 0, 0, 2], SHARES, ArgumentError, "labels below 2, got 2"),
            ([0.0] * 5, SHARES, DTypeError, "truth must be integers"),
        ],
    )
    def test_refuses(self, truth, shares, error, message):
        with pytest.raises(error, match=f"^wrong_predictions: .*{message}"):
            plot.wrong_predictions(self.IMAGES, truth, shares)


class TestInside:
    def test_filters_of_one_channel_are_tiles_with_gaps(self):
        layer = nn.Conv2d(1, 3, 2)
        figure = plot.filters(layer)
        drawn = figure.axes[0].images[0]
        tiles = drawn.get_array().filled(np.nan)
        assert tiles.shape == (2, 8)
        np.testing.assert_array_equal(tiles[:, 3:5], layer.weight.data[1, 0])
        assert np.isnan(tiles[:, 2]).all()
        bound = float(abs(layer.weight.data).max())
        assert drawn.get_clim() == (-bound, bound)  # 0 is white
        assert titles(figure)[0] == "3 filters"

    def test_with_more_channels_a_row_is_a_filter(self):
        weight = np.random.default_rng(0).normal(size=(20, 3, 2, 2))
        tiles = plot.filters(weight, most=4).axes[0].images[0].get_array().filled(np.nan)
        assert tiles.shape == (11, 8)
        np.testing.assert_array_equal(tiles[3:5, 6:8], weight[1, 2])

    def test_transposed_convolutions_too(self):
        layer = nn.ConvTranspose2d(3, 2, 2)  # two filters, three channels; the weight has the channels first
        tiles = plot.filters(layer).axes[0].images[0].get_array().filled(np.nan)
        np.testing.assert_array_equal(tiles[3:, 6:], layer.weight.data[2, 1])

    def test_feature_maps_are_what_the_layer_gives_in_evaluation_mode(self):
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Dropout(0.9), nn.ReLU())
        x = np.random.default_rng(0).random((1, 6, 6), np.float32)
        expected = F.relu(model[0](gn.tensor(x[None]))).data[0]
        for layer in ("2", model[2]):
            figure = plot.feature_maps(model, x, layer)
            tiles = figure.axes[1].images[0].get_array().filled(np.nan)
            np.testing.assert_array_equal(tiles[:4, 5:9], expected[1])
            np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), x[0])
        assert all(each.training for each in model.modules())
        assert not model[2]._hooks

    @pytest.mark.parametrize(
        ("layer", "message"),
        [
            (nn.MLP([4, 2]), "got MLP$"),
            (nn.LeNet5(), "got LeNet5; it has these: 0, 3"),
            (nn.ReLU(), "got ReLU$"),
            (np.zeros((3, 3)), r"got float64 \(3, 3\)"),
            ("0", "got str"),
        ],
    )
    def test_filters_refuses(self, layer, message):
        with pytest.raises(ArgumentError, match=f"^filters: .*{message}"):
            plot.filters(layer)

    def test_feature_maps_refuses(self):
        model, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), np.zeros((1, 5, 5), np.float32)
        with pytest.raises(ArgumentError, match=r"must be a module of the model, got 'conv'; it has 0, 1"):
            plot.feature_maps(model, x, "conv")
        with pytest.raises(ShapeError, match=r"must give maps \(1, C, H, W\), got \(1, 18\) from 1"):
            plot.feature_maps(model, x, "1")
        with pytest.raises(ShapeError, match="must be one image"):
            plot.feature_maps(model, np.zeros((2, 1, 5, 5), np.float32), "0")
        with pytest.raises(DTypeError, match="x must be floating, got uint8"):
            plot.feature_maps(model, x.astype(np.uint8), "0")
        assert not model[0]._hooks


class TestValues:
    def test_histograms_hold_every_weight_and_gradient(self):
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        model(gn.ones(1, 4)).sum().backward()
        model[1].freeze().zero_grad()
        model[0].bias.data[:2] = np.nan, np.inf
        figure = plot.histograms(model, bins=5)
        assert len(figure.axes) == 8
        counts, edges, _ = figure.axes[0].patches[0].get_data()
        expected = np.histogram(model[0].weight.data.astype(np.float64), 5)
        np.testing.assert_array_equal(counts, expected[0])
        np.testing.assert_array_equal(edges, expected[1])
        gradient = figure.axes[1].patches[0].get_data().values
        np.testing.assert_array_equal(gradient, np.histogram(model[0].weight.grad.data, 5)[0])
        assert titles(figure)[2].startswith("0.bias 3, std 0, 2 not finite")
        assert titles(figure)[5] == "its gradient: none"

    def test_without_gradients_there_are_weights_alone(self):
        assert len(plot.histograms(nn.Linear(4, 3)).axes) == 2

    def test_gradient_norms_of_each_weight(self):
        models = {"a": nn.MLP([4, 3, 2]), "b": nn.MLP([4, 3, 3, 2])}
        for model in models.values():
            model(gn.ones(1, 4)).sum().backward()
        figure = plot.gradient_norms(models)
        drawn = lines(figure.axes[0])
        norms = [float(np.linalg.norm(models["b"][k].weight.grad.data)) for k in (1, 3, 5)]
        assert drawn["b"][0] == [1, 2, 3]
        np.testing.assert_allclose(drawn["b"][1], norms, rtol=1e-6)
        assert len(drawn["a"][0]) == 2
        assert figure.axes[0].get_yscale() == "log"

    def test_refuses(self):
        with pytest.raises(ArgumentError, match=r"model must be a gn\.nn\.Module, got list"):
            plot.histograms([])
        with pytest.raises(ArgumentError, match="must have parameters, got none in ReLU"):
            plot.histograms(nn.ReLU())
        with pytest.raises(ArgumentError, match=r"got none for 1\.weight; call backward\(\) first"):
            plot.gradient_norms(nn.MLP([4, 2]))
        with pytest.raises(ArgumentError, match="at least two axes, got none"):
            plot.gradient_norms(nn.PReLU())
        with pytest.raises(ArgumentError, match="at least one model, got none"):
            plot.gradient_norms({})


class TestGraph:
    def test_nodes_stand_in_rows_and_arrows_lead_down(self):
        model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        result = model(gn.ones(4, 3)).sum()
        axes = plot.graph(result, model=model).axes[0]
        nodes = texts(axes)
        place = {text.split("\n")[0]: each for each, text in nodes.items()}
        assert place["Sum"][1] == max(row for _, row in nodes)
        assert len(nodes) == len(axes.texts) == gn.graph_dot(result).count("shape=")
        arrows = [tuple(each._posA_posB) for each in axes.patches]
        assert len(arrows) == gn.graph_dot(result).count("->")
        assert all(source[1] < target[1] for source, target in arrows)  # the y axis points down
        (product,) = {target for source, target in arrows if source == place["2.weight"]}
        assert {source for source, target in arrows if target == product} >= {place["Relu"], place["2.weight"]}
        assert (product, place["Sum"]) in arrows

    def test_branches_do_not_lie_on_each_other(self):
        x = gn.ones(2, requires_grad=True)
        y = x.exp()
        axes = plot.graph((y * y.sigmoid() + y.tanh()).sum()).axes[0]
        assert len(texts(axes)) == len(axes.texts) == 7

    def test_a_leaf_alone(self):
        assert [each.get_text() for each in plot.graph(gn.ones(2)).axes[0].texts] == ["leaf\n2"]

    def test_refuses(self):
        x = gn.ones(1, requires_grad=True)
        for _ in range(401):
            x = x + 1
        with pytest.raises(ArgumentError, match=r"at most 400 nodes to be drawn, got 402; gn\.graph_dot"):
            plot.graph(x)
        with pytest.raises(DTypeError, match="tensor must be a gpunet tensor, got ndarray"):
            plot.graph(np.ones(2))
        with pytest.raises(DTypeError, match="model must be"):
            plot.graph(x, model="model")


class TestFiles:
    def test_png_svg_and_pdf(self, tmp_path):
        for suffix in ("png", "svg", "PDF"):
            assert plot.curves(ONE, tmp_path / f"curves.{suffix}").axes
        with Image.open(tmp_path / "curves.png") as picture:
            assert picture.size[0] >= 600
            assert np.asarray(picture.convert("L")).std() > 5  # something is on it
        assert xml.etree.ElementTree.parse(tmp_path / "curves.svg").getroot().tag.endswith("svg")
        assert (tmp_path / "curves.PDF").read_bytes().startswith(b"%PDF")
        assert len(list(tmp_path.iterdir())) == 3  # nothing unfinished is left

    def test_a_notebook_shows_the_figure(self):
        assert plot.curves(ONE)._repr_png_().startswith(b"\x89PNG")

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "curves.png"
        path.write_bytes(b"old")
        monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            plot.curves(ONE, path)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("curves.jpg", r"path must end in \.png, \.svg, \.pdf, got 'curves\.jpg'"),
            ("curves", "path must end in"),
            ("nowhere/curves.png", "the folder of path must exist, got 'nowhere/curves.png'"),
            (7, "path must be a file name or None, got 7"),
        ],
    )
    def test_refuses(self, path, message):
        with pytest.raises(ArgumentError, match=f"^curves: {message}"):
            plot.curves(ONE, path)


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailableError, match=r'^curves: .*must be installed.*pip install "gpunet\[plot\]"'):
        plot.curves(ONE)


def test_import_is_lazy_and_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys; from gpunet import plot; before = 'matplotlib' in sys.modules;"
        f"plot.curves({{'loss': [2.0, 1.0]}}, {str(Path(tmp_path) / 'c.png')!r});"
        "print(before, 'matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"], done.stderr
