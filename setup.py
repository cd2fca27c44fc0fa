"""Package layout of QuerySeg: `src/queryseg`, `projects/` and `configs/` under one name."""

from setuptools import find_namespace_packages, setup

ROOTS = {"queryseg": "src/queryseg", "queryseg.projects": "projects", "queryseg.configs": "configs"}


def packages() -> list[str]:
    """Every package below the three roots, under its installed name."""
    names = []
    for name, folder in ROOTS.items():
        names.append(name)
        names += [f"{name}.{inner}" for inner in find_namespace_packages(folder)]
    return names


setup(packages=packages(), package_dir=dict(ROOTS), include_package_data=False)
