# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How containers run on this machine: which programs, flags and package mirror. Standard library only.

All that depends on the machine is found out here, so that nothing that is committed names a machine of anybody's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import resource
import shutil
import subprocess
import typing as t

DEBIAN_MIRROR = "http://deb.debian.org/debian"
PROGRAMS = ("podman", "mmdebstrap", "ssh", "ssh-keygen")

# What systemd, its sandboxed services and sshd need, and no more: a host that could set the clock or the kernel's
# parameters would set this machine's.
CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "AUDIT_WRITE")
CONFINEMENT = ("seccomp=unconfined", "apparmor=unconfined", "label=disable", "unmask=ALL")

# A machine without CAP_SYS_RESOURCE cannot raise a limit, and podman's own defaults are higher than many a limit.
LIMITS = {"nofile": (resource.RLIMIT_NOFILE, 16384), "nproc": (resource.RLIMIT_NPROC, 4096)}


class ContainerError(Exception):
    """Containers cannot run here, or one of them does not; the text says why in one line, details below it."""


class CgroupMounts(t.NamedTuple):
    """Where this machine has its control groups."""

    unified: str | None
    legacy: bool


@dataclasses.dataclass(frozen=True)
class Machine:
    """The commands and flags that run containers with systemd on this machine. Made by :func:`find_machine`."""

    as_root: tuple[str, ...]
    runtime: tuple[str, ...]
    flags: tuple[str, ...]

    def podman(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run podman and return what it printed; a failure raises with the last line that says why."""
        return self._run([*self.podman_command(), *arguments], stdin, check)

    def podman_command(self) -> list[str]:
        """Return how podman is called here."""
        return [*self.as_root, "podman", *self.runtime]

    def run(self, *command: str) -> str:
        """Run another program as root and return what it printed."""
        return self._run([*self.as_root, *command], None, True)

    @staticmethod
    def _run(command: t.Sequence[str], stdin: str | None, check: bool) -> str:
        done = subprocess.run(command, input=stdin or "", capture_output=True, text=True, check=False, cwd="/")
        if check and done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
            raise ContainerError(f"{' '.join(command[:8])} ...: {said.splitlines()[-1]}")
        return done.stdout.strip()


@functools.cache
def find_machine() -> Machine:
    """Find out how containers run here, by running one; :class:`ContainerError` says why they cannot."""
    missing = [program for program in PROGRAMS if not find_program(program)]
    if missing:
        raise ContainerError(f"not installed: {', '.join(missing)} (tests/support/setup.sh molecule installs them)")
    machine = Machine(_become_root(), *runtime_flags(cgroup_mounts()))
    try:
        # The machine's own programs on an overlay: a container that needs no image, with all that a host will need.
        machine.podman("run", "--rm", *machine.flags, "--network=none", "--rootfs", "/:O", "/bin/true")
    except ContainerError as error:
        raise ContainerError(f"containers cannot run here: {error}") from None
    return machine


def find_program(program: str) -> str | None:
    """Return where a program is, also one for root, whose directories are on nobody else's path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _become_root() -> tuple[str, ...]:
    if os.geteuid() == 0:
        return ()
    asked = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False) if shutil.which("sudo") else None
    if asked is None or asked.returncode:
        raise ContainerError("hosts with addresses of their own need root, or sudo that asks for no password")
    return ("sudo", "-n")


def cgroup_mounts(mounts: str | None = None) -> CgroupMounts:
    """Return which control groups are mounted where; ``mounts`` stands for the content of /proc/mounts."""
    text = pathlib.Path("/proc/mounts").read_text(encoding="utf-8") if mounts is None else mounts
    entries = [line.split()[1:3] for line in text.splitlines()]
    unified = [path for path, kind in entries if kind == "cgroup2"]
    return CgroupMounts(unified[0] if unified else None, any(kind == "cgroup" for _path, kind in entries))


def runtime_flags(cgroups: CgroupMounts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return podman's options and those of ``podman run``."""
    if cgroups.unified is None:
        raise ContainerError("containers cannot run here: no cgroup2 is mounted, and today's systemd needs one")
    common = (
        *(f"--cap-add={name}" for name in CAPABILITIES),
        *(f"--security-opt={option}" for option in CONFINEMENT),
        *_limits(),
        "--env=container=podman",
        # Nothing of an image is wanted there, and of the machine's own root, which the probe runs on, nothing at all.
        "--tmpfs=/run:notmpcopyup",
        "--tmpfs=/tmp:notmpcopyup",
    )
    if not cgroups.legacy:
        return (), ("--systemd=always", "--cgroupns=private", *common)
    # Both hierarchies at once: crun refuses, and podman would give systemd the old one.
    if not find_program("runc"):
        raise ContainerError("containers cannot run here: with cgroups of both kinds, runc is needed")
    return ("--runtime=runc",), ("--systemd=false", f"--volume={cgroups.unified}:/sys/fs/cgroup:rw", *common)


def _limits() -> list[str]:
    limits = []
    for name, (number, wanted) in LIMITS.items():
        hard = resource.getrlimit(number)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        limits.append(f"--ulimit={name}={value}:{value}")
    return limits


# -- packages ---------------------------------------------------------------------------------------------------------


def debian_mirror() -> str:
    """Return the mirror that this machine's apt uses for Debian, or Debian's own on another distribution."""
    # A repository of Debian's is one that has its main component and a suite called after none of its add-ons.
    pattern = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    for line in _output("apt-get", "indextargets", "--format", pattern, "Created-By: Packages").splitlines():
        uri, release, component = (line.split() + ["", "", ""])[:3]
        if component == "main" and re.search(r"/debian/?$|/debian\.list$", uri) and "-" not in release:
            return _first_of_list(uri).rstrip("/")
    return DEBIAN_MIRROR


def _first_of_list(uri: str) -> str:
    """Return a mirror's address where apt has a file with a list of them, as cloud images do."""
    if not uri.startswith("mirror+file:"):
        return uri
    with contextlib.suppress(OSError, IndexError):
        return pathlib.Path(uri.partition(":")[2]).read_text(encoding="utf-8").split()[0]
    return DEBIAN_MIRROR


def apt_options() -> list[str]:
    """Return the options with which apt reaches the mirror, from inside a host too."""
    options = ['Acquire::Check-Valid-Until "false"', 'Acquire::Languages "none"']
    wanted = re.compile(r'(Acquire::(?:https?::(?:\S+::)?Proxy|https?::Pipeline-Depth|Check-Date|ForceIPv4)) "(.+)";')
    for line in _output("apt-config", "dump").splitlines():
        match = wanted.fullmatch(line)
        if match:
            options.append(f'{match[1]} "{match[2]}"')
    for scheme in ("http", "https"):
        # apt prefers its settings to the environment, and so must we.
        proxy = os.environ.get(f"{scheme}_proxy")
        if proxy and not any(f"{scheme}::Proxy" in option for option in options):
            options.append(f'Acquire::{scheme}::Proxy "{proxy}"')
    return options


def _output(*command: str) -> str:
    """Return what a program prints, or nothing where there is no such program."""
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return ""
