"""Several classifiers that answer together."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpunet import functional as F
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn.activations import Softmax
from gpunet.nn.containers import ModuleList, Sequential
from gpunet.nn.module import Module
from gpunet.ops.checks import one_of
from gpunet.tensor import Tensor


class Ensemble(Module):
    """Several classifiers of the same classes, which answer by the mean of their probabilities or by vote.

    Each member gives logits (N, K). With ``by="mean"`` the answer is the mean of their softmax. With ``by="vote"``
    each member has one vote for its likeliest class, and the mean of the probabilities counts as half a vote more: it
    decides ties and nothing else. Either way a row adds up to 1, and its largest number is the answer.

    Members are trained one by one (``gpunet.train.fit_members``). Call ``eval()`` before use, as for any model;
    ``Trainer.evaluate`` and ``predict`` do. With ``logits=True`` losses on logits, such as cross-entropy, judge the
    ensemble as they judge a member.

    Args:
        models: the members, at least one; none of them twice.
        by: "mean" or "vote".
        logits: False for the probabilities, True for their logarithms, whose softmax they are.

    Returns:
        (N, K) for any input that every member takes.

    Raises:
        ArgumentError: no member, one twice, one that ends in a softmax, another ``by``, or something that is no Module.
        ShapeError: in forward, outputs that differ in shape or are no scores of at least two classes.

    Example:
        >>> import gpunet as gn
        >>> members = [gn.nn.SoftmaxRegression(2, 3) for _ in range(2)]
        >>> ensemble = gn.nn.Ensemble(members).eval()
        >>> round(ensemble(gn.ones(1, 2)).sum().item(), 5)
        1.0
    """

    def __init__(self, models: Iterable[Module], by: str = "mean", logits: bool = False):
        super().__init__()
        members = list(models) if not isinstance(models, Module) or isinstance(models, ModuleList) else [models]
        if not members:
            raise ArgumentError("Ensemble: models must hold at least one model, got none")
        for k, each in enumerate(members):
            if not isinstance(each, Module):
                raise ArgumentError(f"Ensemble: each member must be a gn.nn.Module, got {type(each).__name__}")
            first = next(n for n, other in enumerate(members) if other is each)
            if first != k:
                need = f"each member must be a model of its own, got one object as members {first} and {k}"
                raise ArgumentError(f"Ensemble: {need}; build a new model for each")
            if _gives_probabilities(each):
                need = f"members must give logits, got probabilities from member {k}"
                raise ArgumentError(f"Ensemble: {need}; leave its Softmax out, or pass logits=True to an Ensemble")
        self.by = one_of("Ensemble", "by", by, ("mean", "vote"))
        self.logits = bool(logits)
        self.members = ModuleList(members)

    def __len__(self) -> int:
        return len(self.members)

    def forward(self, *args: Any) -> Tensor:
        """Any input; every member gets it."""
        return self.combine(self.member_outputs(*args))

    def member_outputs(self, *args: Any) -> list[Tensor]:
        """The logits (N, K) of each member."""
        outputs = [member(*args) for member in self.members]
        for k, output in enumerate(outputs):
            got = f"shape {output.shape}" if isinstance(output, Tensor) else type(output).__name__
            if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] < 2:
                need = "members must give scores (N, K) of at least 2 classes"
                raise ShapeError(f"Ensemble: {need}, got {got} from member {k}")
            if output.shape != outputs[0].shape:
                need = f"members must give outputs of one shape, got {outputs[0].shape} from member 0"
                raise ShapeError(f"Ensemble: {need} and {output.shape} from member {k}")
        return outputs

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """The ensemble's answer (N, K) to the logits of its members."""
        total = F.softmax(outputs[0], 1)
        for output in outputs[1:]:
            total = total + F.softmax(output, 1)
        mean = total / len(outputs)
        if self.by == "vote":
            mean = (self._votes(outputs) + mean * 0.5) / (len(outputs) + 0.5)
        if not self.logits:
            return mean
        return mean.clip(min=float(np.finfo(mean.dtype).tiny)).log()  # 0 has no logarithm

    def _votes(self, outputs: Sequence[Tensor]) -> Tensor:
        """How many members each class has for itself (N, K); the first wins where a member's scores tie."""
        first = outputs[0]
        xp = first.device.xp
        votes, rows = xp.zeros(first.shape, first.dtype), xp.arange(len(first))
        for output in outputs:
            votes[rows, output.data.argmax(1)] += 1
        return Tensor(votes, device=first.device)

    def extra_repr(self) -> str:
        """How the members answer."""
        return f"by={self.by!r}" + (", logits=True" if self.logits else "")


def _gives_probabilities(model: Any) -> bool:
    """Whether it certainly ends in a softmax; of a forward of the user's own nothing is known."""
    while isinstance(model, Sequential) and len(model):
        model = model[-1]
    return isinstance(model, Softmax) or (isinstance(model, Ensemble) and not model.logits)
