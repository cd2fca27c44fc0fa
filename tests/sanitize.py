"""Runs the tests of the kernels under AddressSanitizer: `make asan`.

The C++ sources are compiled with it, and with the integer checks of UBSan, into a folder of their
own beside links to the package, so that the installed binary stays as it is. The sanitizer's
library has to be there before anything else in the process: Python is started with it preloaded.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VARIANTS = ("portable", "avx2", "avx512")
SANITIZERS = "address,signed-integer-overflow,shift,integer-divide-by-zero,bounds"
FLAGS = f"-fsanitize={SANITIZERS} -fno-sanitize-recover=all -fno-omit-frame-pointer -O1"
# Left out: what starts processes of its own, compiles, or measures, and has no C++ of ours in it;
# seeded bugs, which call the kernels many times in the same way.
LEFT_OUT = (
    "emulated or cuda or benchmark or variant or instruction_set or build_plan or compile "
    "or compiles or export or redirect or without_the_binary or mutations or seeded or every_seed"
)


def preloaded(compiler: str) -> str:
    """Paths of the sanitizers' libraries, as LD_PRELOAD wants them.

    Raises:
        SystemExit: the compiler has none.
    """
    paths = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so"):
        command = [compiler, f"-print-file-name={name}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(answer).is_absolute():
            raise SystemExit(f"{compiler} has no {name}: install its sanitizers (libasan)")
        paths.append(answer)
    return ":".join(paths)


def build(folder: Path) -> None:
    """The package with sanitized kernels in `folder`."""
    package = folder / "queryseg"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    environment = {
        **os.environ,
        "FORCE_CUDA": "0",
        "QUERYSEG_REQUIRE_EXT": "1",
        "CFLAGS": FLAGS,
        "LDFLAGS": f"-fsanitize={SANITIZERS}",
    }
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(folder)]
    command += ["--build-temp", str(folder / "objects")]
    log = folder / "build.log"
    with log.open("w") as stream:
        code = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        raise SystemExit(f"the sanitized build failed, see {log}")
    for entry in (ROOT / "src/queryseg").iterdir():
        if not entry.name.startswith("_C."):
            (package / entry.name).symlink_to(entry)
    for name in ("projects", "configs"):
        (package / name).symlink_to(ROOT / name)


def chosen_variant(environment: dict[str, str]) -> str:
    """The instruction set that the kernels use in this environment."""
    words = "from queryseg.ops import build_info; print(build_info()['cpu_capability'])"
    answer = subprocess.run(
        [sys.executable, "-c", words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()


def main() -> int:
    """Build, then run the tests with every instruction set; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run the kernels' tests under sanitizers.")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="only these")
    parser.add_argument("--output", type=Path, default=ROOT / "output/asan")
    options, more = parser.parse_known_args()
    folder = options.output.resolve()
    build(folder)
    for variant in options.variant or VARIANTS:
        environment = {
            **os.environ,
            "LD_PRELOAD": preloaded(os.environ.get("CXX", "g++")),
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONPATH": str(folder),
            "PYTHONMALLOC": "malloc",
            "QUERYSEG_CPU_CAPABILITY": variant,
        }
        if chosen_variant(environment) != variant:
            sys.stdout.write(f"left out: this machine has no {variant}\n")
            continue
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops"]
        command += ["-k", f"not ({LEFT_OUT})", *more]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
