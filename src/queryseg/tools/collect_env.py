"""`python -m queryseg.tools.collect_env`: what is installed here, and how to mend what is not."""

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import detectron2
import torch

import queryseg
from queryseg import ops
from queryseg.detectron2_seam import use_detectron2
from queryseg.ops.library import BUILD_COMMAND
from queryseg.tools.console import run_tool, say

LIBRARIES = (
    "torchvision",
    "numpy",
    "fvcore",
    "iopath",
    "omegaconf",
    "hydra-core",
    "pycocotools",
    "faster-coco-eval",
    "opencv-python-headless",
    "opencv-python",
    "Pillow",
    "scipy",
    "shapely",
    "tensorboard",
)
# One distribution is enough of these.
ALTERNATIVES = ({"opencv-python-headless", "opencv-python"},)
VARIABLES = (
    "DETECTRON2_DATASETS",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_HOME",
    "FORCE_CUDA",
    "TORCH_CUDA_ARCH_LIST",
    "QUERYSEG_NO_EXT",
    "OMP_NUM_THREADS",
)
CUDA_ROOT_VARIABLES = ("CUDA_HOME", "CUDA_PATH")


class Fact(NamedTuple):
    """One line of the report; with a cure where something is missing."""

    title: str
    value: str
    cure: str = ""


