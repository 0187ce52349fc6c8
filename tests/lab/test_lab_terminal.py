"""``kubectl exec -it``: a real terminal, from the first prompt to the exit code."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator

import pytest

from lab.harness import Lab, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lab")]

POD = "net-tshoot-worker"
PROMPT = r"[#$] $"


class Terminal:
    """A user at a terminal of 30 rows and 100 columns, who runs kubectl there."""

    def __init__(self, lab: Lab, *command: str) -> None:
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            os.environ["KUBECONFIG"] = str(lab.kubeconfig)
            os.execlp("kubectl", "kubectl", "exec", "-it", POD, "--", *command)
        self.resize(30, 100)

    def resize(self, rows: int, columns: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, size)
        os.kill(self.pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def read(self, pattern: str, seconds: float = 10.0) -> str:
        """What appears until the end of it matches *pattern*."""
        seen, deadline = "", time.monotonic() + seconds
        while not re.search(pattern, seen):
            ready, _, _ = select.select([self._screen], [], [], 0.1)
            if ready:
                seen += os.read(self._screen, 1 << 16).decode()
            assert time.monotonic() < deadline, f"no {pattern!r} in {seen!r}"
        return seen

    def exit_code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        os.close(self._screen)


@pytest.fixture
def shell(lab: Lab) -> Iterator[Terminal]:
    """An interactive shell in a pod."""
    terminal = Terminal(lab, "sh")
    terminal.read(PROMPT)
    yield terminal
    terminal.close()


def test_shell_ends_with_the_code_that_was_typed(shell: Terminal) -> None:
    shell.type("exit 5\n")

    assert "tty process group" not in shell.read("exit code 5")
    assert shell.exit_code() == 5


def test_shell_follows_the_size_of_the_users_terminal(shell: Terminal) -> None:
    shell.resize(41, 133)
    time.sleep(0.5)
    shell.type("stty size\n")
    shell.read("41 133")
    shell.type("exit\n")
    shell.exit_code()


def test_interrupt_ends_the_command_and_not_the_shell(shell: Terminal) -> None:
    shell.type("sleep 1000; echo after $?\n")
    time.sleep(0.5)
    shell.type("\x03")
    shell.read(PROMPT)
    shell.type("echo still $((40 + 2))\n")
    shell.read("still 42")
    shell.type("exit\n")
    assert shell.exit_code() in (0, 130)


def test_command_of_a_killed_client_ends(lab: Lab) -> None:
    deaf = "trap '' HUP; echo read''y; sleep 12345"
    terminal = Terminal(lab, "sh", "-c", deaf)
    terminal.read("ready")
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.exit_code()
    terminal.close()

    listed = f"exec {POD} -- ps -eo args"
    wait_until(lambda: "sleep 12345" not in lab.kubectl(listed))
