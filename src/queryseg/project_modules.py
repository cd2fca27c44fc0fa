"""Finding what the methods provide, without naming a method."""

import importlib
import importlib.util
import pkgutil
from types import ModuleType


def project_modules(name: str) -> list[ModuleType]:
    """The modules `queryseg.projects.<method>.<name>` that exist, in the order of the folders."""
    projects = importlib.import_module("queryseg.projects")
    modules = (
        f"{project.name}.{name}"
        for project in pkgutil.iter_modules(projects.__path__, "queryseg.projects.")
        if project.ispkg
    )
    return [importlib.import_module(m) for m in modules if importlib.util.find_spec(m) is not None]
