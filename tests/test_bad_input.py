"""Wrong input is refused before anything is computed: with the op's name, both sides and the remedy, on every backend.

Afterwards everything is as it was: inputs, running statistics, ``.grad``, the random state, the settings.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import config, cuda, devices, dispatch, random
from gpunet import functional as F
from gpunet.errors import BackendUnavailableError, DeviceError, DTypeError, GpunetError, NoKernelError
from tests.cases import CASES
from tests.cases_bad import BAD, Bad
from tests.draws import Draw
from tests.product import why_not
from tests.tolerances import assert_same_bits

# Not marked by backend: what is refused reaches no kernel, and must not count as one that ran.
RUNNING = [pytest.param(name, id=f"on_{name}") for name in devices.BACKENDS if why_not(name) is None]
FIRST = {case.op: case for case in reversed(CASES)}  # the ordinary case of each op
SIDES = re.compile(r", got | but ")  # "<what must hold>, got <what came>", or "x has 3 ... but weight expects 4"


def made(value: Any, rng: np.random.Generator) -> Any:
    """A float32 (or integer) tensor of a draw; anything else as it is."""
    if not isinstance(value, Draw):
        return value
    values = np.asarray(value.values(rng))
    tensor = gn.tensor(values, dtype=np.float32 if values.dtype.kind == "f" else np.int64)
    return tensor.requires_grad_() if value.grad and values.dtype.kind == "f" else tensor


def refused(call: Callable[[], Any], tensors: list[Any], error: type[Exception], words: tuple[str, ...]) -> str:
    """Calls, expects ``error`` with ``words``, and that nothing has changed. Returns the message."""
    tensors = [each for each in tensors if isinstance(each, gn.Tensor)]
    for each in tensors:
        if each.requires_grad:
            each.grad = gn.ones_like(each)
    before = [(each.data.copy(), each.grad, None if each.grad is None else each.grad.data.copy()) for each in tensors]
    state, backend = random.get_state(), config.local.backend
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is missing in: {message}"
    for each, (data, grad, grad_data) in zip(tensors, before, strict=True):
        assert_same_bits(each.data, data, "an input")
        assert each.grad is grad
        if each.grad is not None and grad_data is not None:
            assert_same_bits(each.grad.data, grad_data, "a .grad")
    now = random.get_state()
    assert (now["seed"], now["ops"]) == (state["seed"], state["ops"])
    np.testing.assert_equal(now["generator"], state["generator"])
    assert config.local.backend == backend
    assert gn.is_grad_enabled()
    return message


@pytest.mark.parametrize("backend", RUNNING)
@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_input_is_refused(bad: Bad, backend: str):
    rng = np.random.default_rng(0)
    tensors = [made(each, rng) for each in bad.tensors]
    args = {name: made(each, rng) for name, each in bad.args.items()}
    with gn.use_backend(backend):
        message = refused(lambda: getattr(F, bad.op)(*tensors, **args), tensors, bad.error, bad.words)
    assert message.startswith(f"{bad.op}: "), message
    assert SIDES.search(message), f"one side is missing in: {message}"


def _fault_rows() -> list[Any]:
    """Every tensor of every op's ordinary case, once replaced by an array, by integers, and by another dtype."""
    rows = []
    for op, case in FIRST.items():
        floats = [k for k, each in enumerate(case.draw("float32")) if each is not None and each.dtype.kind == "f"]
        for k in floats:
            rows += [pytest.param(op, k, what, id=f"{op}-{k}-{what}") for what in ("array", "integer")]
            if len(floats) > 1:
                rows.append(pytest.param(op, k, "float64", id=f"{op}-{k}-float64"))
    return rows


