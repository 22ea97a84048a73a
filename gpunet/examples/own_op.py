"""An op of your own with its own gradient: log(exp(a) + exp(b)) that does not overflow.

Written plainly, exp(1000) is infinite and the gradient is NaN. The op below pulls the larger number out of the
logarithm, and its backward needs nothing but the result: dy/da = exp(a - y). Because that backward is made of tensor
ops, second derivatives work too::

    $ python -m gpunet.examples.own_op
    plain    inf    gradient [nan, nan]
    own op   1000.6932    gradient [0.5, 0.5]
    second derivative at a = b = 1: 0.25, from differences: 0.25
    own_op.png written
"""

import numpy as np

import gpunet as gn


class LogAddExp(gn.Function):
    """log(exp(a) + exp(b))."""

    @staticmethod
    def forward(ctx, a, b):
        """The larger of the two, and a correction of at most log(2)."""
        m = gn.maximum(a, b)
        y = m + gn.log(gn.exp(a - m) + gn.exp(b - m))
        ctx.save_for_backward(a, b, y)
        return y

    @staticmethod
    def backward(ctx, gy):
        """Both factors lie between 0 and 1, so nothing overflows here either."""
        a, b, y = ctx.saved_tensors
        return gy * gn.exp(a - y), gy * gn.exp(b - y)


def plain(a, b):
    """The formula as it stands in a book."""
    return gn.log(gn.exp(a) + gn.exp(b))


def main(path: str = "own_op.png") -> float:
    """Prints both at 1000, and the second derivative at 1, and draws the gradients; returns that derivative."""
    for name, function in (("plain", plain), ("own op", LogAddExp.apply)):
        a, b = (gn.tensor(1000.0, requires_grad=True) for _ in range(2))
        y = function(a, b)
        slopes = [round(g.item(), 4) for g in gn.grad(y, (a, b))]
        print(f"{name:8} {y.item():.8g}    gradient {slopes}")

    def slope(value: float, create_graph: bool = False):
        a, b = (gn.tensor(v, dtype="float64", requires_grad=True) for v in (value, 1.0))
        return a, gn.grad(LogAddExp.apply(a, b), a, create_graph=create_graph)[0]

    a, first = slope(1.0, create_graph=True)
    (second,) = gn.grad(first, a)
    differences = (slope(1.001)[1] - slope(0.999)[1]) / 0.002
    print(f"second derivative at a = b = 1: {second.item():.4g}, from differences: {differences.item():.4g}")
    draw(path)
    print(f"{path} written")
    return second.item()


def draw(path: str) -> None:
    """dy/da at b = 0 for a from -10 to 120: the plain one ends where exp(a) leaves float32."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, function, style in (("own op", LogAddExp.apply, "-"), ("plain", plain, "--")):
        a = gn.tensor(np.linspace(-10, 120, 300, dtype=np.float32), requires_grad=True)
        slopes = gn.grad(function(a, gn.zeros(300)).sum(), a)[0]
        axes.plot(a.detach().numpy(), slopes.numpy(), style, label=name)
    axes.set(xlabel="a", ylabel="dy/da at b = 0", title="y = log(exp(a) + exp(b))")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
