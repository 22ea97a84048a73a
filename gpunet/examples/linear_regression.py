"""A straight line through noisy points, with nothing but tensors and gradients.

The points lie near y = 3 x - 2. The loss is the mean squared distance; each step moves slope and intercept against
its gradient::

    $ python -m gpunet.examples.linear_regression
    step   0  loss 1.0710  y = 0.000 x +0.000
    step  25  loss 0.1108  y = 1.923 x -1.424
    step  50  loss 0.0202  y = 2.625 x -1.798
    step  75  loss 0.0100  y = 2.861 x -1.923
    step 100  loss 0.0088  y = 2.941 x -1.965
    linear_regression.png written
"""

import numpy as np

import gpunet as gn


def main(steps: int = 100, lr: float = 0.3, seed: int = 0, path: str = "linear_regression.png") -> tuple[float, float]:
    """Fits, prints and draws; returns slope and intercept."""
    gn.manual_seed(seed)
    x = gn.rand(200)
    y = 3 * x - 2 + 0.1 * gn.randn(200)
    slope, intercept = gn.zeros(1, requires_grad=True), gn.zeros(1, requires_grad=True)
    for step in range(steps + 1):
        loss = ((slope * x + intercept - y) ** 2).mean()
        if step % max(1, steps // 4) == 0:
            print(f"step {step:3}  loss {loss.item():.4f}  y = {slope.item():.3f} x {intercept.item():+.3f}")
        g_slope, g_intercept = gn.grad(loss, (slope, intercept))
        with gn.no_grad():  # a leaf that needs a gradient may change in place only where nothing is recorded
            slope -= lr * g_slope
            intercept -= lr * g_intercept
    draw(x.numpy(), y.numpy(), slope.item(), intercept.item(), path)
    print(f"{path} written")
    return slope.item(), intercept.item()


def draw(x: np.ndarray, y: np.ndarray, slope: float, intercept: float, path: str) -> None:
    """The points and the line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, ".", color="#56B4E9", label="points")
    axes.plot([0, 1], [intercept, intercept + slope], color="#D55E00", label=f"y = {slope:.3f} x {intercept:+.3f}")
    axes.set(xlabel="x", ylabel="y", title="the line with the least squared distances")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
