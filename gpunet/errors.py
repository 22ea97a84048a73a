"""Every error gpunet raises on purpose.

Message form, the same on every device and backend::

    <op>: <what must hold>, got <what came>; <the choices, or the remedy>

The tree (each also is the built-in error a caller would expect, so ``except ValueError`` works too)::

    GpunetError
    ├── ShapeError                (ValueError)    two sizes disagree
    ├── DTypeError                (TypeError)     a dtype no kernel takes, or two that differ
    ├── ArgumentError             (ValueError)    any other wrong argument
    ├── DeviceError               (RuntimeError)  unknown or unusable device, tensors on two devices
    ├── BackendUnavailableError   (RuntimeError)  asked for by name and cannot run here
    ├── NoKernelError             (LookupError)   unknown backend or variant, or none takes the input
    ├── KernelError               (RuntimeError)  a kernel broke its contract (shape, dtype, NaN under GPUNET_CHECK)
    │   ├── CompileError                          CUDA C++ text that its compiler refuses
    │   └── EmulatorError                         what the emulator saw a kernel do on device ``sim``
    ├── GraphError                (RuntimeError)  backward through a freed, changed or missing graph
    │   └── AnomalyError                          NaN gradient or failing backward under detect_anomaly()
    ├── GradcheckError            (AssertionError) a gradient differs from finite differences
    └── DataError                 (ValueError)    a data file that is truncated, hostile or not what it claims
"""


class GpunetError(Exception):
    """Base class: ``except gn.errors.GpunetError`` catches everything gpunet raises on purpose."""


class ShapeError(GpunetError, ValueError):
    """Two sizes disagree, or a tensor has the wrong number of axes."""


class DTypeError(GpunetError, TypeError):
    """A dtype that no kernel takes, or two dtypes that must be equal and are not."""


class ArgumentError(GpunetError, ValueError):
    """A keyword or value outside what the op accepts."""


class DeviceError(GpunetError, RuntimeError):
    """A device that is unknown, cannot be used here, or differs between two tensors."""


class BackendUnavailableError(GpunetError, RuntimeError):
    """A backend asked for by name that cannot run here; the message says why and what to install."""


class NoKernelError(GpunetError, LookupError):
    """No such backend or variant, or none that takes these arguments."""


class KernelError(GpunetError, RuntimeError):
    """A kernel broke its contract: wrong shape or dtype, or a NaN found under ``GPUNET_CHECK=1``."""


class CompileError(KernelError):
    """CUDA C++ text that NVRTC or the host compiler refuses; the message carries the compiler's own, with lines."""


class EmulatorError(KernelError):
    """A kernel did on device ``sim`` what it must not do anywhere.

    Attributes:
        kind: "out_of_bounds", "race", ... as :mod:`gpunet.cuda.emulator.report` lists them.
        kernel: the kernel's name.
        file: name of the source file, or None where it is not known.
        line: line in it, or None.
        block: the block's x, y, z, or None where the whole launch is meant.
        thread: the thread's x, y, z, or None.
    """

    def __init__(
        self,
        message: str,
        kind: str = "",
        kernel: str = "",
        place: tuple[str | None, int | None] = (None, None),
        block: tuple[int, ...] | None = None,
        thread: tuple[int, ...] | None = None,
    ):
        super().__init__(message)
        self.kind, self.kernel, self.block, self.thread = kind, kernel, block, thread
        self.file, self.line = place


class GraphError(GpunetError, RuntimeError):
    """Backward through a graph that was freed, changed in place, or never recorded."""


class AnomalyError(GraphError):
    """A NaN gradient or a failing backward, found under ``gn.detect_anomaly()``; names the forward line."""


class GradcheckError(GpunetError, AssertionError):
    """A gradient differs from finite differences; the message is the table, ``report`` what it was made of."""

    def __init__(self, report: object):
        super().__init__(str(report))
        self.report = report


class DataError(GpunetError, ValueError):
    """A data file that is truncated, oversized, hostile, or not what it claims to be."""
