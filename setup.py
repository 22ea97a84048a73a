"""Where the kernels and the benchmark suites live; everything else is in pyproject.toml.

``kernels/<op>`` becomes ``gpunet.kernels.<op>`` and ``bench/<part>`` becomes ``gpunet.bench.<part>``, so neither
``kernels`` nor ``bench`` is ever installed as a top-level name.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
MAPPED = {
    f"gpunet.{room}.{init.parent.name}": f"{room}/{init.parent.name}"
    for room in ("kernels", "bench")
    for init in sorted(HERE.glob(f"{room}/*/__init__.py"))
}

setup(
    packages=[*find_packages(include=["gpunet", "gpunet.*"]), *MAPPED],
    package_dir=MAPPED,
    package_data={
        "": [
            "*.cu",
            "*.cuh",
            "*.csv",
            "*.h",
            "*.cpp",
            "*.npz",
            "*.safetensors",
            "*.md",
            "*.txt",
            "*.html",
            "*.css",
            "*.schema.json",
            "py.typed",
        ]
    },
)
