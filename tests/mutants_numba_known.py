"""What tests/mutants_numba.py knows about the kernels: further calls, and faults that change nothing."""

from typing import Any

from tests.draws import Case, away, labels, normal, positive

#: elements for which the threads of the simulator's grid, 512 at 8 floats a step, go round twice, and some are left
ROUNDS = 8221


def _rounds(op: str, draw: Any = normal, **args: Any) -> Case:
    return Case(op, f"rounds{''.join(map(str, args.values()))}", (draw(ROUNDS),), args)


def _batch_norm(name: str, *shape: int, **args: Any) -> Case:
    channel = shape[1]
    statistics = normal(channel, grad=False), positive(channel, grad=False)
    return Case("batch_norm", name, (normal(*shape), *statistics, normal(channel), normal(channel)), args)


#: calls that tests/cases.py does not make
EXTRA: list[Case] = [
    *(_batch_norm("rounds", 30, 2, 3, 7, **args) for args in ({}, {"training": True})),
    *(_batch_norm("columns", 140, 40, **args) for args in ({}, {"training": True})),
    Case(
        "layer_norm",
        "rounds",
        (normal(2, 601), normal(601), normal(601)),
        {"normalized_shape": (601,)},
        names=("weight", "bias"),
    ),
    Case("matmul", "long", (normal(3, 70), normal(70, 5))),
    Case("matmul", "long_batch", (normal(2, 3, 300), normal(2, 300, 4))),  # two parts of k for each of two matrices
    Case("conv2d", "many_filters", (normal(1, 20, 5, 5), normal(20, 20, 3, 3), normal(20))),
    *(_rounds(op, away) for op in ("relu", "leaky_relu")),
    *(_rounds(op) for op in ("sigmoid", "tanh", "gelu", "softplus", "dropout")),
    _rounds("gelu", approximate="tanh"),
    Case("dropout2d", "rounds", (normal(5, 11, 7, 7),)),
    Case("prelu", "rounds", (away(ROUNDS), normal(1))),
    *(Case("prelu", f"images_{n}x{c}x{s}", (away(n, c, s), normal(c))) for n, c, s in [(3, 5, 327), (40, 2, 32)]),
    *(Case("prelu", f"columns_{n}x{c}x{s}", (away(n, c, s), normal(c))) for n, c, s in [(301, 3, 1), (70, 3, 15)]),
    *(Case(op, "packs", (normal(1, 1040),), {"dim": 1}) for op in ("softmax", "log_softmax")),
    *(Case(op, "columns", (normal(2, 300, 3),), {"dim": 1}) for op in ("softmax", "log_softmax")),
    *(
        Case("cross_entropy", f"rounds{n}x{c}x{s}", (normal(n, c, s), labels(n, s, classes=c, ignored=3), weight), args)
        for n, c, s, weight in [(2, 601, 1, positive(601, grad=False)), (2, 300, 3, None)]
        for args in [{"label_smoothing": 0.3, "ignore_index": 3}]
    ),
]

