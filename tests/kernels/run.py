"""
Runs tests on Debian's kernel 6.1, in a virtual machine that sees this one's files.

``make test-kernel`` runs ``python tests/kernels/run.py [pytest arguments]``.  The guest
has no disk and no network: it boots the packaged kernel with an initramfs made here,
mounts this machine's root by virtiofs below an overlay in memory, and runs pytest with
the Python that runs this.  What tests write ends with the guest.

The processor is the machine's own where its KVM is the hardware's, else emulated: what
a hypervisor offers in software (pvm) does not know all instructions of this kernel.

Exit status: pytest's; 0, with the reason printed, where no guest can be had.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from contract.kernel_sides import compile_tiny  # noqa: E402
from kernels.initramfs import build  # noqa: E402

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "outgate"

SLICE = (
    *("-q", "-n", str(os.cpu_count() or 1), "--color=no", "--durations=8"),
    *("tests/kernels", "tests/contract/test_clsact_linux.py"),
    "tests/contract/test_ways_linux.py",
)
"""What is run without arguments: what the verifier and the way of attaching decide."""

KERNEL = "linux-image-cloud-amd64"
"""Bookworm's 6.1, the oldest kernel that the datapath is tested on."""

PACKAGES = (KERNEL, "busybox-static")
QEMU, VIRTIOFSD = "qemu-system-x86_64", Path("/usr/lib/qemu/virtiofsd")
KVM = Path("/dev/kvm")
HARDWARE = (Path("/sys/module/kvm_intel"), Path("/sys/module/kvm_amd"))

MODULES = (
    *("virtio_pci", "virtiofs", "overlay"),
    *("veth", "vxlan", "bridge", "sch_ingress", "cls_bpf"),
    *("nf_tables", "nft_ct", "nft_chain_nat", "nft_masq", "nft_compat"),
)
"""What a kernel with /sbin/modprobe would load by itself; the guest has none."""

MEMORY_MEGABYTES, PROCESSORS = 6144, 2
EXIT = "outgate-guest-exit "


class Unavailable(Exception):
    """No guest can be had here; the message says why."""


def main(arguments: list[str]) -> int:
    """Boot, run pytest, and return its exit status."""
    started = time.monotonic()
    try:
        files = prepare()
    except Unavailable as reason:
        print(f"test-kernel: skipped: {reason}")
        return 0
    version = next(files.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
    how = accelerator()[1].partition(",")[0]
    print(f"test-kernel: booting Linux {version} ({how})", flush=True)
    with TemporaryDirectory(prefix="outgate-guest-") as folder:
        status = boot(files, version, Path(folder), arguments)
    seconds = time.monotonic() - started
    print(f"test-kernel: Linux {version}: exit {status} after {seconds:.0f} s")
    return status


def prepare() -> Path:
    """Return the folder with the unpacked packages; raise Unavailable."""
    if not shutil.which(QEMU) or not VIRTIOFSD.exists():
        raise Unavailable("no qemu: apt-get install qemu-system-x86")
    try:
        versions = [_candidate(package) for package in PACKAGES]
        target = CACHE / "kernels" / "_".join(versions).replace("/", "-")
        if not target.is_dir():
            _download(target)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"no package {KERNEL}: {error}") from error
    return target


def _candidate(package: str) -> str:
    """Return the name of the newest archive of *package*, dependencies resolved."""
    command = ("apt-cache", "depends", "--important", package)
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in shown.splitlines():
        name = line.partition("Depends: ")[2]
        if name.startswith("linux-image-"):
            return name
    return package


def _download(target: Path) -> None:
    print("test-kernel: downloading the kernel", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:
        names = [_candidate(package) for package in PACKAGES]
        subprocess.run(
            ("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names),
            check=True,
            cwd=folder,
        )
        unpacked = Path(folder) / "unpacked"
        for archive in Path(folder).glob("*.deb"):
            subprocess.run(("dpkg-deb", "-x", archive, unpacked), check=True)
        unpacked.rename(target)


def boot(files: Path, version: str, folder: Path, arguments: list[str]) -> int:
    """Run pytest in a guest, its output on ours; return its exit status."""
    initrd = folder / "initrd"
    script = guest_script(arguments, compile_tiny(folder))
    initrd.write_bytes(build(files, version, MODULES, HERE / "init", script))
    with shared_root(folder) as shared:
        machine = subprocess.Popen(
            qemu(files / "boot" / f"vmlinuz-{version}", initrd, shared),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            return _follow(machine)
        finally:
            machine.kill()
            machine.wait()


def _follow(machine: subprocess.Popen[str]) -> int:
    """Print what the guest prints; 1 where it ends without a status."""
    assert machine.stdout
    for line in machine.stdout:
        if line.startswith(EXIT):
            return int(line.removeprefix(EXIT))
        print(line.rstrip(), flush=True)
    print("test-kernel: the guest ended without a result")
    return 1


def guest_script(arguments: list[str], tiny_objects: Path) -> str:
    """Return what bash runs in the guest once the root is there."""
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments)
    return "\n".join(
        (
            "export PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin HOME=/root",
            f"export PYTHONPATH={shlex.quote(str(ROOT / 'src'))}",
            f"export OUTGATE_TINY_OBJECTS={shlex.quote(str(tiny_objects))}",
            "export PYTHONDONTWRITEBYTECODE=1 COLUMNS=88",
            "mount -t tmpfs tmpfs /run; mount -t bpf bpf /sys/fs/bpf",
            "ip link set lo up",
            f"cd {shlex.quote(str(ROOT))}",
            shlex.join(command),
            f"status=$?; echo; echo {EXIT}$status",
            "sleep 1",  # else the console may end before what was written to it
            "echo b >/proc/sysrq-trigger; sleep 10",
            "",
        )
    )


@contextmanager
def shared_root(folder: Path) -> Iterator[Path]:
    """Serve this machine's root to one guest, on the socket that is returned."""
    path = folder / "root.sock"
    options = ("-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot")
    with (folder / "virtiofsd.log").open("w") as log:
        server = subprocess.Popen(
            (VIRTIOFSD, f"--socket-path={path}", *options), stderr=log, stdout=log
        )
        try:
            while not path.exists() and server.poll() is None:
                time.sleep(0.01)
            yield path
        finally:
            server.terminate()
            server.wait()


def accelerator() -> tuple[str, ...]:
    """Return qemu's options for the guest's processor."""
    if os.access(KVM, os.R_OK | os.W_OK) and any(path.exists() for path in HARDWARE):
        return ("-accel", "kvm", "-cpu", "host")
    return ("-accel", "tcg,thread=multi", "-cpu", "max")


def qemu(kernel: Path, initrd: Path, shared: Path) -> tuple[str, ...]:
    """Return the command of a guest that ends when it reboots."""
    memory = f"memory-backend-memfd,id=memory,size={MEMORY_MEGABYTES}M,share=on"
    command_line = "console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on"
    return (
        *(QEMU, "-no-reboot", "-nodefaults", "-display", "none"),
        *("-machine", "q35,memory-backend=memory", "-cpu", "max"),
        *("-accel", "tcg,thread=multi"),
        *("-smp", str(PROCESSORS), "-m", str(MEMORY_MEGABYTES)),
        *("-object", memory, "-serial", "stdio"),
        *("-chardev", f"socket,id=root,path={shared}"),
        *("-device", "vhost-user-fs-pci,chardev=root,tag=root"),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", command_line),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="run tests on Linux 6.1")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for pytest")
    sys.exit(main(parser.parse_args().arguments or list(SLICE)))