def collect() -> list[Fact]:
    """Everything about this environment that matters to QuerySeg."""
    return [
        Fact("QuerySeg", f"{queryseg.__version__} at {Path(queryseg.__file__).parent}"),
        Fact("Python", f"{platform.python_version()} ({sys.executable}), {platform.platform()}"),
        _detectron2(),
        *_torch(),
        *_build_tools(),
        *_kernels(),
        *_libraries(),
        Fact("environment", _variables() or "none of " + ", ".join(VARIABLES)),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code: 0 also where something could be mended."""
    parser = argparse.ArgumentParser(
        prog="python -m queryseg.tools.collect_env",
        description="Say what is installed, what the kernels were built for, and how to mend what "
        "is missing.",
    )
    parser.parse_args(argv)
    facts = collect()
    width = max(len(fact.title) for fact in facts) + 2
    for fact in facts:
        say(f"{fact.title:<{width}}{fact.value}")
    cures = [fact for fact in facts if fact.cure]
    say()
    say("To mend:" if cures else "Nothing is missing.")
    for fact in cures:
        say(f"  {fact.title}: {fact.cure}")
    return 0


def _detectron2() -> Fact:
    kind = use_detectron2()
    where = Path(detectron2.__file__).parent
    return Fact("Detectron2", f"{kind}, {detectron2.__version__} at {where}")


def _torch() -> list[Fact]:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    facts = [Fact("torch", f"{torch.__version__} ({build}), {torch.get_num_threads()} threads")]
    if not torch.cuda.is_available():
        return [*facts, Fact("GPU", "none that torch sees", _gpu_cure())]
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        name = torch.cuda.get_device_name(index)
        facts.append(Fact(f"GPU {index}", f"{name}, sm_{major}{minor}, {memory:.0f} GiB"))
    return facts


def _gpu_cure() -> str:
    """What to do on a machine that has a GPU which torch cannot use; nothing on any other."""
    if shutil.which("nvidia-smi") is None or not _first_line("nvidia-smi", "-L"):
        return ""
    if torch.version.cuda is None:
        return "torch is a CPU build: pip install --force-reinstall torch torchvision"
    return (
        f"the driver does not work with torch's CUDA {torch.version.cuda}: update the driver, or "
        "install a torch for an older CUDA (pytorch.org/get-started)"
    )


def _build_tools() -> list[Fact]:
    compiler, toolkit = _compiler(), _cuda_toolkit()
    return [
        Fact("C++ compiler", compiler or "none"),
        Fact("CUDA toolkit", toolkit or "none"),
        Fact("ninja", shutil.which("ninja") or "none (kernels compile one file at a time)"),
    ]


def _compiler() -> str:
    names = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    return (_first_line(found, "--version") or found) if found else ""


def _cuda_toolkit() -> str:
    roots = [Path(os.environ[name], "bin") for name in CUDA_ROOT_VARIABLES if os.environ.get(name)]
    places = [*roots, Path(shutil.which("nvcc") or "").parent, Path("/usr/local/cuda/bin")]
    for folder in places:
        if release := _line_with("release", str(folder / "nvcc"), "--version"):
            return f"{release} at {folder.parent}"
    return ""


def _kernels() -> list[Fact]:
    info = ops.build_info()
    if "problem" in info:
        value = f"not in use: {info['problem']}; pure torch takes their place"
        return [Fact("kernels", value, _missing_kernels_cure())]
    cuda, architectures = info["cuda"], info["cuda_architectures"]
    built = f"{info['compiler']}, torch {info['torch']}, CUDA {cuda or 'left out'}"
    return [
        Fact("kernels", info["path"]),
        Fact("built with", built, _cuda_kernels_cure(cuda)),
        Fact("for CPU", info["cpu_capability"]),
        Fact("for GPU", architectures or "none", _architecture_cure(architectures)),
    ]


def _missing_kernels_cure() -> str:
    if os.environ.get("QUERYSEG_NO_EXT"):
        return f"unset QUERYSEG_NO_EXT; if they were not built: {_build_command()}"
    first = "" if _compiler() else "install a C++ compiler (for example: apt install g++), then "
    return first + _build_command()


def _cuda_kernels_cure(cuda: str) -> str:
    """What a GPU that is here needs; nothing where there is none."""
    if cuda or not torch.cuda.is_available():
        return ""
    version = torch.version.cuda
    first = "" if _cuda_toolkit() else f"install the CUDA {version} toolkit with its headers, then "
    return first + _build_command()


def _architecture_cure(architectures: str) -> str:
    if not architectures or not torch.cuda.is_available():
        return ""
    here = torch.cuda.get_device_capability()
    if covers(architectures, here):
        return ""
    return f"TORCH_CUDA_ARCH_LIST={here[0]}.{here[1]} {_build_command()}"


def covers(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether kernels built for a list of architectures run on a GPU.

    Machine code runs on later GPUs of the same major number, PTX on all later ones.

    >>> covers("8.0,9.0+PTX", (8, 6)), covers("8.0,9.0+PTX", (12, 0)), covers("8.0", (9, 0))
    (True, True, False)
    """
    for entry in architectures.replace(";", ",").split(","):
        number, plus, _ = entry.strip().partition("+PTX")
        major, dot, minor = number.partition(".")
        if not dot:  # "native" and names of families: made for the GPU of the machine
            return True
        built = int(major), int("".join(filter(str.isdigit, minor)))
        if built <= capability and (plus or built[0] == capability[0]):
            return True
    return False


def _build_command() -> str:
    """The command that builds the kernels, with the path of the checkout where it is known."""
    checkout = Path(queryseg.__file__).parents[2]
    if (checkout / "setup.py").is_file():
        return BUILD_COMMAND.replace("<checkout>", f"--editable {checkout}")
    return BUILD_COMMAND


def _libraries() -> list[Fact]:
    versions = {name: _version(name) for name in LIBRARIES}
    for group in ALTERNATIVES:
        if any(versions[name] for name in group):
            for name in [name for name in group if not versions[name]]:
                del versions[name]
    return [
        Fact(name, version or "not installed", "" if version else f"pip install {name}")
        for name, version in versions.items()
    ]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _variables() -> str:
    return ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)


def _line_with(word: str, *command: str) -> str:
    """The first line of a command's output that has a word; empty where it cannot be run."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = run.stdout.splitlines() if run.returncode == 0 else []
    return next((line.strip() for line in lines if word in line), "")


def _first_line(*command: str) -> str:
    return _line_with("", *command)


if __name__ == "__main__":
    run_tool(main)
