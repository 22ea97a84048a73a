"""Tensor: an array on a device that remembers how it was made.

The class is a face: each method hands on to an op in ``gpunet/ops``. ``t.data`` is the raw NumPy or CuPy array.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from gpunet import devices
from gpunet.devices import Device
from gpunet.errors import ArgumentError, DeviceError, DTypeError, GraphError

FLOATS = ("float32", "float64")

_new, _number = object.__new__, np.generic  # under names of this module: each tensor made looks them up


def bare(array: Any, device: Device) -> "Tensor":
    """A leaf around an array that is already on ``device``; no copy, no checks."""
    out = _new(Tensor)
    out.data, out.device, out.requires_grad = array, device, False
    out.grad = out._edge = out._version = out._hooks = None
    return out


class Tensor:
    """An array with a device and, where wanted, a gradient. Made by :func:`gpunet.tensor` and by ops.

    Args:
        data: a number, a nested list, a NumPy or CuPy array, or another tensor.
        dtype: a NumPy dtype or its name; None keeps an array's dtype, makes Python floats float32 and integers int64.
        device: "cpu", "cuda", "cuda:N", "sim" or "auto"; None keeps a CuPy array's GPU, else takes ``GPUNET_DEVICE``.
        requires_grad: whether backward shall fill ``.grad``.

    Attributes:
        data: the raw array.
        grad: the gradient as a tensor, or None before the first backward.
        requires_grad: whether a gradient flows to or through this tensor.
        device: where the array lives.
    """

    # With a dictionary, or a default in the class, each tensor takes twice as long to make.
    __slots__ = ("__weakref__", "_edge", "_hooks", "_version", "data", "device", "grad", "requires_grad")

    data: Any
    device: Device
    requires_grad: bool
    grad: "Tensor | None"
    _edge: Any  # where its gradient goes: (the node that made it, which output, Output); None for a leaf
    _version: Any
    _hooks: dict[int, Callable[[Any], Any]] | None

    __array_ufunc__ = None  # so that array * tensor reaches Tensor.__rmul__

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """What :func:`bare` gives, without array and device, for a subclass too."""
        out = _new(cls)
        out.requires_grad = False
        out.grad = out._edge = out._version = out._hooks = None
        return out

    def __init__(self, data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False):
        if isinstance(data, Tensor):
            device = data.device if device is None else device
            data = data.data
        if device is None and type(data).__module__.partition(".")[0] == "cupy":
            device = f"cuda:{data.device.id}"
        self.device = devices.device(device)
        self.data = _new_array(data, dtype, self.device)
        if requires_grad:
            self.requires_grad_()

    @classmethod
    def _wrap(cls, array: Any, device: Device) -> "Tensor":
        """A tensor around an array that is already on ``device``; no copy, no checks."""
        return bare(np.asarray(array) if isinstance(array, _number) else array, device)

    # -- what it is ----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of the elements."""
        return self.data.dtype

    @property
    def _node(self) -> Any:
        """The Function that made it; None for a leaf."""
        return self._edge and self._edge[0]

    @property
    def is_leaf(self) -> bool:
        """True when no recorded op made it: backward fills ``.grad`` of leaves alone."""
        return self._node is None

    @property
    def T(self) -> "Tensor":
        """The axes in reverse order."""
        return self.permute(*reversed(range(self.ndim)))

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of axis ``dim``."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """Number of elements."""
        return int(self.data.size)

    def __len__(self) -> int:
        if not self.ndim:
            raise ArgumentError("len: the tensor must have an axis, got a single number (shape ())")
        return self.shape[0]

    def __repr__(self) -> str:
        text = np.array2string(self.device.to_host(self.data), separator=", ", prefix="tensor(")
        extra = [f"dtype={self.dtype}"] if self.dtype not in ("float32", "int64", "bool") else []
        extra += [f"device='{self.device}'"] if self.device.kind != "cpu" else []
        if self._node is not None:
            extra.append(f"made_by={self._node.name}")
        elif self.requires_grad:
            extra.append("requires_grad=True")
        return f"tensor({', '.join([text, *extra])})"

    # -- to other worlds -----------------------------------------------------------------------------------------

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array that shares memory.

        Raises:
            GraphError: the tensor needs a gradient; detach() first.
            DeviceError: the tensor is on a GPU; cpu() first.
        """
        if self.requires_grad:
            raise GraphError("numpy: the tensor must not need a gradient, got requires_grad=True; use .detach()")
        if self.device.kind == "cuda":
            raise DeviceError(f"numpy: the tensor must be on the cpu, got {self.device}; use .cpu().numpy()")
        return self.data

    def item(self) -> Any:
        """The one element as a Python number."""
        if self.data.size != 1:
            raise ArgumentError(f"item: the tensor must hold one element, got shape {self.shape}; use .tolist()")
        return self.data.item()

    def tolist(self) -> Any:
        """The values as nested Python lists, or a number for shape ()."""
        return self.data.tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ArgumentError(f"bool: the tensor must hold one element, got shape {self.shape}; use .any() or .all()")
        return bool(self.data.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DTypeError(f"index: the tensor must hold an integer, got {self.dtype}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.data.size == 1 else repr(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if copy is False and dtype is not None and np.dtype(dtype) != array.dtype:
            raise ArgumentError(f"array: no copy is possible from {array.dtype} to {np.dtype(dtype)}; pass copy=None")
        return np.array(array, dtype, copy=copy)

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise GraphError("dlpack: the tensor must not need a gradient, got requires_grad=True; use .detach()")
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> Any:
        """CuPy's description of the array; absent (AttributeError) on the CPU, as the protocol asks."""
        if self.device.kind != "cuda":
            raise AttributeError(f"__cuda_array_interface__: the tensor must be on a GPU, got {self.device}")
        return self.data.__cuda_array_interface__

    def __reduce__(self) -> Any:
        if self._node is not None:
            raise GraphError(f"pickle: the tensor must be a leaf, got one made by {self._node.name}; use .detach()")
        return _rebuild, (type(self), self.device.to_host(self.data), str(self.device), self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._node is not None:
            raise GraphError(f"deepcopy: the tensor must be a leaf, got one made by {self._node.name}; use .detach()")
        out = type(self).__new__(type(self))
        out.data, out.device, out.requires_grad = self.data.copy(), self.device, self.requires_grad
        out.grad = None if self.grad is None else self.grad.detach().clone()
        memo[id(self)] = out
        return out

    # -- devices and dtypes --------------------------------------------------------------------------------------

    def to(self, *targets: Any, dtype: Any = None, device: Any = None) -> "Tensor":
        """This tensor as another dtype and/or on another device; itself when nothing changes. Differentiable."""
        for target in targets:
            name = target.partition(":")[0] if isinstance(target, str) else ""
            if isinstance(target, Device) or name in (*devices.KINDS, "auto"):
                device = target
            else:
                dtype = target
        return _shape.to(self, dtype, None if device is None else devices.device(device))

    def cpu(self) -> "Tensor":
        """This tensor on the CPU."""
        return self.to("cpu")

    def cuda(self, index: int = 0) -> "Tensor":
        """This tensor on GPU ``index``."""
        return self.to(f"cuda:{index}")

    def float(self) -> "Tensor":
        """This tensor as float32."""
        return self.to(np.float32)

    def double(self) -> "Tensor":
        """This tensor as float64."""
        return self.to(np.float64)

    def long(self) -> "Tensor":
        """This tensor as int64."""
        return self.to(np.int64)

    # -- graph ---------------------------------------------------------------------------------------------------

    def backward(self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
        """Adds d(self)/d(leaf) to ``.grad`` of every leaf that needs a gradient.

        Args:
            gradient: start gradient of this tensor's shape; None for a single number.
            retain_graph: keep what forward saved for another backward; None means ``create_graph``.
            create_graph: record the gradients' own graph, for higher derivatives.

        Raises:
            GraphError: nothing here needs a gradient, the graph was freed, or a saved value was changed in place. Every
                ``.grad`` is then as it was.
            ShapeError: gradient has another shape.
        """
        _backward.backward(self, gradient, retain_graph, create_graph)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Switches on (or off) that backward fills ``.grad``; returns self."""
        if requires_grad and self.dtype.kind != "f":
            raise DTypeError(f"requires_grad: only floating tensors have gradients, got {self.dtype}; use .float()")
        if not requires_grad and self._node is not None:
            raise GraphError(f"requires_grad: must stay on for a tensor made by {self._node.name}; use .detach()")
        self.requires_grad = requires_grad
        return self

    def detach(self) -> "Tensor":
        """The same memory without history: no gradient flows through."""
        out = Tensor._wrap(self.data, self.device)
        out._version = _graph.version_of(self)
        return out

    def clone(self) -> "Tensor":
        """A copy with its own memory. Differentiable."""
        return _shape.clone(self)

    def retain_grad(self) -> None:
        """Makes backward fill ``.grad`` of this tensor though it is no leaf."""
        if not self.requires_grad:
            raise GraphError("retain_grad: the tensor must need a gradient, got requires_grad=False")
        if self._node is not None:
            table = self._node.retained = self._node.retained or {}
            table[self._edge[1]] = weakref.ref(self)

    def register_hook(self, hook: Callable[[Any], Any]) -> "Hook":
        """Calls ``hook(gradient)`` in backward; what it returns, if not None, replaces the gradient.

        Returns:
            A handle; its ``remove()`` takes the hook out.
        """
        if not self.requires_grad:
            raise GraphError("register_hook: the tensor must need a gradient, got requires_grad=False")
        if self._node is None:
            table = self._hooks = {} if self._hooks is None else self._hooks
        else:
            hooks = self._node.hooks = self._node.hooks or {}
            table = hooks.setdefault(self._edge[1], {})
        return Hook(table, hook)

    def _bump(self, op: str) -> None:
        """Notes that ``op`` changed the array in place."""
        version = _graph.version_of(self)
        version.count += 1
        version.op = op

    # -- arithmetic ----------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> "Tensor":
        return _elementwise.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Tensor":
        return _elementwise.sub(self, other)

    def __rsub__(self, other: Any) -> "Tensor":
        return _elementwise.sub(other, self)

    def __mul__(self, other: Any) -> "Tensor":
        return _elementwise.mul(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Tensor":
        return _elementwise.div(self, other)

    def __rtruediv__(self, other: Any) -> "Tensor":
        return _elementwise.div(other, self)

    def __pow__(self, other: Any) -> "Tensor":
        return _elementwise.pow(self, other)

    def __rpow__(self, other: Any) -> "Tensor":
        return _elementwise.pow(other, self)

    def __neg__(self) -> "Tensor":
        return _elementwise.neg(self)

    def __pos__(self) -> "Tensor":
        return self

    def __abs__(self) -> "Tensor":
        return _pointwise.abs(self)

    def __matmul__(self, other: Any) -> "Tensor":
        return _functional().matmul(self, other)

    def __rmatmul__(self, other: Any) -> "Tensor":
        return _functional().matmul(other, self)

    def __eq__(self, other: object) -> "Tensor":  # type: ignore[override]
        return _elementwise.compare("equal", self, other) if _elementwise.is_operand(other) else NotImplemented

    def __ne__(self, other: object) -> "Tensor":  # type: ignore[override]
        return _elementwise.compare("not_equal", self, other) if _elementwise.is_operand(other) else NotImplemented

    def __lt__(self, other: Any) -> "Tensor":
        return _elementwise.compare("less", self, other)

    def __le__(self, other: Any) -> "Tensor":
        return _elementwise.compare("less_equal", self, other)

    def __gt__(self, other: Any) -> "Tensor":
        return _elementwise.compare("greater", self, other)

    def __ge__(self, other: Any) -> "Tensor":
        return _elementwise.compare("greater_equal", self, other)

    def __and__(self, other: Any) -> "Tensor":
        return _elementwise.logical("bitwise_and", self, other)

    def __or__(self, other: Any) -> "Tensor":
        return _elementwise.logical("bitwise_or", self, other)

    def __xor__(self, other: Any) -> "Tensor":
        return _elementwise.logical("bitwise_xor", self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> "Tensor":
        return _elementwise.invert(self)

    __hash__ = object.__hash__  # by identity: the graph keeps tensors in dictionaries

    def exp(self) -> "Tensor":
        """e to the power of each element."""
        return _pointwise.exp(self)

    def log(self) -> "Tensor":
        """Natural logarithm of each element."""
        return _pointwise.log(self)

    def sqrt(self) -> "Tensor":
        """Square root of each element."""
        return _pointwise.sqrt(self)

    def abs(self) -> "Tensor":
        """Absolute value of each element."""
        return _pointwise.abs(self)

    def sin(self) -> "Tensor":
        """Sine of each element, in radians."""
        return _pointwise.sin(self)

    def cos(self) -> "Tensor":
        """Cosine of each element, in radians."""
        return _pointwise.cos(self)

    def pow(self, exponent: Any) -> "Tensor":
        """Each element to the power ``exponent``."""
        return _elementwise.pow(self, exponent)

    def clip(self, min: Any = None, max: Any = None) -> "Tensor":
        """Each element, no smaller than ``min`` and no larger than ``max``."""
        return _pointwise.clip(self, min, max)

    clamp = clip

    def where(self, condition: Any, other: Any) -> "Tensor":
        """This tensor where ``condition`` holds, ``other`` elsewhere."""
        return _elementwise.where(condition, self, other)

    def relu(self) -> "Tensor":
        """The larger of each element and 0."""
        return _functional().relu(self)

    def sigmoid(self) -> "Tensor":
        """1 / (1 + exp(-x)) of each element."""
        return _functional().sigmoid(self)

    def tanh(self) -> "Tensor":
        """Hyperbolic tangent of each element."""
        return _functional().tanh(self)

    def softmax(self, dim: int) -> "Tensor":
        """exp(x) over its sum along axis ``dim``."""
        return _functional().softmax(self, dim)

    def log_softmax(self, dim: int) -> "Tensor":
        """Logarithm of the softmax along axis ``dim``."""
        return _functional().log_softmax(self, dim)

    def matmul(self, other: Any) -> "Tensor":
        """Matrix product."""
        return _functional().matmul(self, other)

    # -- reductions ----------------------------------------------------------------------------------------------

    def sum(self, dim: Any = None, keepdim: bool = False) -> "Tensor":
        """Sum over one axis, several, or all (None)."""
        return _reduce.sum(self, dim, keepdim)

    def mean(self, dim: Any = None, keepdim: bool = False) -> "Tensor":
        """Mean over one axis, several, or all (None)."""
        return _reduce.mean(self, dim, keepdim)

    def var(self, dim: Any = None, correction: int = 1, keepdim: bool = False) -> "Tensor":
        """Variance with divisor n - correction."""
        return _reduce.var(self, dim, correction, keepdim)

    def std(self, dim: Any = None, correction: int = 1, keepdim: bool = False) -> "Tensor":
        """Square root of the variance; where that is 0, so is the gradient."""
        return _reduce.std(self, dim, correction, keepdim)

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The largest element, or along one axis (values, positions)."""
        return _reduce.max(self, dim, keepdim)

    def min(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The smallest element, or along one axis (values, positions)."""
        return _reduce.min(self, dim, keepdim)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> "Tensor":
        """Position of the largest element; the first of a tie."""
        return _reduce.argmax(self, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> "Tensor":
        """Position of the smallest element; the first of a tie."""
        return _reduce.argmin(self, dim, keepdim)

    def all(self) -> "Tensor":
        """Whether every element is true (not 0)."""
        return Tensor._wrap(self.data.all(), self.device)

    def any(self) -> "Tensor":
        """Whether some element is true (not 0)."""
        return Tensor._wrap(self.data.any(), self.device)

    # -- shape ---------------------------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> "Tensor":
        """The same elements in another shape; one size may be -1. A view where memory allows."""
        return _shape.reshape(self, shape)

    def view(self, *shape: Any) -> "Tensor":
        """:meth:`reshape` that never copies.

        Raises:
            ShapeError: memory does not allow a view; use reshape.
        """
        return _shape.view(self, shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Tensor":
        """Axes ``start_dim`` to ``end_dim`` joined into one."""
        return _shape.flatten(self, start_dim, end_dim)

    def transpose(self, dim0: int, dim1: int) -> "Tensor":
        """Two axes exchanged; a view."""
        return _shape.transpose(self, dim0, dim1)

    def permute(self, *dims: Any) -> "Tensor":
        """The axes in another order; a view."""
        return _shape.permute(self, dims)

    def squeeze(self, dim: int | None = None) -> "Tensor":
        """Without axes of size 1 (all, or ``dim`` alone); a view."""
        return _shape.squeeze(self, dim)

    def unsqueeze(self, dim: int) -> "Tensor":
        """With a new axis of size 1 at ``dim``; a view."""
        return _shape.unsqueeze(self, dim)

    def expand(self, *shape: Any) -> "Tensor":
        """Axes of size 1 repeated without copying; -1 keeps a size."""
        return _shape.expand(self, shape)

    def contiguous(self) -> "Tensor":
        """Itself when C-contiguous, else a copy that is."""
        return self if self.data.flags.c_contiguous else self.clone()

    def split(self, sizes: Any, dim: int = 0) -> tuple["Tensor", ...]:
        """Pieces along an axis: of one size (the last may be smaller), or of the sizes listed; views."""
        return _shape.split(self, sizes, dim)

    def pad(self, pad: Any, value: Any = 0.0) -> "Tensor":
        """Padded with ``value``; ``pad`` counts from the last axis: (left, right, top, bottom, ...)."""
        return _shape.pad(self, pad, value=value)

    def __getitem__(self, index: Any) -> "Tensor":
        return _shape.index(self, index)

    def __contains__(self, value: Any) -> bool:
        found = self == value
        return isinstance(found, Tensor) and bool(found.any())

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[k] for k in range(len(self)))

    # -- in place ------------------------------------------------------------------------------------------------

    def __setitem__(self, index: Any, value: Any) -> None:
        _inplace.set_index(self, index, value)

    def add_(self, other: Any) -> Self:
        """Adds in place."""
        return _inplace.update("add_", self, _elementwise.add, other)

    def sub_(self, other: Any) -> Self:
        """Subtracts in place."""
        return _inplace.update("sub_", self, _elementwise.sub, other)

    def mul_(self, other: Any) -> Self:
        """Multiplies in place."""
        return _inplace.update("mul_", self, _elementwise.mul, other)

    def div_(self, other: Any) -> Self:
        """Divides in place."""
        return _inplace.update("div_", self, _elementwise.div, other)

    def clip_(self, min: Any = None, max: Any = None) -> Self:
        """Clips in place."""
        return _inplace.update("clip_", self, _pointwise.clip, min, max)

    clamp_ = clip_

    def copy_(self, source: Any) -> Self:
        """Takes over the values of ``source``, broadcast and cast."""
        return _inplace.copy(self, source)

    def fill_(self, value: Any) -> Self:
        """Sets every element to ``value``."""
        return _inplace.copy(self, value, "fill_")

    def zero_(self) -> Self:
        """Sets every element to 0."""
        return _inplace.copy(self, 0, "zero_")

    __iadd__ = add_
    __isub__ = sub_
    __imul__ = mul_
    __itruediv__ = div_


class Hook:
    """Handle of a registered hook."""

    _next = 0

    def __init__(self, table: dict[int, Callable[[Any], Any]], hook: Callable[[Any], Any]):
        self._table = table
        self._key = Hook._next
        Hook._next += 1
        table[self._key] = hook

    def remove(self) -> None:
        """Takes the hook out; a second time does nothing."""
        self._table.pop(self._key, None)


def as_dtype(op: str, dtype: Any) -> np.dtype[Any]:
    """``dtype`` as a NumPy dtype in this machine's byte order; it must be floating, integer or bool."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in "fiub":
        raise DTypeError(f"{op}: dtype must be a floating, integer or bool dtype of NumPy or its name, got {dtype!r}")
    return np.dtype(found.type)  # in the machine's byte order, and the one object that NumPy's own arrays have


def _new_array(data: Any, dtype: Any, device: Device) -> Any:
    """A fresh array of ``device``; Python floats become float32, other dtypes are kept."""
    on_gpu = type(data).__module__.partition(".")[0] == "cupy"
    if not on_gpu and not isinstance(data, np.ndarray):
        has_dtype = hasattr(data, "dtype")
        if isinstance(data, list | tuple):
            has_dtype = any(hasattr(each, "dtype") for each in data)
        try:
            data = np.asarray(data)
        except ValueError as error:
            raise DTypeError(f"tensor: data must be numbers in a regular nesting, got a ragged one ({error})") from None
        if dtype is None and not has_dtype and data.dtype == np.float64:
            dtype = np.float32
    if data.dtype.kind not in "fiub":
        raise DTypeError(f"tensor: data must be numbers in a regular nesting, got elements of dtype {data.dtype}")
    array = device.asarray(data, as_dtype("tensor", data.dtype if dtype is None else dtype))
    # asarray hands the same memory on where it can; a tensor owns its own, unlike from_numpy.
    same_side = on_gpu == (device.kind == "cuda")
    return array.copy() if same_side and device.xp.may_share_memory(array, data) else array


def _rebuild(cls: type[Tensor], array: np.ndarray, device: str, requires_grad: bool) -> Tensor:
    """Unpickles; on a machine that lacks the device the tensor arrives on the CPU, with a warning."""
    import warnings

    try:
        place = devices.device(device)
    except DeviceError as error:
        warnings.warn(f"tensor: loaded on the cpu instead of {device}: {error}", stacklevel=2)
        place = devices.CPU
    out = cls.__new__(cls)
    out.data, out.device, out.requires_grad = place.asarray(array), place, requires_grad
    return out


def _functional() -> Any:
    from gpunet import functional

    return functional


# Below the class, because these modules need it.
from gpunet import backward as _backward  # noqa: E402
from gpunet import graph as _graph  # noqa: E402
from gpunet.ops import elementwise as _elementwise  # noqa: E402
from gpunet.ops import inplace as _inplace  # noqa: E402
from gpunet.ops import pointwise as _pointwise  # noqa: E402
from gpunet.ops import reduce as _reduce  # noqa: E402
from gpunet.ops import shape as _shape  # noqa: E402
