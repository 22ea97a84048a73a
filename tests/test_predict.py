"""``gpunet predict``: the files it reads, what it says of them, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import gpunet as gn
from gpunet import cli, io, nn
from gpunet.errors import DataError
from gpunet.train.runs import Run
from gpunet.train.trained import Trained


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A softmax regression on digits, trained for a second."""
    gn.manual_seed(0)
    file = tmp_path_factory.mktemp("model") / "digits.safetensors"
    Run({"model": "softmax_regression", "data": "digits8", "epochs": 15}, save=file).train(verbose=0)
    return file


@pytest.fixture
def pillow() -> Any:
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra: data)")


def digit(number: int) -> np.ndarray:
    """A test image of that digit, (8, 8) from 0 to 1."""
    x, y = gn.data.load("digits8").test
    return x[np.flatnonzero(y == number)[0], 0]


def ran(capsys: Any, *words: Any) -> tuple[int, str, str]:
    status = cli.main(["predict", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


def first(capsys: Any, *words: Any) -> list[str]:
    """The likeliest class of each image."""
    status, out, err = ran(capsys, *words, "--json", "-")
    assert (status, err) == (0, "")
    return [each["classes"][0]["name"] for each in json.loads(out)["images"]]


# ------------------------------------------------------------------------------------------------------- what is read


def test_it_says_for_each_file_the_likeliest_classes(capsys, tmp_path, model, pillow):
    files = []
    for number in range(10):
        files.append(tmp_path / f"{number}.png")
        pillow.fromarray((digit(number) * 255).astype(np.uint8)).save(files[-1])
    status, out, err = ran(capsys, *files, "--model", model, "--top", "2")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines] == [str(each) for each in files]
    assert [line[1] for line in lines] == list("0123456789")
    assert all(len(line) == 7 and line[3] == line[6] == "%" for line in lines)  # two classes a line
    told = json.loads(ran(capsys, files[3], "--model", model, "--top", "99", "--json", "-")[1])
    assert (told["model"], told["data"], told["inverted"]) == ("softmax_regression", "digits8", False)
    shares = [each["probability"] for each in told["images"][0]["classes"]]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_every_kind_of_file_shows_the_same_digit(capsys, tmp_path, model, pillow):
    grey = (digit(7) * 255).astype(np.uint8)
    large = pillow.fromarray(grey).resize((64, 64), resample=0)  # without smoothing: bilinear brings it back
    large.save(tmp_path / "large.png")
    large.convert("RGB").save(tmp_path / "colour.jpg", quality=95)
    large.convert("RGBA").save(tmp_path / "clear.webp", lossless=True)
    np.save(tmp_path / "bytes.npy", grey)
    np.save(tmp_path / "floats.npy", digit(7).astype(np.float64))
    np.save(tmp_path / "colour.npy", np.repeat(grey[:, :, None], 3, axis=2))
    np.save(tmp_path / "first.npy", np.repeat(grey[None], 3, axis=0))
    np.save(tmp_path / "large.npy", np.asarray(large))
    files = sorted(tmp_path.iterdir())
    assert first(capsys, *files, "--model", model) == ["7"] * len(files)


def test_an_array_is_taken_as_it_is(model, tmp_path):
    x = gn.data.load("digits8").x_test[5]
    np.save(tmp_path / "a.npy", x)
    trained = Trained(model)
    image = trained.read(tmp_path / "a.npy")
    np.testing.assert_array_equal(image, x, strict=True)
    own = nn.SoftmaxRegression(64, 10)
    io.load(model, own)
    expected = gn.functional.softmax(own(gn.tensor(x[None])), 1).detach().numpy()
    np.testing.assert_allclose(trained.probabilities(image[None]), expected, rtol=1e-6)


def test_colour_becomes_grey_as_pillow_does_it(model, tmp_path, pillow):
    colour = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pillow.fromarray(colour).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", colour)
    trained = Trained(model)
    np.testing.assert_allclose(trained.read(tmp_path / "a.npy"), trained.read(tmp_path / "a.png"), atol=1 / 255)


def test_invert_is_for_dark_on_light_and_a_light_border_gets_a_word(capsys, tmp_path, model):
    np.save(tmp_path / "light.npy", digit(3))
    np.save(tmp_path / "dark.npy", 1 - digit(3))
    assert first(capsys, tmp_path / "light.npy", "--model", model) == ["3"]
    assert first(capsys, tmp_path / "dark.npy", "--model", model, "--invert") == ["3"]
    status, _, err = ran(capsys, tmp_path / "dark.npy", tmp_path / "light.npy", "--model", model)
    assert status == 0
    assert err.startswith(f"gpunet: note: {tmp_path / 'dark.npy'}: the border is light; ")
    assert "--invert" in err
    assert ran(capsys, tmp_path / "dark.npy", "--model", model, "--quiet") == (0, "", "")


def test_a_cnn_with_batch_norm_and_dropout_is_asked_in_evaluation_mode(tmp_path):
    file, settings = tmp_path / "cnn.safetensors", {"model": "reference_cnn", "data": "digits8", "limit": 32}
    run = Run({**settings, "epochs": 1}, save=file)
    run.train(verbose=0)
    trained, x = Trained(file), gn.data.load("digits8").x_test[:4]
    expected = gn.functional.softmax(gn.tensor(run.trainer.predict(x)), 1).numpy()
    np.testing.assert_allclose(trained.probabilities(x), expected, rtol=1e-5)
    np.testing.assert_array_equal(trained.probabilities(x), trained.probabilities(x))


# ------------------------------------------------------------------------------------------------------- refused


def text(path: Path) -> None:
    path.write_text("not an image")


def objects(path: Path) -> None:
    np.save(path, np.array([{}, {}], dtype=object), allow_pickle=True)


def truncated(path: Path) -> None:
    np.save(path, np.zeros((400, 400), np.uint8))
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("none.png", None, "No such file"),
        ("none.xyz", None, "No such file"),
        ("none.npy", None, "No such file"),
        ("a.png", text, "the file must be an intact PNG image, got UnidentifiedImageError"),
        ("a.txt", text, "the suffix must be one of .png, .jpg, "),
        ("a.npy", text, "must be an npy file with one image"),
        ("b.npy", objects, "must be an npy file with one image, got: "),
        ("c.npy", truncated, "must be an npy file with one image, got: "),
        ("folder.npy", Path.mkdir, "must be a regular file, got a directory"),
        ("d.npy", lambda path: np.save(path, np.zeros(64)), "its shape is (64,)"),
        ("e.npy", lambda path: np.save(path, np.zeros((0, 8))), "its shape is (0, 8)"),
        ("f.npy", lambda path: np.save(path, np.zeros((5, 8, 8))), "with 1 or 3 channels, got (5, 8, 8)"),
        ("g.npy", lambda path: np.save(path, np.full((8, 8), 16.0)), "or floats from 0 to 1, got float64 from 16.0"),
        ("h.npy", lambda path: np.save(path, np.full((8, 8), np.nan)), "floats from 0 to 1, got float64 from nan"),
        ("i.npy", lambda path: np.save(path, np.zeros((8, 8), np.int64)), "must hold uint8, or floats"),
        ("j.npy", lambda path: np.save(path, np.full((8, 8), "x")), "must hold uint8, or floats from 0 to 1, got <U1"),
    ],
)
def test_what_is_no_image_is_refused_with_its_name(capsys, tmp_path, model, name, write, message):
    if name.endswith(".png"):
        pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra: data)")
    if write is not None:
        write(tmp_path / name)
    status, out, err = ran(capsys, tmp_path / name, "--model", model)
    assert (status, out) == (1, "")
    assert err.startswith("gpunet: error: ")
    assert err.count("\n") == 1
    assert name in err
    assert message in err


