"""From an entry to the kernel that runs: registration, choice by name and by itself, and what is said when none can."""

import re
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpunet.kernels.common.launching import is_real

import gpunet as gn
import gpunet.functional as F
from gpunet import config, devices, dispatch
from gpunet.errors import ArgumentError, BackendUnavailableError, NoKernelError
from tests.own_kernel import ran, register, registry  # noqa: F401 the fixture is used by name

HERE = Path(__file__).name
OWN = "own_kernel.py"
pytestmark = pytest.mark.usefixtures("registry")


# -------------------------------------------------------------------------------------------------------- registration


def test_own_kernel_runs_only_by_name():
    launcher = register()
    assert callable(launcher)
    assert not ran()
    with gn.use_variant("relu.forward", "mine"):
        assert ran()
    with gn.use_variant("relu.forward", "reference"):
        assert not ran()
    assert not ran()


def test_own_kernel_is_listed_with_its_place():
    register()
    mine = [each for each in gn.list_kernels("relu.forward") if each.variant == "mine"]
    assert [(each.entry, each.backend, each.name) for each in mine] == [
        ("relu.forward", "numpy", "relu.forward/numpy/mine")
    ]
    assert str(mine[0]).startswith(f"relu.forward/numpy/mine ({OWN}:")
    assert mine[0].op == "relu"


def test_lists_of_kernels():
    everything = gn.list_kernels()
    assert {each.op for each in everything} == set(dispatch.ops())
    of_conv = gn.list_kernels("conv2d")
    assert {each.entry for each in of_conv} == set(dispatch.entries("conv2d"))
    assert {each.backend for each in gn.list_kernels("conv2d.grad_w")} <= set(devices.BACKENDS)
    assert all(Path(each.file).is_file() for each in everything)
    with pytest.raises(NoKernelError, match=r"no entry 'conv2d.grad'; conv2d has: conv2d.forward, conv2d.forward_relu"):
        gn.list_kernels("conv2d.grad")
    with pytest.raises(NoKernelError, match="no op 'conv'; there are: adaptive_avg_pool2d, "):
        gn.list_kernels("conv")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"entry": "relu.forwards"}, ArgumentError, r"got 'relu.forwards'; known: relu.forward, relu.grad_x"),
        ({"entry": "rely.forward"}, ArgumentError, r"got 'rely.forward'; known: one of the ops adaptive_avg_pool2d, "),
        ({"entry": "relu"}, ArgumentError, r"must be a known '<op>.<entry>', got 'relu'"),
        ({"backend": "cuda"}, NoKernelError, r"backend: must be one of numpy, numba_cpu, cupy, numba_cuda, got 'cuda'"),
    ],
)
def test_unknown_names_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        register(**options)


def test_second_registration_names_both_places():
    register()

    with pytest.raises(ArgumentError, match=rf"mine must be registered once, got two, at .*{OWN}:\d+ and .*{HERE}:"):

        @gn.kernel("relu.forward", backend="numpy", variant="mine")
        def relu_forward_other(x):
            return x


def test_the_same_function_may_register_again():
    register()
    register()  # as when a module is loaded anew
    assert len([each for each in gn.list_kernels("relu.forward") if each.variant == "mine"]) == 1


def test_an_interactive_session_may_try_again():
    for factor in (2, 3):  # each in a cell of its own, that is under a file name of its own
        text = f"@gn.kernel('relu.forward', backend='numpy', variant='cell')\ndef own{factor}(x): return x * {factor}"
        exec(compile(text, f"<cell {factor}>", "exec"), {"gn": gn})
    with gn.use_variant("relu.forward", "cell"):
        assert F.relu(gn.tensor([1.0])).tolist() == [3.0]


def test_launcher_must_be_a_function():
    with pytest.raises(ArgumentError, match=r"relu.forward needs a plain Python function as its launcher, got"):
        gn.kernel("relu.forward", backend="numpy", variant="mine")(types.SimpleNamespace())  # type: ignore[type-var]


# ---------------------------------------------------------------------------------------------------------------- when


def takes_a_single_element(x: np.ndarray) -> bool:
    """a single element, as its sketch is not finished

    and more lines that nobody wants in an error.
    """
    return x.size == 1


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (takes_a_single_element, r"numpy/mine: it needs a single element, as its sketch is not finished; "),
        (lambda x: x.size == 1 or f"one element at most, got {x.size}", r"numpy/mine: one element at most, got 3; "),
        (lambda x: x.size == 1, r"numpy/mine: it needs <lambda>; "),
    ],
)
def test_refusal_says_why_and_who_takes_it(when, words):
    register(when=when)
    with gn.use_variant("relu.forward", "mine"):
        assert ran()
        with pytest.raises(NoKernelError, match=r"no kernel asked for takes \(3,\) with {}: " + words) as e:
            F.relu(gn.ones(3))
    assert str(e.value).endswith("variants that take this: reference")


