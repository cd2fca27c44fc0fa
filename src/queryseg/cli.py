"""The console command `queryseg`: every tool by its name."""

import ast
import importlib.util
import pkgutil
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import queryseg
from queryseg import tools
from queryseg.tools.console import say

# Tools that live elsewhere, and modules of `queryseg.tools` that are not one.
ELSEWHERE = {"shapes": "queryseg.data.shapes.__main__"}
NO_TOOLS = ("console",)


def commands() -> dict[str, str]:
    """Command -> module of every tool."""
    names = (module.name for module in pkgutil.iter_modules(tools.__path__))
    own = {n.replace("_", "-"): f"{tools.__name__}.{n}" for n in names if n not in NO_TOOLS}
    return dict(sorted({**own, **ELSEWHERE}.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run `queryseg <command> ...` as `python -m queryseg.tools.<command> ...`.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        The exit code for the overview and for an unknown command; a tool ends the process itself.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = commands()
    if arguments and arguments[0] in known:
        sys.argv = [f"queryseg {arguments[0]}", *arguments[1:]]
        runpy.run_module(known[arguments[0]], run_name="__main__")
        return 0
    if arguments == ["--version"]:
        say(queryseg.__version__)
        return 0
    say(_overview(known))
    return 0 if not arguments or arguments[0] in ("-h", "--help") else 2


def _overview(known: dict[str, str]) -> str:
    width = max(map(len, known)) + 2
    lines = [f"  {name:<{width}}{_summary(module)}" for name, module in known.items()]
    return "\n".join(["usage: queryseg <command> [options]", "", *lines])


def _summary(module: str) -> str:
    """What a tool does: the first line of its docstring behind any "`command`: ", not imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    summary = docstring.partition("\n")[0].rpartition("`: ")[2].rstrip(".")
    return summary[:1].lower() + summary[1:]
