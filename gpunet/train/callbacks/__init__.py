"""Callbacks: what ``fit`` calls before and after the run, each epoch and each batch."""

from gpunet.train.callbacks.base import MOMENTS, Callback, Callbacks, LambdaCallback
from gpunet.train.callbacks.files import CSVLogger, ModelCheckpoint
from gpunet.train.callbacks.rates import LearningRateScheduler, ReduceLROnPlateau
from gpunet.train.callbacks.stopping import EarlyStopping, TerminateOnNaN

__all__ = [
    "MOMENTS",
    "CSVLogger",
    "Callback",
    "Callbacks",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]
