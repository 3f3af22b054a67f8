# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Containers that behave as hosts, for the molecule scenarios: systemd, SSH, an address each. Standard library only.

    python3 containers.py check                     # one line: how containers run here, or why they cannot
    python3 containers.py images SUITE...           # makes the images that are missing
    python3 containers.py up --dir D --scenario S   # starts the hosts described on standard input, side by side
    python3 containers.py down --dir D --scenario S # removes them and their network; images stay
    python3 containers.py start|stop|kill|pause|unpause|cut|mend --dir D --scenario S HOST...

Standard input is a JSON list of hosts: {"name": "pg1.example.test", "suite": "trixie", "accounts": {"ops":
"(postgres) NOPASSWD: ALL"}, "tmpfs": ["/mnt/small:size=32m"]}. An account's value is what sudo lets it do; further
keys, such as molecule's platforms have, are not looked at. D gets hosts.json with the addresses, and ssh_config, with
which `ssh -F D/ssh_config HOST` and Ansible reach every host by its name, as root or as one of its accounts. Hosts
know each other by name as well. A host that was stopped or killed keeps its disk and its address, but not its tmpfs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import hashlib
import ipaddress
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import typing as t

import container_images
from container_machine import ContainerError, Machine, find_machine

LABEL = "dbfleet.audit.scenario"
STATE_FILE = "hosts.json"
KEY_FILE = "id_ed25519"
FIRST_ADDRESS = 10
START_TIMEOUT = 90

T = t.TypeVar("T")

# Runs in a new host, as root, with the public key and the accounts in place of the braces.
ACCOUNTS = """set -eu
allow() {{
    mkdir -p "$1/.ssh"
    echo '{key}' >"$1/.ssh/authorized_keys"
    chown -R "$2:" "$1/.ssh"
    chmod -R go= "$1/.ssh"
}}
allow /root root
{accounts}
"""
ACCOUNT = """id {name} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash {name}
allow /home/{name} {name}
echo '{name} ALL={rights}' >/etc/sudoers.d/{name}
"""
READY = """until systemctl is-active --quiet ssh; do sleep 0.2; done
cat /etc/ssh/ssh_host_ed25519_key.pub
"""


@dataclasses.dataclass(frozen=True)
class Host:
    """One host, as it was asked for and as it was made."""

    name: str
    suite: str
    address: str = ""
    accounts: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    tmpfs: t.Sequence[str] = ()

    @classmethod
    def described(cls, entry: t.Mapping[str, t.Any]) -> Host:
        """Return the host that an entry of the caller's list asks for."""
        return cls(**{name: entry[name] for name in ("name", "suite", "accounts", "tmpfs") if name in entry})


