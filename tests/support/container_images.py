# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Images of Debian suites for hosts of tests: made by mmdebstrap, kept by podman. Standard library only.

A registry is not needed, only a Debian mirror. An image's tag is the hash of its recipe and of the month, so that one
is made when something in it changes, and once a month, because a suite such as sid moves on. What a role is to
install itself (psycopg2, pgaudit, ...) is left out on purpose.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import fcntl
import hashlib
import json
import pathlib
import subprocess
import time
import typing as t

from container_machine import ContainerError, Machine, apt_options, debian_mirror

REPOSITORY = "localhost/dbfleet-audit-host"
CACHE = pathlib.Path(__file__).resolve().parents[2] / ".cache"

# Named, because another distribution's apt does not trust Debian's keys; every Debian has the same file.
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# systemd, a way in, what Ansible needs on a host, and a clock that a single server can be given.
COMMON = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "ca-certificates", "iproute2", "procps"),
    *("python3", "python3-apt", "faketime"),
)
SERVERS = {
    "bookworm": ("postgresql-15", "mariadb-server"),
    "trixie": ("postgresql-17", "mariadb-server"),
    "sid": ("postgresql-18", "mysql-server"),
}

# What belongs to the machine and not to a host on it, or would hold apt's lock when a role wants it.
MASKED = (
    *("systemd-modules-load.service", "systemd-sysctl.service", "getty.target", "console-getty.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "systemd-networkd-wait-online.service"),
)

# A scenario starts the servers that a host is to have.
STOPPED = ("postgresql.service", "mariadb.service", "mysql.service")

# Keys that came with the image would be the same on every host.
HOST_KEY = """[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'test -e {key} || ssh-keygen -q -t ed25519 -N "" -f {key}'
ExecStartPre=/usr/sbin/sshd -t
"""
KEY_PATH = "/etc/ssh/ssh_host_ed25519_key"

# Runs as root with the new root directory as $1, before the packages and after them.
BEFORE = """set -eu
mkdir -p "$1/etc/postgresql-common/createcluster.d"
echo 'create_main_cluster = false' >"$1/etc/postgresql-common/createcluster.d/none.conf"
"""
AFTER = """set -eu
rm -f "$1"/etc/ssh/ssh_host_*
mkdir -p "$1/etc/systemd/system/ssh.service.d"
cat >"$1/etc/systemd/system/ssh.service.d/host-key.conf" <<'UNIT'
{host_key}UNIT
printf 'HostKey {key_path}\\nUseDNS no\\n' >"$1/etc/ssh/sshd_config.d/host.conf"
rm -f "$1/etc/machine-id" "$1/var/lib/dbus/machine-id" "$1/etc/hostname" "$1/var/lib/mysql/auto.cnf"
touch "$1/etc/machine-id"
for unit in {masked}; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done
for unit in {stopped}; do rm -f "$1"/etc/systemd/system/*.wants/"$unit"; done
"""


@dataclasses.dataclass(frozen=True)
class Image:
    """One suite's image, as it is to be made today."""

    suite: str
    command: tuple[str, ...]

    @property
    def tag(self) -> str:
        """The name that podman keeps it under."""
        month = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m")
        recipe = json.dumps([month, self.command])
        return f"{REPOSITORY}:{self.suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def image_of(suite: str) -> Image:
    """Return the image of a Debian suite."""
    if suite not in SERVERS:
        raise ContainerError(f"no such suite: {suite} ({', '.join(SERVERS)})")
    after = AFTER.format(
        host_key=HOST_KEY.format(key=KEY_PATH), key_path=KEY_PATH, masked=" ".join(MASKED), stopped=" ".join(STOPPED)
    )
    return Image(
        suite,
        (
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--quiet"),
            *(f"--aptopt={option}" for option in apt_options()),
            *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("man", "doc", "info", "locale")),
            "--dpkgopt=force-unsafe-io",
            # As a host in use has them: `ansible-playbook --check` can say what it would install only with them.
            "--skip=cleanup/apt/lists",
            f"--essential-hook={BEFORE}",
            f"--customize-hook={after}",
            f"--include={','.join((*COMMON, *SERVERS[suite]))}",
            *(suite, "-", f"deb [signed-by={KEYRING}] {debian_mirror()} {suite} main"),
        ),
    )


def make_images(machine: Machine, suites: t.Iterable[str]) -> dict[str, str]:
    """Make the images that are missing, side by side; return the tag of every suite."""
    images = {suite: image_of(suite) for suite in sorted(set(suites))}
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "images.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(images) or 1) as pool:
            for line in pool.map(lambda image: _make(machine, image), images.values()):
                print(line, flush=True)
    return {suite: image.tag for suite, image in images.items()}


def _make(machine: Machine, image: Image) -> str:
    """Make one image unless it is there; return the line that says which."""
    found = machine.podman("image", "ls", "--quiet", image.tag)
    if found:
        return f"image {image.tag}: kept from before"
    began = time.monotonic()
    log = CACHE / "logs" / f"image-{image.suite}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as errors:
        bootstrap = subprocess.Popen(
            [*machine.as_root, *image.command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd="/"
        )
        stored = subprocess.run(
            [*machine.podman_command(), "import", "--quiet", "-", f"{image.tag}-new"],
            stdin=bootstrap.stdout,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            check=False,
            cwd="/",
        )
        if bootstrap.stdout:
            # So that mmdebstrap ends when nobody reads any more.
            bootstrap.stdout.close()
        failed = bootstrap.wait() or stored.returncode
    # Half a file system imports as well as a whole one: only a whole one gets the name that counts.
    if failed:
        machine.podman("image", "rm", "--force", f"{image.tag}-new", check=False)
        raise ContainerError(f"no image of {image.suite}: {_reason(log)} (log: {log})")
    machine.podman("tag", f"{image.tag}-new", image.tag)
    machine.podman("untag", image.tag, f"{image.tag}-new")
    return f"image {image.tag}: made in {time.monotonic() - began:.0f} s, with {', '.join(SERVERS[image.suite])}"


def _reason(log: pathlib.Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    told = [line for line in lines if line.startswith(("E:", "Err:", "Error", "dpkg: error"))]
    return (told or lines or ["no message"])[-1]
