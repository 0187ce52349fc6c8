"""
Links: attach a program to an interface (tcx), and keep it there by a pin.

A pinned link outlives the agent, even ``kill -9``.  The next agent opens the pin and
replaces the program in place (no packet passes without one).  A link whose interface
is gone stays behind as a pin with interface 0: it is stale, and removed or made anew.

Pins are named ``<hook>-<interface>`` below ``<pin directory>/outgate_links``; only
these are ever touched, and other users of an interface keep their programs.  The link
of the forwarding path has no interface (``kernel.netfilter``).
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from outgate.errors import KernelError
from outgate.kernel import netfilter, syscall
from outgate.kernel.syscall import AttachType
from outgate.state.entries import FORWARD_GUARD, AttachmentKey, Hook

FOLDER = "outgate_links"

ATTACH_TYPES = {
    Hook.FROM_CONTAINER: AttachType.TCX_INGRESS,
    Hook.TO_CONTAINER: AttachType.TCX_EGRESS,
    Hook.FROM_OVERLAY: AttachType.TCX_INGRESS,
    Hook.TO_NETDEV: AttachType.TCX_EGRESS,
    Hook.FROM_NETDEV: AttachType.TCX_INGRESS,
}
"""Which side of its interface each hook sees: a pod's way out is its veth's way in."""


@dataclass(frozen=True, slots=True)
class PinnedLink:
    """A link of ours as it is now; *ifindex* 0: it has no interface (any more)."""

    key: AttachmentKey
    program_id: int
    ifindex: int


def pin_name(key: AttachmentKey) -> str:
    """
    Return the file name of a link's pin.

    A bpf file system allows no dot in names, so ``eth0.7`` is written ``eth0%2E7``.

    >>> pin_name(AttachmentKey("eth0.7", Hook.TO_NETDEV))
    'to_netdev-eth0%2E7'
    """
    if key == FORWARD_GUARD:
        return str(key.hook)
    interface = key.interface.replace("%", "%25").replace(".", "%2E")
    return f"{key.hook}-{interface}"


def parse_pin_name(name: str) -> AttachmentKey | None:
    """Return what ``pin_name`` was made from; None for a file that is not ours."""
    if name == FORWARD_GUARD.hook:
        return FORWARD_GUARD
    hook, _, interface = name.partition("-")
    if hook not in list(Hook) or not interface:
        return None
    return AttachmentKey(interface.replace("%2E", ".").replace("%25", "%"), Hook(hook))


def observe_links(pin_dir: Path) -> tuple[PinnedLink, ...]:
    """Return every pinned link of ours."""
    folder = pin_dir / FOLDER
    if not folder.is_dir():
        return ()
    found = []
    for path in sorted(folder.iterdir()):
        if key := parse_pin_name(path.name):
            fd = _open(path)
            try:
                state = syscall.link_state(fd)
            finally:
                os.close(fd)
            ifindex = 0 if key == FORWARD_GUARD else state.ifindex
            found.append(PinnedLink(key, state.program_id, ifindex))
    return tuple(found)


def attach_guard(pin_dir: Path, program: int) -> None:
    """Make *program* guard what the host forwards, without a gap; KernelError."""
    path = pin_dir / FOLDER / pin_name(FORWARD_GUARD)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        netfilter.put_forward_link(path, program)
    except OSError as error:
        raise _refused("attach", FORWARD_GUARD, error) from error


def attach(pin_dir: Path, key: AttachmentKey, ifindex: int, program: int) -> None:
    """
    Make *program* run at *key*: in place where a link lives there, else by a new one.

    Errors: KernelError; ENODEV when the interface has just gone.
    """
    path = pin_dir / FOLDER / pin_name(key)
    if path.exists() and _is_updated(path, ifindex, program):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _refused("pin", key, error) from error
    try:
        fd = syscall.link_create(program, ifindex, ATTACH_TYPES[key.hook])
    except OSError as error:
        if error.errno == errno.EEXIST and _is_renamed(pin_dir, key, ifindex):
            return
        detail = "needs Linux 6.6" if error.errno == errno.EINVAL else ""
        raise _refused("attach", key, error, detail) from error
    try:
        syscall.obj_pin(fd, path)
    except OSError as error:
        raise _refused("pin", key, error) from error
    finally:
        os.close(fd)


def _is_renamed(pin_dir: Path, key: AttachmentKey, ifindex: int) -> bool:
    """Move the pin of a link whose interface was *key*'s under another name."""
    for link in observe_links(pin_dir):
        if link.ifindex == ifindex and link.key.hook == key.hook:
            folder = pin_dir / FOLDER
            try:
                (folder / pin_name(link.key)).rename(folder / pin_name(key))
            except OSError as error:
                raise _refused("rename the pin of", key, error) from error
            return True
    return False


def _is_updated(path: Path, ifindex: int, program: int) -> bool:
    """Replace the program of the link at *path*; False when it must be made anew."""
    fd = _open(path)
    try:
        if syscall.link_state(fd).ifindex != ifindex:
            return False
        syscall.link_update(fd, program)
    except OSError as error:
        if error.errno == errno.ENOLINK:
            return False
        raise KernelError(f"update link {path.name}", error.errno or 0) from error
    finally:
        os.close(fd)
    return True


def detach(pin_dir: Path, key: AttachmentKey) -> None:
    """Take the link at *key* off its interface and remove its pin, if there is one."""
    path = pin_dir / FOLDER / pin_name(key)
    if not path.exists():
        return
    fd = _open(path)
    try:
        syscall.link_detach(fd)
    except OSError as error:
        # ENOLINK: its interface is gone, and the link with it.
        if error.errno != errno.ENOLINK:
            raise _refused("detach", key, error) from error
    finally:
        os.close(fd)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _refused("unpin", key, error) from error


def _open(path: Path) -> int:
    try:
        return syscall.obj_get(path)
    except OSError as error:
        raise KernelError(f"open link {path}", error.errno or 0) from error


def _refused(
    verb: str, key: AttachmentKey, error: OSError, detail: str = ""
) -> KernelError:
    at = f" on {key.interface}" if key.interface else ""
    return KernelError(f"{verb} {key.hook}{at}", error.errno or 0, detail)
