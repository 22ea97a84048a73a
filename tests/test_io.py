"""gpunet.io: what is saved comes back bit for bit, a file is whole or absent, and foreign files are refused by name."""

import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import gpunet as gn
from gpunet import io, nn, optim, random
from gpunet.errors import ArgumentError, DataError
from gpunet.io import container, tree

FORMATS = pytest.mark.parametrize(("save", "load"), [(io.save, io.load), (io.save_npz, io.load_npz)])


def model(seed: int = 0, sizes: tuple[int, int] = (4, 3)) -> Any:
    gn.manual_seed(seed)
    return nn.Sequential(nn.Linear(*sizes), nn.BatchNorm1d(sizes[1]))


def adam(net: Any) -> Any:
    return optim.Adam(net.parameters(), lr=0.01)


def step(net: Any, optimizer: Any, count: int = 1) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        (net(gn.randn(5, 4)) ** 2).mean().backward()
        optimizer.step()


def bits(net: Any) -> dict[str, bytes]:
    return {name: value.data.tobytes() for name, value in net.state_dict().items()}


def refuse(call: Any, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), f"{part!r} is not in: {caught.value}"


# --------------------------------------------------------------------------------------------------- round trips


@FORMATS
def test_a_run_goes_on_bit_for_bit(tmp_path, save, load):
    net = model()
    optimizer = adam(net)
    step(net, optimizer, 3)
    save(tmp_path / "a", net, optimizer, epoch=3, betas=(0.9, 0.99), nested={1: [None, True, "é"]})
    step(net, optimizer, 2)
    expected, drawn = bits(net), random.generator().integers(1 << 60)

    other = model(seed=9)
    second = adam(other)
    metadata = load(tmp_path / "a", other, second)
    assert metadata == {"epoch": 3, "betas": (0.9, 0.99), "nested": {1: [None, True, "é"]}}
    step(other, second, 2)
    assert bits(other) == expected
    assert random.generator().integers(1 << 60) == drawn


@FORMATS
def test_weights_alone_leave_the_random_state(tmp_path, save, load):
    net = model()
    save(tmp_path / "a", net, adam(net))
    gn.manual_seed(5)
    before = random.get_state()["generator"]
    other = model(seed=5)
    gn.manual_seed(5)
    load(tmp_path / "a", other)
    assert bits(other) == bits(net)
    assert str(random.get_state()["generator"]) == str(before)


