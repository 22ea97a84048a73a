"""Optimizers and learning-rate schedules, with PyTorch's names and update rules."""

from gpunet.nn.utils import clip_grad_norm_ as clip_grad_norm_
from gpunet.nn.utils import clip_grad_value_ as clip_grad_value_
from gpunet.optim import lr_scheduler as lr_scheduler
from gpunet.optim.adagrad import Adagrad as Adagrad
from gpunet.optim.adam import Adam as Adam
from gpunet.optim.adam import AdamW as AdamW
from gpunet.optim.optimizer import Optimizer as Optimizer
from gpunet.optim.rmsprop import RMSprop as RMSprop
from gpunet.optim.sgd import SGD as SGD