class Scenario:
    """The hosts of one scenario of this checkout, in a network of their own."""

    def __init__(self, machine: Machine, directory: str | os.PathLike[str], name: str) -> None:
        self.machine = machine
        self.directory = pathlib.Path(directory).absolute()
        # Two checkouts on one machine, or two users of one checkout's path, never share a host.
        self.prefix = f"audit-{hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:8]}-{name}"

    # -- life -----------------------------------------------------------------------------------------------------

    def up(self, wanted: t.Sequence[t.Mapping[str, t.Any]]) -> None:
        """Make and start hosts, all side by side; those that are there stay as they are."""
        began = time.monotonic()
        tags = container_images.make_images(self.machine, {entry["suite"] for entry in wanted})
        self.directory.mkdir(parents=True, exist_ok=True)
        key = self._key()
        hosts = self._addressed([Host.described(entry) for entry in wanted])
        names = [f"--add-host={host.name}:{host.address}" for host in hosts]
        there = set(self._containers())
        new = [host for host in hosts if self.container(host.name) not in there]
        side_by_side(lambda host: self._make(host, tags[host.suite], names), new)
        self._save(hosts)
        host_keys = side_by_side(lambda host: self._open(host, key), hosts)
        self._write_ssh_config(hosts, host_keys)
        side_by_side(lambda host: self._wait(host.name), hosts)
        print(f"{len(hosts)} hosts, {len(new)} of them new, answer by SSH: {time.monotonic() - began:.0f} s")

    def down(self) -> None:
        """Remove every host of this scenario, and its network; whatever state its files are in."""
        found = self._containers()
        if found:
            self.machine.podman("rm", "--force", "--time=0", "--volumes", *found)
        if self._network_exists():
            self.machine.podman("network", "rm", "--force", self.prefix)
        shutil.rmtree(self.directory, ignore_errors=True)
        print(f"{len(found)} hosts removed")

    def container(self, host: str) -> str:
        """Return the name of a host's container."""
        return f"{self.prefix}-{host}"

    def act(self, command: str, names: t.Sequence[str]) -> None:
        """Start, stop, kill, pause, unpause, cut or mend hosts."""
        known = {host["name"] for host in self._load()}
        for name in names:
            if name not in known:
                raise ContainerError(f"no such host: {name} ({', '.join(sorted(known))})")
        side_by_side(lambda name: self._act(command, name), names)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _act(self, command: str, name: str) -> None:
        if command in ("cut", "mend"):
            # The plug at the machine's end of the cable: the host keeps its addresses and routes, as a real one does.
            self.machine.run("ip", "link", "set", self._cable(name), "down" if command == "cut" else "up")
            return
        options = ["--time=20"] if command == "stop" else []
        self.machine.podman(command, *options, self.container(name))
        if command == "start":
            self._wait(name)

    def _cable(self, name: str) -> str:
        """Return the machine's end of a host's network interface."""
        number = self.machine.podman("exec", self.container(name), "cat", "/sys/class/net/eth0/iflink")
        for link in pathlib.Path("/sys/class/net").iterdir():
            if (link / "ifindex").read_text(encoding="utf-8").strip() == number:
                return link.name
        raise ContainerError(f"{name}: the machine's end of its network interface is not to be found")

    def _containers(self) -> list[str]:
        listed = self.machine.podman("ps", "--all", f"--filter=label={LABEL}={self.prefix}", "--format={{.Names}}")
        return listed.split()

    def _network_exists(self) -> bool:
        return self.prefix in self.machine.podman("network", "ls", "--format={{.Name}}").split()

    def _addressed(self, hosts: t.Sequence[Host]) -> list[Host]:
        """Give every host an address of the scenario's network, which is made in a range that nobody uses."""
        if not self._network_exists():
            self.machine.podman("network", "create", f"--label={LABEL}={self.prefix}", self.prefix)
        described = self.machine.podman("network", "inspect", self.prefix, "--format={{json .}}")
        # One object or a list of one, by podman's version.
        network = json.loads(described)
        network = network[0] if isinstance(network, list) else network
        subnet = ipaddress.ip_network(network["subnets"][0]["subnet"])
        known = {entry["name"]: entry["address"] for entry in self._load()}
        taken = set(known.values())
        free = (str(address) for address in list(subnet.hosts())[FIRST_ADDRESS:] if str(address) not in taken)
        return [dataclasses.replace(host, address=known.get(host.name) or next(free)) for host in hosts]

    def _make(self, host: Host, image: str, names: t.Sequence[str]) -> None:
        self.machine.podman(
            *("run", "--detach", f"--name={self.container(host.name)}", f"--hostname={host.name}"),
            *(f"--label={LABEL}={self.prefix}", f"--network={self.prefix}", f"--ip={host.address}"),
            *self.machine.flags,
            *(f"--tmpfs={entry}" for entry in host.tmpfs),
            *names,
            *(image, "/sbin/init"),
        )

    def _open(self, host: Host, key: str) -> str:
        """Let the scenario's key in; return the host's own."""
        accounts = "".join(ACCOUNT.format(name=name, rights=rights) for name, rights in host.accounts.items())
        script = ACCOUNTS.format(key=key, accounts=accounts) + READY
        container = self.container(host.name)
        return self.machine.podman(
            *("exec", "--interactive", container, "timeout", str(START_TIMEOUT), "sh", "-s"), stdin=script
        )

    def _wait(self, name: str) -> None:
        """Wait until systemd has started all that it is to start, and SSH lets us in to hear so."""
        config = self.directory / "ssh_config"
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            command = ["ssh", "-F", config, f"root@{name}", "systemctl is-system-running --wait"]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            state = done.stdout.strip()
            if state == "running":
                return
            if state == "degraded" or time.monotonic() > deadline:
                failed = self.machine.podman("exec", self.container(name), "systemctl", "--failed", "--no-legend")
                raise ContainerError(f"{name} does not start: {state or done.stderr.strip()} {failed}")
            time.sleep(0.3)

    # -- files ----------------------------------------------------------------------------------------------------

    def _key(self) -> str:
        """Return the public key of the scenario, made unless it is there."""
        private = self.directory / KEY_FILE
        if not private.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.prefix, "-f", os.fspath(private)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return private.with_suffix(".pub").read_text(encoding="utf-8").strip()

    def _load(self) -> list[dict[str, t.Any]]:
        path = self.directory / STATE_FILE
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def _save(self, hosts: t.Sequence[Host]) -> None:
        state = [dataclasses.asdict(host) for host in hosts]
        (self.directory / STATE_FILE).write_text(json.dumps(state, indent=2), encoding="utf-8")

    def _write_ssh_config(self, hosts: t.Sequence[Host], host_keys: t.Sequence[str]) -> None:
        known = [f"{host.name} {host_key}" for host, host_key in zip(hosts, host_keys)]
        (self.directory / "known_hosts").write_text("\n".join(known) + "\n", encoding="utf-8")
        blocks = [f"Host {host.name}\n    Hostname {host.address}\n    HostKeyAlias {host.name}\n" for host in hosts]
        blocks.append(
            "Host *\n"
            f'    IdentityFile "{self.directory / KEY_FILE}"\n'
            f'    UserKnownHostsFile "{self.directory / "known_hosts"}"\n'
            "    GlobalKnownHostsFile none\n    IdentitiesOnly yes\n    StrictHostKeyChecking yes\n"
            "    BatchMode yes\n    ConnectTimeout 10\n    LogLevel ERROR\n"
        )
        (self.directory / "ssh_config").write_text("\n".join(blocks), encoding="utf-8")


