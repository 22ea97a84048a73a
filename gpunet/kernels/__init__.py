"""Import name of the kernels. Their files lie in the top-level folder ``kernels/``, one folder an op.

A wheel maps ``kernels/<op>`` to ``gpunet.kernels.<op>`` (setup.py). In a clone the lines below do the same, so a
plain clone, an sdist and every editable mode import the same names. There is no ``kernels/__init__.py`` on purpose:
another well-known package is called ``kernels``.
"""

from pathlib import Path

_checkout = Path(__file__).resolve().parents[2]
if (_checkout / "kernels" / "README.md").is_file():  # running from a clone, not from a wheel
    __path__.append(str(_checkout / "kernels"))
