# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The demo's fleet: servers of its own, the inventory that names them, and the playbooks that work on them."""

from __future__ import annotations

import os
import secrets
import shutil
import string
import subprocess

from local_server import STATE_FILE
from running import ROOT, PlaybookResult, run_playbook
from servers import HOME, LOGS, DemoError, MysqlServer, PostgresqlServer, Server

INVENTORY = HOME / "inventory"
REPORT = HOME / "report" / "report.html"

#: The pair of keys that the inventory names.
_KEY, _PUBLIC_KEY = HOME / "seal.pem", HOME / "seal.pub"

#: By name, the class of every server.
KINDS: dict[str, type[Server]] = {"clinic": PostgresqlServer, "bank": PostgresqlServer, "shop": MysqlServer}


class Fleet:
    """The servers by name. ``keep`` leaves them up after this process."""

    def __init__(self, keep: bool) -> None:
        self._watched = None if keep else os.getpid()
        self._password = secrets.token_urlsafe(16)
        self.servers: dict[str, Server] = {}

    def start(self) -> None:
        """Replace whatever an earlier run left, and write the inventory of what is there now."""
        stop_all()
        shutil.rmtree(HOME, ignore_errors=True)
        LOGS.mkdir(parents=True)
        for name, kind in KINDS.items():
            self.servers[name] = kind(name, self._password, self._watched)
        _openssl("genpkey", "-algorithm", "ed25519", "-out", _KEY)
        _openssl("pkey", "-in", _KEY, "-pubout", "-out", _PUBLIC_KEY)
        shutil.copytree(ROOT / "demo" / "inventory", INVENTORY)
        hosts = INVENTORY / "hosts.yml"
        hosts.chmod(0o600)
        places = {name: value for server in self.servers.values() for name, value in server.places().items()}
        hosts.write_text(string.Template(hosts.read_text("utf-8")).substitute(places), "utf-8")


def playbook(name: str, log_name: str, *options: str, fails: bool = False) -> PlaybookResult:
    """Run a playbook of the collection on the fleet, with its output in a log.

    :param fails: whether it has to fail.
    """
    result = run_playbook(ROOT / "playbooks" / name, INVENTORY, *options, check=False)
    log = LOGS / log_name
    log.write_text(result.stdout + result.stderr, encoding="utf-8")
    if bool(result.rc) is not fails:
        raise DemoError(f"ansible-playbook {name} ended with {result.rc}", log)
    return result


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def stop_all() -> bool:
    """Stop and delete the servers of this or an earlier run; tell whether there were any. The logs stay."""
    found = [name for name in KINDS if (HOME / name / STATE_FILE).exists()]
    for name in found:
        KINDS[name].LOCAL.load(HOME / name).remove()
    return bool(found)
