"""cross_entropy on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/cross_entropy.py

import numpy as np

from gpunet.dispatch import kernel


def _targets(target, ignore_index):
    """Targets that can be used as an index, (N, 1, S), and where they are to be ignored, (N, S)."""
    ignored = target == ignore_index
    return np.where(ignored, 0, target)[:, None], ignored


def _target_weight(t, w):
    """w[t] (N, S), or 1."""
    return 1 if w is None else w[t[:, 0]]


@kernel("cross_entropy.forward", backend="numpy")
def cross_entropy_forward_reference(x, target, w, *, ignore_index, label_smoothing):
    """Loss and lse of every position."""
    C = x.shape[1]
    t, ignored = _targets(target, ignore_index)
    with np.errstate(all="ignore"):  # inf - inf
        m = x.max(axis=1)
        d = x - m[:, None]
        log_sum = np.log(np.exp(d).sum(axis=1))
        loss = log_sum - np.take_along_axis(d, t, axis=1)[:, 0]
        loss *= (1 - label_smoothing) * _target_weight(t, w)
        if label_smoothing:  # not only for speed: 0 * inf would be NaN
            costs = log_sum[:, None] - d
            if w is not None:
                costs *= w[:, None]
            loss += label_smoothing / C * costs.sum(axis=1)
        loss[ignored] = 0
        return loss, m + log_sum


@kernel("cross_entropy.grad_x", backend="numpy")
def cross_entropy_grad_x_reference(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """gx = share * p[c] - hit * [c = t] - spread * w[c], the three factors being one number a position."""
    C = x.shape[1]
    t, ignored = _targets(target, ignore_index)
    with np.errstate(all="ignore"):
        hit = gloss * ((1 - label_smoothing) * _target_weight(t, w))
        spread = gloss * (label_smoothing / C)
        share = hit + spread * (C if w is None else w.sum())
        gx = np.exp(x - lse[:, None])
        gx *= share[:, None]
        at_target = np.take_along_axis(gx, t, axis=1) - hit[:, None]
        np.put_along_axis(gx, t, at_target, axis=1)
        if label_smoothing:
            gx -= spread[:, None] if w is None else spread[:, None] * w[:, None]
        if ignored.any():
            gx = np.where(ignored[:, None], 0, gx)
    return gx
