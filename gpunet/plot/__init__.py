"""Pictures of training and of what a model has learned: matplotlib figures, for a file or a notebook.

    history = trainer.fit(x, y, epochs=5, validation_split=0.1)
    plot.curves(history, "curves.png")                     # or curves({"adam": history, "sgd": other})
    plot.confusion_matrix(y_test, trainer.predict(x_test), classes, "confusion.png")
    plot.filters(model.features[0])                        # without a path: shown by a notebook

Each function takes what is at hand (tensors, arrays, models), returns a ``matplotlib.figure.Figure``, and writes it
when ``path`` is given, as PNG, SVG or PDF by its suffix. matplotlib is imported on first use; pyplot and its global
state are never touched, so nothing needs a display.
"""

from gpunet.plot.graphs import graph
from gpunet.plot.inside import feature_maps, filters
from gpunet.plot.results import confusion_matrix, images, wrong_predictions
from gpunet.plot.training import curves, learning_rates
from gpunet.plot.values import gradient_norms, histograms

__all__ = [
    "confusion_matrix",
    "curves",
    "feature_maps",
    "filters",
    "gradient_norms",
    "graph",
    "histograms",
    "images",
    "learning_rates",
    "wrong_predictions",
]
