"""Where the packages lie; everything else stands in pyproject.toml.

`kernels/` sits beside `refmaml/` so that a kernel engineer finds it at the top, and
imports as `refmaml.kernels`: in a wheel through `package_dir`, in a checkout through
the symbolic link `refmaml/kernels -> ../kernels`. `docs/` goes into a wheel as
`refmaml/docs`, so that an installed package brings the documents that its texts name.
The pytest plugin is also installed as `pytest_refmaml`, outside of the package: pytest
imports it at every start.
"""

from setuptools import find_packages, setup

engine = [
    p
    for p in find_packages(include=["refmaml", "refmaml.*"])
    if not p.startswith("refmaml.kernels")
]
kernels = ["refmaml.kernels"] + [f"refmaml.kernels.{p}" for p in find_packages("kernels")]

setup(
    packages=[*engine, *kernels, "refmaml.docs", "pytest_refmaml"],
    package_dir={
        "refmaml.kernels": "kernels",
        "refmaml.docs": "docs",
        "pytest_refmaml": "refmaml/pytest_plugin",
    },
    package_data={
        "refmaml": ["py.typed"],
        "refmaml.layers": ["*.md"],
        "refmaml.docs": ["*", "*/*", "*/*/*"],
        "refmaml.kernels": ["*.cu", "*/*.cu"],
        "refmaml.bench.gpu": ["*.cu"],
    },
)
