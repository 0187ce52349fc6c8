"""
Compile the datapath: ``bpf/*.bpf.c`` -> ``src/outgate/kernel/objects/*.bpf.o``.

Each source is compiled once per IP family, to ``<hook>_v4.bpf.o`` and
``<hook>_v6.bpf.o``.

Who calls it: the wheel's build hook (``hatch_build.py``) and ``make bpf``.  It needs
clang, or else the ``ziglang`` wheel, which carries one; never the running kernel's
headers.  An object that is newer than every source is left alone.
"""

import importlib.util
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

BPF = Path(__file__).resolve().parent
OBJECTS = BPF.parent / "src" / "outgate" / "kernel" / "objects"

FLAGS = (
    *("-O2", "-g", "-Wall", "-Wextra", "-Werror", "-mcpu=v3"),
    *(f"-I{BPF}", f"-I{BPF / 'vendor'}"),
    f"-ffile-prefix-map={BPF}=bpf",
)

FAMILIES = (4, 6)

HEADER_FOLDERS = ("/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu")
"""Where Debian keeps <asm/types.h>; clang does not look there for a BPF target."""


def compiler() -> list[str]:
    """Return the command that compiles C for BPF; SystemExit without one."""
    if clang := shutil.which("clang"):
        headers = [f"-I{folder}" for folder in HEADER_FOLDERS if Path(folder).is_dir()]
        return [clang, "-target", "bpfel", *headers[:1]]
    if (spec := importlib.util.find_spec("ziglang")) and spec.origin:
        root = Path(spec.origin).parent / "lib"
        headers = [
            *("-nostdinc", "-isystem", f"{root}/include"),
            *("-isystem", f"{root}/libc/include/x86-linux-any"),
            *("-isystem", f"{root}/libc/include/any-linux-any"),
        ]
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", "bpfel-freestanding"]
        return [*zig, *headers, f"-ffile-prefix-map={root}=zig"]
    raise SystemExit("outgate: no clang: install it, or `pip install ziglang`")


def compile_all(objects: Path = OBJECTS) -> list[Path]:
    """Compile what changed; return every object's path."""
    sources = sorted(BPF.glob("*.bpf.c"))
    headers = [*BPF.glob("include/*.h"), *BPF.glob("vendor/bpf/*.h"), Path(__file__)]
    newest_header = max(header.stat().st_mtime for header in headers)
    objects.mkdir(parents=True, exist_ok=True)
    built = []
    for source, family in product(sources, FAMILIES):
        hook = source.name.removesuffix(".bpf.c")
        output = objects / f"{hook}_v{family}.bpf.o"
        newest = max(newest_header, source.stat().st_mtime)
        if not output.exists() or output.stat().st_mtime < newest:
            print(f"compile {source.name} for IPv{family}", file=sys.stderr)
            flags = (*FLAGS, f"-DOUTGATE_FAMILY={family}")
            command = [*compiler(), *flags, "-c", str(source), "-o", str(output)]
            subprocess.run(command, check=True)
        built.append(output)
    for leftover in set(objects.glob("*.bpf.o")) - set(built):
        leftover.unlink()
    return built


if __name__ == "__main__":
    compile_all()
