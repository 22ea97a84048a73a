"""Every public op is compared with PyTorch, on at least 2,000 configurations in all."""

import inspect
from pathlib import Path

import pytest

from gpunet import functional as F
from tests.peers import test_torch_layers, test_torch_tensors, test_torch_windows
from tests.peers.twins import PLANNED

pytestmark = pytest.mark.peers
MODULES = (test_torch_layers, test_torch_tensors, test_torch_windows)


def test_there_are_enough_configurations():
    assert sum(PLANNED.values()) >= 2000


@pytest.mark.parametrize("op", [name for name, value in vars(F).items() if inspect.isfunction(value)])
def test_every_op_is_compared(op: str):
    text = "".join(Path(str(module.__file__)).read_text() for module in MODULES)
    assert f"F.{op}" in text or f'"{op}"' in text, f"no test in tests/peers compares {op}"