def test_what_is_no_checkpoint_of_a_run_is_refused(capsys, tmp_path, model):
    np.save(tmp_path / "a.npy", digit(1))
    status, _, err = ran(capsys, tmp_path / "a.npy", "--model", tmp_path / "none")
    assert status == 1
    assert "No such file" in err
    (tmp_path / "model.pt").write_bytes(b"\x80\x02}q\x00.")
    assert "Python pickle" in ran(capsys, tmp_path / "a.npy", "--model", tmp_path / "model.pt")[2]
    io.save(tmp_path / "plain", nn.SoftmaxRegression(64, 10))
    status, _, err = ran(capsys, tmp_path / "a.npy", "--model", tmp_path / "plain")
    assert status == 1
    assert "must be a checkpoint of `gpunet train --save`, got one without any record" in err
    io.save(tmp_path / "own", nn.SoftmaxRegression(64, 10), epoch=3)
    assert "got one whose record holds epoch" in ran(capsys, tmp_path / "a.npy", "--model", tmp_path / "own")[2]
    record = {"classes": list("0123456789"), "shape": [1, 8, 8]}
    io.save(tmp_path / "vgg", nn.SoftmaxRegression(64, 10), settings={"model": "vgg"}, **record)
    assert "the model must be one of reference_cnn" in ran(capsys, tmp_path / "a.npy", "--model", tmp_path / "vgg")[2]
    record["shape"] = [1, 28, 28]
    io.save(tmp_path / "other", nn.SoftmaxRegression(64, 10), settings={"model": "lenet5"}, **record)
    assert "must be of this model" in ran(capsys, tmp_path / "a.npy", "--model", tmp_path / "other")[2]
    cut = tmp_path / "cut"
    cut.write_bytes(model.read_bytes()[:-100])
    assert "truncated" in ran(capsys, tmp_path / "a.npy", "--model", cut)[2]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"settings": {"model": []}}, "the model must be one of reference_cnn, .*, got '\\[\\]'"),
        ({"settings": {"model": None}}, "the model must be one of reference_cnn"),
        ({"settings": []}, "must be a checkpoint of `gpunet train --save`, got one whose record holds "),
        ({"settings": {"model": "lenet5"}, "shape": [1, 4, 4]}, "must be of this model"),
        ({"classes": []}, "must be a checkpoint of"),
        ({"classes": [["0"]] * 10}, "must be a checkpoint of"),
        ({"classes": "0123456789"}, "must be a checkpoint of"),
        ({"classes": ["x"] * 20_000}, "must be a checkpoint of"),
        (
            {"classes": ["x"] * 9},
            r"softmax_regression of images \(1, 8, 8\) and 9 classes, .* is \(9, 64\), got \[10, 64\]",
        ),
        ({"shape": [1, 8, 8.0]}, "must be a checkpoint of"),
        ({"shape": [1, 8, -8]}, "must be a checkpoint of"),
        ({"shape": [1, 20_000, 20_000]}, "must be of this model"),
        ({"shape": [1, 10**7, 10**7]}, "must be of this model"),
    ],
)
def test_a_hostile_record_is_refused_before_a_model_is_made(tmp_path, monkeypatch, record, message):
    for name in nn.MODELS:
        monkeypatch.setitem(nn.MODELS, name, lambda *args: pytest.fail("a model was made"))
    good = {"settings": {"model": "softmax_regression"}, "classes": list("0123456789"), "shape": [1, 8, 8]}
    io.save(tmp_path / "hostile", nn.SoftmaxRegression(64, 10), **{**good, **record})
    with pytest.raises(DataError, match=f"/hostile'.*{message}"):
        Trained(tmp_path / "hostile")


