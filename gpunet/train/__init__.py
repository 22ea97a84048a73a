"""Training with Keras' habits: a trainer, its history, callbacks, and what keeps weights small.

    trainer = Trainer(model, gn.optim.Adam(model.parameters(), lr=1e-3), loss="cross_entropy", regularizer=L2(1e-4))
    history = trainer.fit(x, y, epochs=20, validation_split=0.1, callbacks=[
        EarlyStopping(patience=3, restore_best_weights=True), ModelCheckpoint("run.safetensors"), CSVLogger("run.csv"),
    ])
    trainer.evaluate(x_test, y_test), trainer.predict(x_new)

After an interruption the same call with ``resume="run.safetensors"`` ends where it would have ended, bit for bit.
Own callbacks are subclasses of ``Callback``, or functions given to ``LambdaCallback``.
"""

from gpunet.train.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from gpunet.train.ensemble import Gain, ensemble_gain, fit_members
from gpunet.train.history import History
from gpunet.train.penalties import L1, L1L2, L2, MaxNorm
from gpunet.train.trainer import Trainer

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "Gain",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "MaxNorm",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
    "Trainer",
    "ensemble_gain",
    "fit_members",
]
