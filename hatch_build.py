"""The wheel's build hook: compile the datapath, so that users need no compiler."""

import runpy
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileDatapath(BuildHookInterface[Any]):
    """Runs ``bpf/compile.py`` before files are gathered, also for editable installs."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Without clang the build asks for the wheel that carries one."""
        return [] if shutil.which("clang") else ["ziglang"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into the package; *version* and *build_data* are hatchling's."""
        script = Path(self.root) / "bpf" / "compile.py"
        runpy.run_path(str(script))["compile_all"]()