def side_by_side(work: t.Callable[[t.Any], T], entries: t.Sequence[t.Any]) -> list[T]:
    """Do something with every entry at the same time; the first failure is raised when all have ended."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(entries) or 1) as pool:
        return list(pool.map(work, entries))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Containers that behave as hosts, for the molecule scenarios.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="say how containers run here, or why they cannot")
    images = commands.add_parser("images", help="make the images of Debian suites that are missing")
    images.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(container_images.SERVERS)}; or all")
    for name in ("up", "down", "start", "stop", "kill", "pause", "unpause", "cut", "mend"):
        command = commands.add_parser(name)
        command.add_argument("--dir", required=True, help="directory for the scenario's key and addresses")
        command.add_argument("--scenario", required=True, help="name of the scenario, part of the containers' names")
        if name not in ("up", "down"):
            command.add_argument("hosts", nargs="+", metavar="HOST")
    return parser


def main() -> int:
    """Run the command line."""
    options = _parser().parse_args()
    try:
        machine = find_machine()
        if options.command == "check":
            print(f"{' '.join(machine.podman_command())} run {' '.join(machine.flags)}")
        elif options.command == "images":
            container_images.make_images(machine, options.suites or container_images.SERVERS)
        else:
            scenario = Scenario(machine, options.dir, options.scenario)
            if options.command == "up":
                scenario.up(json.load(sys.stdin))
            elif options.command == "down":
                scenario.down()
            else:
                scenario.act(options.command, options.hosts)
    except ContainerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