@FORMATS
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.asfortranarray(np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)),
        np.arange(20, dtype=np.int64)[::2],
        np.arange(6.0)[::-1],
        np.broadcast_to(np.float32(3), (2, 3)),
        np.array(7.5),
        np.zeros((0, 3), np.float32),
        np.array([True, False]),
        np.arange(3, dtype=">f8"),
    ],
    ids=["transposed", "fortran", "strided", "reversed", "broadcast", "number", "empty", "bool", "big-endian"],
)
def test_arrays_of_any_layout_come_back(tmp_path, save, load, array):
    class Held(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.register_buffer("a", gn.from_numpy(value))

    save(tmp_path / "a", {"a": array})
    back = Held(np.empty(array.shape, array.dtype.newbyteorder("=")))
    load(tmp_path / "a", back)
    np.testing.assert_array_equal(back.a.data, array)


def test_safetensors_alone_would_scramble_a_transposed_array():
    # Why io makes arrays contiguous. If this fails, safetensors has mended it and the copy may go.
    array = np.arange(6.0).reshape(2, 3).T
    back = safetensors.numpy.load(safetensors.numpy.save({"a": array}))["a"]
    assert back.shape == array.shape
    assert not (back == array).all()


@FORMATS
def test_a_parameter_may_have_any_name(tmp_path, save, load):
    class Odd(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            for name in ("file", "allow_pickle", "gpunet"):
                setattr(self, name, nn.Parameter(gn.full((2,), value)))

    one, other = Odd(3.0), Odd(0.0)
    save(tmp_path / "a", one)
    load(tmp_path / "a", other)
    assert bits(other) == bits(one)


def test_other_readers_find_the_weights(tmp_path):
    net = model()
    io.save(tmp_path / "a", net)
    assert safetensors.numpy.load_file(tmp_path / "a").keys() == net.state_dict().keys()
    io.save_npz(tmp_path / "b", net)
    with np.load(tmp_path / "b") as content:
        assert set(net.state_dict()) < set(content)


def test_weights_of_another_program_are_read(tmp_path):
    net, other = model(), model(seed=1)
    safetensors.numpy.save_file({k: v.numpy() for k, v in net.state_dict().items()}, tmp_path / "a")
    np.savez(tmp_path / "b.npz", **{k: v.numpy() for k, v in net.state_dict().items()})
    for load, name in ((io.load, "a"), (io.load_npz, "b.npz")):
        assert load(tmp_path / name, other) == {}
        assert bits(other) == bits(net)
        call = lambda load=load, name=name: load(tmp_path / name, other, adam(other))  # noqa: E731
        refuse(call, "optimiser's state", "weights alone")


@pytest.mark.parametrize(
    "value",
    [{}, [], (), {1: 2, "a": (3, [4.5])}, {(1, 2): None}, {"$array": 1}, float("inf"), 2**70, {True: "x"}],
)
def test_trees_come_back(value):
    arrays: dict[str, np.ndarray] = {}
    back = tree.decode(json.loads(json.dumps(tree.encode(value, "v", arrays))), arrays)
    assert back == value
    assert type(back) is type(value)


@FORMATS
def test_arrays_in_the_metadata_come_back(tmp_path, save, load):
    net = model()
    given = {"a": {"b": np.arange(3)}, "a.b": np.array([[1, 2]], np.float32), "many": [np.ones(1), (np.zeros(0), 2)]}
    save(tmp_path / "a", net, adam(net), given=given, x=np.array(7))
    found = [load(tmp_path / "a", model(seed=1))]
    found += [io.load_metadata(tmp_path / "a")] if load is io.load else []
    for each in found:
        np.testing.assert_equal(each, {"given": given, "x": np.array(7)})
        assert each["given"]["a.b"].dtype == np.float32


def test_what_cannot_be_kept_is_refused(tmp_path):
    net = model()
    with pytest.raises(ArgumentError, match=r"metadata:f must hold numbers.*got function"):
        io.save(tmp_path / "a", net, f=lambda: None)
    with pytest.raises(ArgumentError, match="a must be numbers, got complex128"):
        io.save(tmp_path / "a", {"a": np.zeros(2, complex)})
    with pytest.raises(ArgumentError, match="a must be numbers, got object"):
        io.save_npz(tmp_path / "a", {"a": np.array([{}])})
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------- whole or absent


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"old")

    def write(stream):
        stream.write(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match=r"written whole, got: no space left; what was there before is unchanged: .*/a'"):
        container.atomically(file, write)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory; .*/no/a'"):
        io.save(tmp_path / "no" / "a", model())


@pytest.mark.skipif(os.name != "posix", reason="links and modes are POSIX")
def test_links_are_followed_and_the_mode_is_the_users(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    before = os.umask(0o027)
    try:
        io.save(tmp_path / "link", model())
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640
    io.load(tmp_path / "real", model(seed=1))


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("when", ["write", "fsync", "replace"])
def test_a_kill_during_save_loses_nothing(tmp_path, when):
    net = model()
    io.save(tmp_path / "a", net, epoch=1)
    program = f"""
        import os, signal, sys
        import numpy as np
        from gpunet.io import checkpoint, container

        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        when = {when!r}
        if when == "write":  # half of the file is written when the kill comes
            def half(path, write):
                def cut(file):
                    write(file)
                    file.truncate(file.tell() // 2)
                    file.flush()
                    die()
                whole(path, cut)
            whole, container.atomically = container.atomically, half
        elif when == "fsync":
            os.fsync = die
        else:
            os.replace = die
        checkpoint.save({str(tmp_path / "a")!r}, {{"0.weight": np.ones((3, 4))}}, epoch=2)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert done.returncode == -signal.SIGKILL
    other = model(seed=1)
    assert io.load(tmp_path / "a", other) == {"epoch": 1}
    assert bits(other) == bits(net)
    left = [each.name for each in tmp_path.iterdir() if each.name != "a"]
    assert all(name.startswith(".a.") and name.endswith(".tmp") for name in left)


# ----------------------------------------------------------------------------------------------------- hostile files


class Evil:
    def __reduce__(self):
        return os.mkdir, ("gpunet-was-here",)


def test_pickles_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.pkl").write_bytes(pickle.dumps(Evil()))
    np.savez("b.npz", **{"0.weight": np.array([Evil()])}, allow_pickle=True)
    np.save("c.npy", np.array([Evil()]), allow_pickle=True)
    refuse(lambda: io.load("a.pkl", model()), "a.pkl", "Python pickle", "never read")
    refuse(lambda: io.load("b.npz", model()), "b.npz", "zip file")
    refuse(lambda: io.load("c.npy", model()), "c.npy", "single NumPy array")
    refuse(lambda: io.load_npz("a.pkl", model()), "a.pkl", "Python pickle")
    refuse(lambda: io.load_npz("b.npz", model()), "b.npz", "0.weight", "nothing is unpickled")
    refuse(lambda: io.load_npz("c.npy", model()), "c.npy", "single NumPy array")
    assert not Path("gpunet-was-here").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        b"\x00" * 64,
        b"hello world, this is text",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**7) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 8) + b"{" * 8,
        struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[99999999],"data_offsets":[0,4]}}   '[:64],
        struct.pack("<Q", 61) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9999999]}}  '[:61],
    ],
)
def test_damaged_safetensors_are_refused_by_name(tmp_path, content):
    (tmp_path / "bad.file").write_bytes(content)
    refuse(lambda: io.load(tmp_path / "bad.file", model()), "bad.file")


@FORMATS
def test_a_file_cut_anywhere_is_refused_and_changes_nothing(tmp_path, save, load):
    net = model()
    save(tmp_path / "a", net, adam(net), epoch=1)
    whole = (tmp_path / "a").read_bytes()
    other = model(seed=1)
    before = bits(other)
    for length in [*range(0, len(whole) - 1, max(1, len(whole) // 60)), len(whole) - 1]:
        (tmp_path / "b").write_bytes(whole[:length])
        refuse(lambda: load(tmp_path / "b", other), "b'")
    assert bits(other) == before


@FORMATS
def test_a_flipped_byte_never_raises_anything_else(tmp_path, save, load):
    net = model()
    save(tmp_path / "a", net, adam(net), epoch=1)
    whole = bytearray((tmp_path / "a").read_bytes())
    generator = np.random.Generator(np.random.Philox(0))
    for position in generator.integers(0, min(len(whole), 3000), 150):
        changed = whole.copy()
        changed[position] ^= int(generator.integers(1, 256))
        (tmp_path / "b").write_bytes(changed)
        other = model(seed=1)
        try:
            load(tmp_path / "b", other, adam(other))
        except DataError as error:
            assert "b'" in str(error)  # noqa: PT017 a change inside the numbers is not an error


@pytest.mark.parametrize("what", ["weights", "buffers"])
def test_another_model_is_refused_and_everything_is_as_before(tmp_path, what):
    net = model()
    optimizer = adam(net)
    step(net, optimizer)
    io.save(tmp_path / "a", net, optimizer)
    other = model(seed=1, sizes=(4, 5)) if what == "weights" else nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    second = adam(other)
    step(other, second)
    before, state, moment = bits(other), str(random.get_state()), str(second.state_dict())
    named = ("(3, 4)", "(5, 4)") if what == "weights" else ("running_mean",)
    refuse(lambda: io.load(tmp_path / "a", other, second), "a'", *named)
    assert bits(other) == before
    assert str(random.get_state()) == state
    assert str(second.state_dict()) == moment


def test_a_record_of_a_later_version_is_refused(tmp_path):
    later = {"gpunet": json.dumps({"version": 2, "metadata": {}})}
    safetensors.numpy.save_file({"a": np.ones(1)}, tmp_path / "a", later)
    refuse(lambda: io.load(tmp_path / "a", model()), "version 1, got 2")
    safetensors.numpy.save_file({"a": np.ones(1)}, tmp_path / "b", {"gpunet": "[" * 100000})
    refuse(lambda: io.load(tmp_path / "b", model()), "must be")


def test_an_npz_that_claims_more_than_it_holds_is_refused(tmp_path):
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 99999), }".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"\0" * 80)
    refuse(lambda: io.load_npz(tmp_path / "a.npz", model()), "a.npz", "x.npy", "shape (99999999, 99999)")


def test_a_folder_and_a_device_are_refused(tmp_path):
    refuse(lambda: io.load(tmp_path, model()), "regular file")
    refuse(lambda: io.load_npz(os.devnull, model()), "regular file")
    with pytest.raises(FileNotFoundError):
        io.load(tmp_path / "none", model())
