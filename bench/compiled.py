"""
Programs that only benchmarks need: compiled when asked for, shipped in no wheel.

Sources lie in ``bench/programs``: ``*.bpf.c`` for the kernel, ``*.c`` for processes.
"""

import runpy
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import ROOT

SOURCES = Path(__file__).parent / "programs"
HOST_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


@cache
def _folder() -> TemporaryDirectory[str]:
    """Return a folder that goes when the process does."""
    return TemporaryDirectory(prefix="outgate-bench-")


@cache
def bpf_object(name: str) -> Path:
    """Return the object of ``<name>.bpf.c``, compiled as the datapath is."""
    build = runpy.run_path(str(ROOT / "bpf" / "compile.py"))
    output = Path(_folder().name) / f"{name}.o"
    source = SOURCES / f"{name}.bpf.c"
    flags = (*build["compiler"](), *build["FLAGS"])
    subprocess.run((*flags, "-c", str(source), "-o", str(output)), check=True)
    return output


@cache
def executable(name: str) -> Path:
    """Return the program of ``<name>.c``; SystemExit without a compiler."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if not compiler:
        raise SystemExit("bench: no C compiler: install gcc or clang")
    output, source = Path(_folder().name) / name, SOURCES / f"{name}.c"
    command = (compiler, *HOST_FLAGS, "-o", str(output), str(source))
    subprocess.run(command, check=True)
    return output
