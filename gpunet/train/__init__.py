"""Training with Keras' habits: a trainer, its history, and callbacks.

    trainer = Trainer(model, gn.optim.Adam(model.parameters(), lr=1e-3), loss="cross_entropy")
    history = trainer.fit(x, y, epochs=5, batch_size=64, validation_split=0.1)
    trainer.evaluate(x_test, y_test), trainer.predict(x_new)

Callbacks are subclasses of ``Callback``, or functions given to ``LambdaCallback``.
"""

from gpunet.train.callbacks import Callback, LambdaCallback, TerminateOnNaN
from gpunet.train.history import History
from gpunet.train.trainer import Trainer

__all__ = ["Callback", "History", "LambdaCallback", "TerminateOnNaN", "Trainer"]