def test_images_too_small_for_the_model_are_a_damaged_record(tmp_path):
    record = {"settings": {"model": "lenet5"}, "classes": list("0123456789"), "shape": [1, 4, 4]}
    io.save(tmp_path / "small", {**nn.LeNet5().state_dict(), "7.weight": np.zeros((120, 16), np.float32)}, **record)
    with pytest.raises(DataError, match=r"/small': its record must be .* image_size must be at least 12"):
        Trained(tmp_path / "small")


@pytest.mark.parametrize("name", sorted(nn.MODELS))
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 13, 33)])
def test_the_layer_that_hangs_on_the_size_is_known_of_every_model(tmp_path, name, shape):
    made = nn.MODELS[name](shape, 7)
    record = {"settings": {"model": name}, "classes": list("abcdefg"), "shape": list(shape)}
    io.save(tmp_path / "a", made, **record)
    assert Trained(tmp_path / "a").probabilities(np.zeros((2, *shape), np.float32)).shape == (2, 7)


def test_metadata_that_are_no_values_by_name_are_refused(tmp_path):
    net = nn.SoftmaxRegression(64, 10)
    io.save(tmp_path / "a", net, note=3)
    with safetensors.safe_open(tmp_path / "a", "numpy") as content:
        arrays, text = {k: content.get_tensor(k) for k in list(content.keys())}, content.metadata()["gpunet"]
    for k, odd in enumerate(('{"$tuple": []}', '{"$items": [[1, 2]]}')):
        assert '{"note": 3}' in text
        safetensors.numpy.save_file(arrays, tmp_path / f"b{k}", {"gpunet": text.replace('{"note": 3}', odd)})
        with pytest.raises(DataError, match=f"/b{k}'"):
            Trained(tmp_path / f"b{k}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png"], "the following arguments are required: --model"),
        (["--model", "m"], "the following arguments are required: IMAGE"),
        (["a.png", "--model", "m", "--top", "0"], "must be a whole number of at least 1, got '0'"),
    ],
)
def test_wrong_usage_is_2(capsys, words, message):
    status, _, err = ran(capsys, *words)
    assert status == 2
    assert message in err
