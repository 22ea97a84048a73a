"""The Numba-CUDA kernels compile to machine code without a GPU, to what is recorded, without spills."""

import importlib.util
from collections.abc import Iterator

import pytest

from gpunet import dispatch
from gpunet.cuda import compile as nvrtc
from gpunet.cuda import launch, table
from gpunet.measure import resources

if importlib.util.find_spec("numba") is None:
    pytest.skip("Numba is not installed", allow_module_level=True)

from gpunet.cuda import jit

pytestmark = pytest.mark.skipif(bool(jit.why_no_compiler()), reason=str(jit.why_no_compiler()))

OPS = resources.ops_of_numba()

#: (kernel, real, architecture) -> why it may spill or have a stack frame
SPILLS: dict[tuple[str, str, str], str] = {
    (f"matmul_forward_{rung}_kernel", "float", "sm_100"): "NVVM does not unroll the loop over the sums there, so that "
    "the 64 of them lie in memory: right, but slow"
    for rung in ("double_buffered", "warp_tiled")
}


@pytest.mark.parametrize("arch", resources.NUMBA_ARCHITECTURES)
@pytest.mark.parametrize("op", OPS)
def test_kernels_compile_to_what_is_recorded(op: str, arch: str):
    version, recorded = table.recorded()
    for signature in resources.signatures(op):
        row = resources.compiled_numba(signature, arch)
        each = row.resources
        assert each.registers > 0, row
        assert each.spill_stores == each.spill_loads == each.stack == 0 or (*row.key[:2], arch) in SPILLS, row
        assert each.shared <= launch.STATIC_SHARED
        assert row.key in recorded, f"{row.key} is not in the table; run `make resources`"
        if version == nvrtc.version():  # another linker takes other registers; what is held above holds for each
            assert recorded[row.key] == each, "the table is old; run `make resources`"


def test_the_table_has_no_rows_too_many():
    recorded = {key for key in table.recorded()[1] if table.is_numba(key)}
    called = {(each.kernel, each.real, each.told) for op in OPS for each in resources.signatures(op)}
    assert recorded == {(*kernel, arch) for kernel in called for arch in resources.NUMBA_ARCHITECTURES}
    assert set(SPILLS) <= {(kernel, real, arch) for kernel, real, _, arch in recorded}


def launchers() -> Iterator[dispatch.Kernel]:
    for op in dispatch.ops():
        for entry in dispatch.entries(op):
            yield from dispatch.variants(entry, "numba_cuda")


def test_every_rung_is_called_by_a_suite():
    """Else nothing above has compiled it."""
    called = {(each.entry, each.variant) for op in OPS for each in resources.signatures(op)}
    assert {(each.entry, each.variant) for each in launchers()} <= called
