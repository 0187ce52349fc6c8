"""What a measurement needs on the machine, and what to install where it is missing."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable

TOOLS = {
    "bpftool": "bpftool",
    "ethtool": "ethtool",
    "ip": "iproute2",
    "nft": "nftables",
    "setpriv": "util-linux",
    "taskset": "util-linux",
    "unshare": "util-linux",
}
"""Debian's packages by command."""

COMPILERS = ("cc", "clang")


def missing(
    is_chart_wanted: bool,
    find: Callable[[str], object] = shutil.which,
    find_module: Callable[[str], object] = importlib.util.find_spec,
) -> str:
    """Return a line that says what to install, empty where all is there."""
    packages = {package for tool, package in TOOLS.items() if not find(tool)}
    if not find("clang") and not find_module("ziglang"):
        packages.add("clang")
    if not any(map(find, COMPILERS)):
        packages.add("gcc")
    mends = [_apt_get(packages)] if packages else []
    if is_chart_wanted and not find_module("matplotlib"):
        mends.append(".venv/bin/pip install -e '.[bench]' (matplotlib, for charts)")
    return "bench: something is missing: " + "; ".join(mends) if mends else ""


def _apt_get(packages: Iterable[str]) -> str:
    return "apt-get install " + " ".join(sorted(packages))


def refusal(is_chart_wanted: bool) -> str:
    """Return why nothing can be measured here, empty if it can."""
    if os.geteuid() != 0:
        return "bench: needs root, to make namespaces and load programs"
    return missing(is_chart_wanted)