def test_automatic_choice_passes_over_a_rung_that_refuses(monkeypatch):
    register(variant="high", when=lambda x: x.size == 1)
    monkeypatch.setitem(dispatch.title("relu").LADDER, "high", "only for this test")
    with gn.use_backend("numpy"):
        assert ran()
        assert F.relu(gn.tensor([-1.0, 1.0])).tolist() == [0.0, 1.0]


def test_a_rung_for_many_elements_is_not_taken_for_few(monkeypatch):
    register(variant="high", least=3)
    monkeypatch.setitem(dispatch.title("relu").LADDER, "high", "only for this test")
    with gn.use_backend("numpy"):
        assert F.relu(gn.tensor([-1.0] * 3)).tolist() == [-7.0] * 3
        assert F.relu(gn.tensor([-1.0] * 2)).tolist() == [0.0] * 2
        rows = dispatch.candidates(devices.CPU, "relu.forward", (np.ones(2),), {})
        (row,) = [each for each in rows if each.name == "relu.forward/numpy/high"]
        assert (row.taken, row.reason) == (False, "not worth it here: it pays only from 3 elements on, got 2")
        with gn.use_variant("relu.forward", "high"):
            assert ran()


def test_a_rung_for_many_elements_runs_where_there_is_no_other(monkeypatch):
    register(variant="high", least=3)
    monkeypatch.setitem(dispatch.title("relu").LADDER, "high", "only for this test")
    monkeypatch.delitem(dispatch._registry["relu.forward", "numpy"], "reference")
    dispatch._choices.clear()
    with gn.use_backend("numpy"):
        assert ran()


@pytest.mark.parametrize(("size", "entry"), [(4095, "relu.forward"), (4096, "relu.forward_mask")])
def test_a_fused_entry_is_launched_from_as_many_elements_on_as_its_rung_asks_for(size: int, entry: str):
    pytest.importorskip("numba")
    x = gn.ones(size, requires_grad=True)
    with gn.trace() as lines:
        F.relu(x)
    assert [each.entry for each in lines] == [entry]
    with gn.use_fused(True), gn.trace() as lines:
        F.relu(x)
    assert [each.entry for each in lines] == ["relu.forward_mask"]


# ----------------------------------------------------------------------------------------------------- asking by name


def test_requests_nest_and_end_with_an_exception():
    register("a")
    register("b")

    def wanted() -> tuple[Any, Any]:
        return config.wanted_backend(), config.wanted_variant("relu.forward")

    assert wanted() == (None, None)
    with gn.use_backend("numpy"), gn.use_variant("relu.forward", "a"):
        with gn.use_variant("relu.forward", "b"):
            assert wanted() == ("numpy", "b")
            with gn.use_variant("matmul", "reference"):
                assert wanted() == ("numpy", "b")
        assert wanted() == ("numpy", "a")
    with pytest.raises(ZeroDivisionError), gn.use_backend("numpy"), gn.use_variant("relu.forward", "a"):
        raise ZeroDivisionError
    assert wanted() == (None, None)


def test_an_entry_s_own_request_beats_its_op_s():
    register()
    with gn.use_variant("relu.forward", "mine"), gn.use_variant("relu", "reference"):
        assert config.wanted_variant("relu.forward") == "mine"
        assert config.wanted_variant("relu.grad_x") == "reference"


