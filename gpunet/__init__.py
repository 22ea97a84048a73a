"""gpunet: a kernel laboratory with a real autograd framework around it. ``import gpunet as gn``."""

from typing import Any as _Any

from gpunet import errors as errors

from gpunet.tensor import Tensor as Tensor  # isort: skip  first: tensor, graph and ops need each other
from gpunet.backward import grad as grad
from gpunet.config import use_backend as use_backend
from gpunet.config import use_fused as use_fused
from gpunet.config import use_variant as use_variant
from gpunet.cpu.buffers import pool as memory_pool  # noqa: F401 a name of its own here
from gpunet.cpu.threads import get_num_threads as get_num_threads
from gpunet.cpu.threads import set_num_threads as set_num_threads
from gpunet.creation import arange as arange
from gpunet.creation import eye as eye
from gpunet.creation import from_dlpack as from_dlpack
from gpunet.creation import from_numpy as from_numpy
from gpunet.creation import full as full
from gpunet.creation import full_like as full_like
from gpunet.creation import ones as ones
from gpunet.creation import ones_like as ones_like
from gpunet.creation import rand as rand
from gpunet.creation import rand_like as rand_like
from gpunet.creation import randn as randn
from gpunet.creation import randn_like as randn_like
from gpunet.creation import tensor as tensor
from gpunet.creation import zeros as zeros
from gpunet.creation import zeros_like as zeros_like
from gpunet.devices import device as device
from gpunet.dispatch import kernel as kernel
from gpunet.dispatch import list_kernels as list_kernels
from gpunet.explain import explain as explain
from gpunet.gradcheck import gradcheck as gradcheck
from gpunet.gradcheck import gradgradcheck as gradgradcheck
from gpunet.graph import Function as Function
from gpunet.modes import detect_anomaly as detect_anomaly
from gpunet.modes import enable_grad as enable_grad
from gpunet.modes import is_grad_enabled as is_grad_enabled
from gpunet.modes import no_grad as no_grad
from gpunet.ops.elementwise import maximum as maximum
from gpunet.ops.elementwise import minimum as minimum
from gpunet.ops.elementwise import pow as pow
from gpunet.ops.elementwise import where as where
from gpunet.ops.pointwise import abs as abs
from gpunet.ops.pointwise import clip as clip
from gpunet.ops.pointwise import cos as cos
from gpunet.ops.pointwise import exp as exp
from gpunet.ops.pointwise import log as log
from gpunet.ops.pointwise import sin as sin
from gpunet.ops.pointwise import sqrt as sqrt
from gpunet.ops.reduce import argmax as argmax
from gpunet.ops.reduce import argmin as argmin
from gpunet.ops.reduce import max as max
from gpunet.ops.reduce import mean as mean
from gpunet.ops.reduce import min as min
from gpunet.ops.reduce import sum as sum
from gpunet.ops.reduce import var as var
from gpunet.ops.shape import broadcast_to as broadcast_to
from gpunet.ops.shape import cat as cat
from gpunet.ops.shape import expand as expand
from gpunet.ops.shape import flatten as flatten
from gpunet.ops.shape import pad as pad
from gpunet.ops.shape import permute as permute
from gpunet.ops.shape import reshape as reshape
from gpunet.ops.shape import split as split
from gpunet.ops.shape import squeeze as squeeze
from gpunet.ops.shape import stack as stack
from gpunet.ops.shape import transpose as transpose
from gpunet.ops.shape import unsqueeze as unsqueeze
from gpunet.picture import graph_dot as graph_dot
from gpunet.random import manual_seed as manual_seed
from gpunet.watch import trace as trace

__version__ = "0.1.0"

_ROOMS = ("data", "functional", "io", "measure", "nn", "optim", "plot", "train")


def __getattr__(name: str) -> _Any:
    """The larger rooms are imported when first named, so that ``import gpunet`` stays light."""
    if name in _ROOMS:
        import importlib

        return importlib.import_module(f"gpunet.{name}")
    raise AttributeError(f"module 'gpunet' has no attribute {name!r}")
