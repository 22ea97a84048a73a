"""What a chain of :mod:`gpunet.measure.chains` needs of PyTorch, in the forms that cost it least."""

import importlib
from typing import Any

from gpunet.measure.chains import Library

torch: Any = importlib.import_module("torch")

LIBRARY = Library(lambda array, wanted: torch.tensor(array, requires_grad=wanted), torch.relu, torch.tanh)
