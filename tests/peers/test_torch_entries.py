"""Every entry as PyTorch computes it, held against the definition: what kernels are timed against does the same."""

import numpy as np
import pytest

from gpunet import dispatch
from gpunet.measure import calls, tolerances
from gpunet.measure.calls import suites

torch = pytest.importorskip("torch")
pytorch = pytest.importorskip("gpunet.bench.peers.pytorch")

SIZES = [(op, size) for op in suites.names() for size in suites.sizes(op, ("proof",))]


def test_every_entry_has_its_peer():
    assert set(pytorch.entries()) == {entry for op in dispatch.ops() for entry in dispatch.entries(op)}
    assert set(pytorch.OUTPUTS) <= set(pytorch.entries())


LAYOUTS = [("float32", False), ("float64", False), ("float32", True)]


@pytest.mark.parametrize(("dtype", "last"), LAYOUTS, ids=["float32", "float64", "channels_last"])
@pytest.mark.parametrize(("op", "size"), SIZES, ids=[f"{op}-{size.name}" for op, size in SIZES])
def test_peer_agrees_with_the_definition(op: str, size, dtype: str, last: bool):
    for case in calls.capture(suites.load(op), size, dtype, 0, second=True):
        call = case.call
        before = [None if each is None else each.copy() for each in call.arrays]
        theirs = pytorch.bind(call.entry, call.arrays, call.params, channels_last=last)()
        expected = case.expected
        pairs = pytorch.results(call.entry, expected, theirs)
        assert pairs or call.entry == "dropout.forward"
        terms = max(1.0, case.work.flops / max(1, expected[0].size))
        for wanted, got in pairs:
            error = tolerances.compare(pytorch.to_array(got.detach()).reshape(wanted.shape), wanted, terms)
            assert error.ok, (call.entry, error)
        for one, other in zip(call.arrays, before, strict=True):
            np.testing.assert_array_equal(one, other)


def test_images_lie_pixel_by_pixel_where_that_was_asked_for():
    images = np.ones((2, 3, 4, 5), np.float32), np.ones((6, 3, 1, 1), np.float32), None
    params = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    layouts = [pytorch.bind("conv2d.forward", images, params, channels_last=last)().stride(1) for last in (False, True)]
    assert layouts == [4 * 5, 1]
    assert pytorch.has_layouts(images)
    assert not pytorch.has_layouts((images[0][:, :1], images[0][:, :, :1, :1], np.ones((3, 4), np.float32), None))


def test_double_is_double():
    a = np.ones((3, 4), np.float32)
    params = {"transpose_a": False, "transpose_b": True}
    assert pytorch.bind("matmul.forward", (a, a), params, double=True)().dtype == torch.float64
    assert pytorch.bind("matmul.forward", (a, a), params)().dtype == torch.float32


def test_precision_is_set_and_put_back():
    before = torch.backends.cudnn.allow_tf32
    with pytorch.precise():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    with pytorch.precise(tf32=True):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
