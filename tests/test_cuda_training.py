"""LeNet-5 on real digits, on device ``sim``: every heavy op through CUDA C++ kernels, and NumPy's losses."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import gpunet as gn
from gpunet import dispatch
from tests.emulated import needs_emulator

pytestmark = [needs_emulator, pytest.mark.cupy]

#: trains on the device of GPUNET_DEVICE and prints losses and launches
PROGRAM = """
import json
import numpy as np
import gpunet as gn
from gpunet import functional as F, nn, optim

gn.manual_seed(0)
digits = gn.data.load("digits8")
model = nn.LeNet5(image_size=16)
{double}
sgd = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
losses, launches = [], set()
for step in range({steps}):
    images = np.kron(digits.x_train[16 * step : 16 * step + 16], np.ones((2, 2), np.float32)).astype(np.{dtype})
    with gn.trace() as lines:
        loss = F.cross_entropy(model(gn.tensor(images)), gn.tensor(digits.y_train[16 * step : 16 * step + 16]))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    losses.append(loss.item())
    launches |= {{f"{{line.entry}}/{{line.backend}}" for line in lines}}
print(json.dumps([losses, sorted(launches)]))
"""


def trained(device: str, dtype: str, steps: int = 4, **settings: str) -> tuple[list[float], set[str]]:
    double = "model.double()" if dtype == "float64" else ""
    program = PROGRAM.format(dtype=dtype, steps=steps, double=double)
    environment = {**os.environ, "GPUNET_DEVICE": device, **settings}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses, launches = json.loads(done.stdout)
    return losses, set(launches)


@pytest.mark.parametrize(("dtype", "close"), [("float32", 2e-5), ("float64", 1e-12)])
def test_lenet_trains_on_sim_as_on_the_cpu(dtype: str, close: float):
    on_sim, launches = trained("sim", dtype)
    on_cpu, definitions = trained("cpu", dtype, GPUNET_BACKEND="numpy")
    np.testing.assert_allclose(on_sim, on_cpu, rtol=close)
    heavy = {"conv2d", "avg_pool2d", "relu", "matmul", "cross_entropy"}
    assert {each.partition(".")[0] for each in launches} == heavy
    assert {each.partition("/")[2] for each in launches} == {"cupy"}
    assert {each.partition("/")[2] for each in definitions} == {"numpy"}
    wanted = {"conv2d.grad_x", "conv2d.grad_w", "conv2d.grad_b", "avg_pool2d.grad_x", "cross_entropy.grad_x"}
    assert wanted <= {each.partition("/")[0] for each in launches}


def test_every_entry_has_cuda_kernels():
    lacking = [e for op in dispatch.ops() for e in dispatch.entries(op) if not dispatch.variants(e, "cupy")]
    assert lacking == []


def test_explain_names_the_rung_of_a_product_and_why_not_the_others():
    a, b = gn.randn(40, 33, device="sim"), gn.randn(33, 20, device="sim")
    told = gn.explain("matmul.forward", a, b)
    assert told.taken is not None
    assert told.taken.startswith("matmul.forward/cupy/")
    rows = {row.name.rpartition("/")[2]: row for row in told.rows if "/cupy/" in row.name}
    assert set(rows) == {each.variant for each in dispatch.variants("matmul.forward", "cupy")}
    assert all(row.reason for row in rows.values())
    assert "40x33" in str(told)
