"""Training: losses over steps, accuracy over seconds, what a step takes, and images with what the model said."""

import re
from collections.abc import Sequence
from html import escape

from gpunet.measure import charts
from gpunet.measure.frame import positive
from gpunet.measure.report_parts import pieces
from gpunet.measure.report_parts.pieces import Column
from gpunet.measure.rows import Curve, Report, Step

BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def section(report: Report) -> str:
    """Curves and tables; empty if nothing was trained."""
    return _curves(report) + _steps(report.steps)


def _curves(report: Report) -> str:
    if not report.training:
        return ""
    names = [each.lane for each in report.training]
    losses = charts.curves([(each.lane, each.losses) for each in report.training], "step", "loss")
    drawn = [pieces.figure("Loss of every step", losses, charts.legend(names, stroke=True)), _accuracy(report.training)]
    kernels = "".join(f"<p>{escape(each.lane)}</p>{pieces.listed(each.kernels)}" for each in report.training)
    return (
        "<p>The reference CNN on images of clothes, from the same weights and batches on every device.</p>"
        f"{pieces.figures(drawn)}{pieces.columns(CURVES, report.training)}{_agreement(report)}"
        f"<details><summary>Which kernels ran in a step</summary>{kernels}</details>"
        f"{_samples(report.training[-1])}"
    )


def _accuracy(training: Sequence[Curve]) -> str:
    """Images named rightly over seconds of training, with the target; empty if nobody wrote it down."""
    if not any(each.reached for each in training):
        return ""
    series = [(each.lane, [(point[0], point[1]) for point in each.reached if len(point) >= 2]) for each in training]
    target = next((each.target for each in training if each.target is not None), None)
    names = [each.lane for each in training]
    chart = charts.lines(series, "seconds of training", "share of held-out images right", target=target)
    return pieces.figure("Accuracy over time", chart, charts.legend(names, stroke=True))


def _agreement(report: Report) -> str:
    apart = [
        (
            escape(each.first), escape(each.second), str(each.steps), pieces.number(each.early, ".1e"),
            pieces.number(each.overall, ".1e"),
        )
        for each in report.agreement
    ]  # fmt: skip
    heads = ("losses of", "and of", "steps", "apart in the first ten", "in all")
    return pieces.table(heads, apart, 3) if apart else ""


def _right(curve: Curve) -> str:
    return (
        f"{pieces.number(100 * curve.accuracy, '.1f')} % of {curve.test_images}" if curve.accuracy is not None else ""
    )


def _to_target(curve: Curve) -> str:
    if curve.target is None:
        return ""
    took = curve.seconds_to_target
    reached = f"{pieces.number(took)} s" if took is not None else "not reached"
    return f"{pieces.number(100 * curve.target, 'g')} %: {reached}"


CURVES = (
    Column("where", lambda each: each.lane),
    Column("epochs", lambda each: pieces.number(each.epochs, ".2g"), True),
    Column("images", lambda each: str(each.train_images), True),
    Column("images/s", lambda each: pieces.number(each.images_per_second, ".0f"), True),
    Column("s an epoch", lambda each: pieces.number(each.seconds_per_epoch), True),
    Column("last loss", lambda each: pieces.number(each.losses[-1] if each.losses else None, ".4f"), True),
    Column("test images right", _right, True),
    Column("time to target", _to_target, True),
    Column("ended early", lambda each: each.stopped or "no"),
)


# ------------------------------------------------------------------------------------------------------------- steps


def _steps(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    return f"<h3>What a training step takes</h3>{pieces.columns(STEPS, steps)}"


def _rate(step: Step) -> str:
    """Images a second; of an epoch it is not known from the record alone."""
    if step.part == "epoch" or not positive(step.median):
        return ""
    return f"{step.batch_size / step.median:.0f}"


STEPS = (
    Column("model", lambda each: each.model),
    Column("where", lambda each: each.lane),
    Column("part", lambda each: each.part),
    Column("batch", lambda each: str(each.batch_size), True),
    Column("threads", lambda each: str(each.threads or ""), True, "all"),
    Column("median", lambda each: pieces.seconds(each.median), True),
    Column("95 % interval", lambda each: f"{pieces.seconds(each.low)} to {pieces.seconds(each.high)}", True),
    Column("samples", lambda each: str(each.n), True),
    Column("images/s", _rate, True),
)


# ------------------------------------------------------------------------------------------------------------ images


def _samples(curve: Curve) -> str:
    shown = []
    for each in curve.samples:
        image, true, guess = (str(each.get(key, "")) for key in ("image", "true", "predicted"))
        if not BASE64.fullmatch(image):
            continue
        told = escape(true) if true == guess else f"{escape(true)}, taken for {pieces.mark(False, guess)}"
        picture = f'<img alt="{escape(true, quote=True)}" src="data:image/png;base64,{image}">'
        shown.append(
            f'<figure class="{"hit" if true == guess else "miss"}">{picture}<figcaption>{told}</figcaption></figure>'
        )
    if not shown:
        return ""
    title = f"<h3>Test images, and what {escape(curve.lane)} took them for</h3>"
    return f'{title}<div class="samples">{"".join(shown)}</div>'
