"""Import name of the benchmark suites and peers. Their files lie in the top-level folder ``bench/``.

Works like :mod:`gpunet.kernels`: mapped by setup.py in a wheel, by the lines below in a clone.
"""

from pathlib import Path

_checkout = Path(__file__).resolve().parents[2]
if (_checkout / "bench" / "README.md").is_file():  # running from a clone, not from a wheel
    __path__.append(str(_checkout / "bench"))