#: (file, part of the line, kind, change) -> why it changes no result
EQUIVALENT: dict[tuple[str, str, str, str], str] = {
    (
        "batch_norm_numba_cuda",
        "if t == 0:",
        "comparison",
        "t == 0 -> t != 0",
    ): "block_sum gives the sum to every thread",
    (
        "batch_norm_numba_cuda",
        "nought if var < nought",
        "comparison",
        "var < nought -> var <= nought",
    ): "a variance of 0 becomes 0",
    ("conv2d_numba_cuda", "own[j] = oy", "off by one", "1 -> 2"): "any number below 0 says outside",
    (
        "matmul_numba_cuda",
        "one_tile(a, b, of_a, of_b, 0, K, a_col, b_row)",
        "arguments exchanged",
        "one_tile(a, b, of_a, of_b, 0, K, a_col, b_row) -> one_tile(a, b, of_a, of_b, 0, K, b_row, a_col)",
    ): "both are multiplied by the k that the sums begin with, 0",
    ("elementwise_numba", "p += 2 * step", "stride", "2 * step -> step"): "packs are computed again, to the same",
    ("philox_numba", "grown(k", "arguments exchanged", "grown(k0, W0_64) -> grown(W0_64, k0)"): "a sum",
    ("philox_numba", "grown(k", "arguments exchanged", "grown(k1, W1_64) -> grown(W1_64, k1)"): "a sum",
    ("prelu_numba_cuda", "if t == 0", "comparison", "t == 0 -> t != 0"): "block_sum gives the sum to every thread",
    (
        "prelu_numba_cuda",
        "if t == 0",
        "guard dropped",
        "if t == 0:; gw[c] = real(sum) -> if True:; gw[c] = real(sum)",
    ): "block_sum gives the sum to every thread",
    ("prelu_numba_cuda", "shared.array(32", "off by one", "32 -> 33"): "one element more than is used",
    ("prelu_numba_cuda", "part_sums(real", "off by one", "4 -> 5"): "another number of elements under way",
    ("prelu_numba_cuda", "part_sums(real", "off by one", "2 -> 3"): "another number of packs under way",
    (
        "prelu_numba_cuda",
        "part_sums(real",
        "stride",
        "2 * lanes_of(real) -> lanes_of(real)",
    ): "another number of packs under way",
    (
        "prelu_numba_cuda",
        "range(0, COUNT, W)",
        "loop bound",
        "for k in range(0, COUNT, W):; if j < end ...  (C - 1) * row) -> for k in range(0, COUNT - 1, W):; if j < ... "
        " (C - 1) * row)",
    ): "another number of elements under way",
    ("softmax_numba_cuda", "shared.array(512", "off by one", "512 -> 513"): "one element more than is used",
    ("log_softmax_numba_cuda", "shared.array(512", "off by one", "512 -> 513"): "one element more than is used",
    ("cross_entropy_numba_cuda", "shared.array(512", "off by one", "512 -> 513"): "one element more than is used",
    (
        "softmax_numba_cuda",
        "my_column(scratch, scratch)",
        "arguments exchanged",
        "my_column(scratch, scratch) -> my_column(scratch, scratch)",
    ): "twice the same",
    (
        "softmax_numba_cuda",
        "if group.at == 0",
        "comparison",
        "group.at == 0 -> group.at != 0",
    ): "after total every thread has the same numbers",
    ("softmax_numba_cuda", "if group.at == 0", "off by one", "0 -> 1"): "after total every thread has the same numbers",
    (
        "softmax_numba_cuda",
        "if group.at == 0",
        "guard dropped",
        "if group.at == 0:; sums[cuda.blockIdx.x] = sum -> if True:; sums[cuda.blockIdx.x] = sum",
    ): "after total every thread has the same numbers",
    (
        "softmax_numba_cuda",
        "if group.at == 0",
        "guard dropped",
        "if group.at == 0:; tops[cuda.blockIdx.x] ... .x] = (m, part) -> "
        "if True:; tops[cuda.blockIdx.x], sums[cu ... .x] = (m, part)",
    ): "after total every thread has the same numbers",
    ("softmax_numba_cuda", "group, 0))", "off by one", "0 -> 1"): "lanes need no scratch",
    (
        "log_softmax_numba_cuda",
        "my_column(scratch, scratch)",
        "arguments exchanged",
        "my_column(scratch, scratch) -> my_column(scratch, scratch)",
    ): "twice the same",
    (
        "log_softmax_numba_cuda",
        "if group.at == 0",
        "comparison",
        "group.at == 0 -> group.at != 0",
    ): "after total every thread has the same numbers",
    (
        "log_softmax_numba_cuda",
        "if group.at == 0",
        "off by one",
        "0 -> 1",
    ): "after total every thread has the same numbers",
    (
        "log_softmax_numba_cuda",
        "if group.at == 0",
        "guard dropped",
        "if group.at == 0:; sums[cuda.blockIdx.x] = sum -> if True:; sums[cuda.blockIdx.x] = sum",
    ): "after total every thread has the same numbers",
    (
        "log_softmax_numba_cuda",
        "if group.at == 0",
        "guard dropped",
        "if group.at == 0:; tops[cuda.blockIdx.x] ... .x] = (m, part) -> "
        "if True:; tops[cuda.blockIdx.x], sums[cu ... .x] = (m, part)",
    ): "after total every thread has the same numbers",
    ("log_softmax_numba_cuda", "group, 0))", "off by one", "0 -> 1"): "lanes need no scratch",
    (
        "cross_entropy_numba_cuda",
        "if spread != zero",
        "guard dropped",
        "if spread != zero:; cost += spread * rea ... um) - distance) -> "
        "if True:; cost += spread * real(weight * ... um) - distance)",
    ): "smoothing by 0 adds 0",
    (
        "cross_entropy_numba_cuda",
        "if cuda.threadIdx.x == 0",
        "comparison",
        "cuda.threadIdx.x == 0 -> cuda.threadIdx.x != 0",
    ): "block_sum gives the sum to every thread",
    (
        "cross_entropy_numba_cuda",
        "units > 0 and group.at == 0",
        "guard dropped",
        "units > 0 and group.at == 0 -> units > 0",
    ): "after total every thread has the same numbers",
    ("cross_entropy_numba_cuda", "my_column(0, 0)", "off by one", "0 -> 1"): "nothing meets, so no scratch",
    (
        "cross_entropy_numba_cuda",
        "my_column(0, 0)",
        "arguments exchanged",
        "my_column(0, 0) -> my_column(0, 0)",
    ): "twice the same",
    ("rows_numba", "16 >> k", "off by one", "16 -> 17"): "other pairs of lanes, until all have met",
    (
        "cross_entropy_numba_cuda",
        "if cuda.threadIdx.x == 0",
        "guard dropped",
        "if cuda.threadIdx.x == 0:; total[0] = sum -> if True:; total[0] = sum",
    ): "block_sum gives the sum to every thread",
    ("cross_entropy_numba_cuda", "np.int32(-1 if t", "off by one", "1 -> 2"): "any number below 0 says ignored",
    (
        "rows_numba",
        "four // UNIT * group.size < packs",
        "guard dropped",
        "if four // UNIT * group.size < packs:; f ... d, e); sum += e -> "
        "if True:; for k in range(four, four + 4) ... d, e); sum += e",
    ): "exponentials of -inf are 0, and only take time",
    (
        "rows_numba",
        "width, 0, 0)",
        "arguments exchanged",
        "Group(np.int32(cuda.threadIdx.x & width - 1), width, 0, 0) -> "
        "Group(np.int32(cuda.threadIdx.x & width - 1), width, 0, 0)",
    ): "twice the same",
}