@pytest.mark.parametrize(("op", "position", "fault"), _fault_rows())
def test_wrong_kinds_are_refused(op: str, position: int, fault: str):
    case = FIRST[op]
    tensors: list[Any] = case.draw("float32")
    good = tensors[position]
    words: tuple[str, ...]
    if fault == "array":
        tensors[position], words = good.detach().numpy().copy(), ("ndarray", "gn.tensor(")
    elif fault == "integer":
        tensors[position], words = good.detach().long(), ("float", "int64")
    else:
        tensors[position], words = good.detach().double(), ("float32", "float64")
    message = refused(lambda: case.call(*tensors), tensors, DTypeError, words)
    assert message.startswith(f"{op}: "), message


def _public_ops() -> list[str]:
    return sorted(name for name, value in vars(F).items() if callable(value) and not name.startswith("_"))


@pytest.mark.parametrize("op", [name for name in _public_ops() if name != "pad"])
def test_every_public_op_has_cases_and_bad_input(op: str):
    assert op in FIRST, f"{op} has no case in tests/cases.py"
    assert any(bad.op == op for bad in BAD) or op in ("relu", "sigmoid", "tanh"), (
        f"{op} has nothing in tests/cases_bad.py"
    )


@pytest.mark.parametrize("spec", ["tpu", "gpu", "cpu:0", "cuda:-1", "cuda:x", ""])
def test_unknown_device(spec: str):
    message = refused(lambda: gn.tensor([1.0], device=spec), [], DeviceError, ("cpu", "cuda", "sim", repr(spec)))
    assert message.startswith("device: ")


@pytest.mark.skipif(cuda.why_no_cupy() is None, reason="this machine has a GPU, so nothing is asked for in vain")
@pytest.mark.parametrize(
    "ask", [lambda: gn.tensor([1.0], device="cuda"), lambda: gn.ones(2).cuda(), lambda: gn.zeros(2, device="cuda:1")]
)
def test_a_gpu_asked_for_without_one(ask: Callable[[], Any]):
    message = refused(ask, [], DeviceError, ("'cuda:", "cannot be used here"))
    assert "pip install" in message or "nvidia-smi" in message or "gpunet info" in message, message


def test_auto_takes_the_cpu_without_a_gpu():
    assert str(gn.device("auto")) == ("cpu" if cuda.why_no_cupy() else "cuda:0")


def _use(name: str) -> None:
    with gn.use_backend(name):
        F.relu(gn.ones(2))


def test_unknown_backend():
    refused(lambda: _use("cudnn"), [], NoKernelError, ("backend", "numpy", "cupy", "'cudnn'"))


@pytest.mark.parametrize("name", [pytest.param(name, id=f"no_{name}") for name in devices.BACKENDS if why_not(name)])
def test_backend_that_cannot_run(name: str):
    message = refused(lambda: _use(name), [], BackendUnavailableError, (f"'{name}'", "cannot run"))
    assert "install" in message or "nvidia-smi" in message, message


def test_unknown_variant():
    def ask() -> None:
        with gn.use_variant("matmul.forward", "fast"):
            pass

    refused(ask, [], NoKernelError, ("'fast'", "matmul.forward", "reference"))


def test_backend_without_a_kernel_of_the_entry():
    lacking = [
        (name, op)
        for name in devices.BACKENDS
        for op in ("relu",)
        if why_not(name) is None and not dispatch.variants(f"{op}.forward", name)
    ]
    if not lacking:
        pytest.skip("every backend that runs here has a kernel of relu.forward")
    refused(lambda: _use(lacking[0][0]), [], NoKernelError, ("relu.forward", lacking[0][0], "numpy: reference"))


@pytest.mark.parametrize(
    ("name", "text"), [("GPUNET_DEBUG", "7"), ("GPUNET_DEBUG", "yes"), ("GPUNET_CHECK", "2"), ("GPUNET_SEED", "-1")]
)
def test_environment_out_of_range(monkeypatch, name: str, text: str):
    monkeypatch.setenv(name, text)
    before = dict(config.settings.__dict__)
    refused(config.reload, [], GpunetError, (name, repr(text)))
    assert config.settings.__dict__ == before