def test_requests_belong_to_their_thread():
    seen = []
    with gn.use_backend("numpy"):
        thread = threading.Thread(target=lambda: seen.append(config.wanted_backend()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_unknown_requests_are_refused_at_once():
    with pytest.raises(NoKernelError, match="must be one of numpy, numba_cpu, cupy, numba_cuda, got 'torch'"):
        gn.use_backend("torch").__enter__()
    with pytest.raises(NoKernelError, match=r"no variant 'fastest' of relu.forward; it has: .*reference"):
        gn.use_variant("relu.forward", "fastest").__enter__()
    with pytest.raises(NoKernelError, match=r"no entry 'relu.backward'; relu has: relu.forward, relu.grad_x"):
        gn.use_variant("relu.backward", "reference").__enter__()


@pytest.mark.skipif(devices.BACKENDS["cupy"].why_not("cuda") is None, reason="a GPU can run here")
def test_a_backend_that_cannot_run_says_why_and_what_to_install():
    if devices.BACKENDS["cupy"].why_not("sim") is None:
        with gn.use_backend("cupy"), pytest.raises(BackendUnavailableError, match="it computes on cuda and sim"):
            F.relu(gn.ones(2))
    else:
        with pytest.raises(BackendUnavailableError, match=r"backend 'cupy' cannot run here: on cuda: .*; on sim: .*"):
            gn.use_backend("cupy").__enter__()


def test_a_rung_of_another_backend_is_not_silently_replaced():
    register()
    with gn.use_variant("relu.forward", "mine"), gn.use_backend("numba_cpu"):
        words = r"no variant 'mine' kernel for relu.forward on backend 'numba_cpu'; it has numpy: reference, mine"
        with pytest.raises(NoKernelError, match=words):
            F.relu(gn.ones(2))


# ------------------------------------------------------------------------------------------------------ trace, explain


def test_trace_tells_forward_from_backward():
    x, w = gn.randn(1, 2, 5, 5, requires_grad=True), gn.randn(3, 2, 3, 3, requires_grad=True)
    with gn.trace() as outer:
        y = F.conv2d(x, w)
        with gn.trace() as inner:
            y.sum().backward()
    assert [each.entry for each in outer if each.phase == "forward"] == ["conv2d.forward"]
    assert {each.entry for each in inner} == {"conv2d.grad_x", "conv2d.grad_w"}
    assert all(each.phase == "backward" for each in inner)
    assert outer[0].shapes == ((1, 2, 5, 5), (3, 2, 3, 3))
    assert (outer[0].dtype, outer[0].device, outer[0].by_name) == ("float32", "cpu", False)
    assert str(outer).count("\n") == len(outer) - 1
    before = len(outer)
    F.relu(x)
    assert len(outer) == before


def test_trace_marks_what_was_asked_for():
    with gn.use_backend("numpy"), gn.trace() as launches:
        F.relu(gn.ones(2))
    assert [(each.backend, each.by_name) for each in launches] == [("numpy", True)]


def test_phase_returns_after_a_backward_that_raises():
    x = gn.ones(2, requires_grad=True)
    h = x * 1
    h.register_hook(lambda gy: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        h.sum().backward()
    assert config.local.phase == "forward"


def test_capture_repeats_a_launch():
    with dispatch.capture() as calls:
        F.relu(gn.tensor([-1.0, 2.0]))
    (call,) = calls
    kernel = next(each for each in gn.list_kernels("relu.forward") if each.backend == "numpy")
    assert call.run(kernel).tolist() == [0.0, 2.0]


def test_explain_tensors_forward_and_backward():
    x, w = gn.randn(1, 2, 5, 5), gn.randn(3, 2, 3, 3)
    with gn.use_backend("numpy"):
        for entry in ("conv2d.forward", "conv2d.grad_x", "conv2d.grad_w"):
            found = gn.explain(entry, x, w, padding=1)
            assert found.taken == f"{entry}/numpy/reference"
            assert "backend 'numpy' was asked for" in str(found)
    assert not x.requires_grad
    assert x.grad is None
    assert {row.name for row in found.rows} >= {each.name for each in gn.list_kernels("conv2d.grad_w")}


def test_explain_raw_arrays_and_text():
    register(when=lambda x: f"it takes 3 elements, got {x.size}")
    text = str(gn.explain("relu.forward", np.ones((2, 5), np.float32)))
    assert text.splitlines()[0] == "relu.forward on cpu, 2x5 float32"
    assert sum(line.startswith("  runs  ") for line in text.splitlines()) == 1
    assert re.search(rf"numpy/mine +{OWN}:", text)
    assert "it takes 3 elements, got 10" in text


def test_explain_shows_a_request_that_cannot_be_met():
    register(when=lambda x: "never")
    with gn.use_variant("relu.forward", "mine"):
        found = gn.explain("relu.forward", gn.ones(2))
        assert gn.explain("relu.grad_x", gn.ones(2)).taken  # its forward could not run as asked for
    assert found.taken is None
    reasons = {row.name: row.reason for row in found.rows}
    assert reasons["relu.forward/numpy/reference"] == "variant 'mine' was asked for"
    assert reasons["relu.forward/numpy/mine"] == "never"
    assert "no kernel asked for takes (2,)" in reasons["relu.forward"]


def test_explain_changes_nothing():
    mean, var = gn.zeros(2), gn.ones(2)
    gn.manual_seed(5)
    expected = F.dropout(gn.ones(20)).tolist()
    gn.manual_seed(5)
    gn.explain("dropout.forward", gn.ones(20))
    assert F.dropout(gn.ones(20)).tolist() == expected
    assert gn.explain("batch_norm.grad_x", gn.randn(4, 2), mean, var, training=True).taken
    assert (mean.tolist(), var.tolist()) == ([0.0, 0.0], [1.0, 1.0])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("relu.forwards", np.ones(2)), NoKernelError, "no entry 'relu.forwards'; relu has: relu.forward, relu.grad_x"),
        (("rely.forward", np.ones(2)), NoKernelError, "no op 'rely'"),
        (("relu.forward", 3), ArgumentError, "must hold a tensor or an array, got none"),
        (("max_pool2d.gather", gn.ones(1, 1, 4, 4), 2), ArgumentError, "never launches max_pool2d.gather, it"),
    ],
)
def test_explain_refusals(arguments, error, words):
    with pytest.raises(error, match=words):
        gn.explain(*arguments)


def test_kernels_take_equal_dtypes_that_are_objects_of_their_own():
    own = np.ones(2, np.float32)
    other = np.ones(2, np.dtype(np.float32).newbyteorder("="))
    assert is_real(own, other) is True
    assert is_real(own, np.ones(2)) == "it takes arrays of one dtype, float32 or float64, got float32 and float64"
