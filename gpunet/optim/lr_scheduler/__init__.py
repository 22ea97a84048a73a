"""Learning-rate schedules. Each sets ``group["lr"]`` of its optimizer when made, and again at every ``step()``.

Like PyTorch's, the schedules that multiply build on the rate that is there, so several can act on one optimizer.
Call ``scheduler.step()`` after ``optimizer.step()``, once an epoch or once a batch, as the schedule is meant.
"""

from gpunet.optim.lr_scheduler.base import LRScheduler as LRScheduler
from gpunet.optim.lr_scheduler.decay import CosineAnnealingLR as CosineAnnealingLR
from gpunet.optim.lr_scheduler.decay import ExponentialLR as ExponentialLR
from gpunet.optim.lr_scheduler.decay import LambdaLR as LambdaLR
from gpunet.optim.lr_scheduler.decay import MultiStepLR as MultiStepLR
from gpunet.optim.lr_scheduler.decay import StepLR as StepLR
from gpunet.optim.lr_scheduler.one_cycle import OneCycleLR as OneCycleLR
from gpunet.optim.lr_scheduler.plateau import ReduceLROnPlateau as ReduceLROnPlateau
