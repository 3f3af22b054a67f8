# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where servers write their logs, told from their settings."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._mysql import log_files as mysql
from ansible_collections.dbfleet.audit.plugins.module_utils._postgresql import log_files as postgresql

DEBIAN = "/etc/postgresql/17/main/postgresql.conf"
DEBIAN_LOG = {"path": "/var/log/postgresql/postgresql-17-main.log", "format": "stderr"}


def settings(**changed: object) -> SimpleNamespace:
    """Return what a server says that has its own collector, as installed from source."""
    asked = {
        "destinations": "stderr",
        "collected": True,
        "directory": "log",
        "filename": "postgresql-%Y-%m-%d_%H%M%S.log",
        "data_directory": "/data",
        "config_file": "/data/postgresql.conf",
        "ident": "postgres",
    }
    return SimpleNamespace(**{**asked, **changed})


@pytest.mark.parametrize(
    ("changed", "logs"),
    [
        ({}, [{"path": "/data/log/postgresql-*-*-*_*.log", "format": "stderr"}]),
        # Each format has all records: the one that cannot be mistaken, and only that one.
        (
            {"destinations": "stderr, csvlog ,jsonlog"},
            [{"path": "/data/log/postgresql-*-*-*_*.json", "format": "jsonlog"}],
        ),
        ({"destinations": "csvlog", "filename": "pg-%a"}, [{"path": "/data/log/pg-*.csv", "format": "csvlog"}]),
        ({"directory": "/var/log/pg", "filename": "100%%.log"}, [{"path": "/var/log/pg/100%.log", "format": "stderr"}]),
        ({"collected": False, "config_file": DEBIAN}, [DEBIAN_LOG]),
        # Without its collector, the server writes csvlog nowhere.
        ({"collected": False, "config_file": DEBIAN, "destinations": "csvlog,stderr"}, [DEBIAN_LOG]),
        ({"collected": False, "destinations": "syslog", "ident": "pg17"}, [{"program": "pg17"}]),
        ({"collected": False}, []),
    ],
)
def test_log_of_postgresql(changed: dict[str, object], logs: list[dict[str, str]]) -> None:
    assert postgresql.logs_of(settings(**changed)) == logs


def test_log_of_server_audit(tmp_path) -> None:
    plugin = {"datadir": "/var/lib/mysql/", "output_type": "file", "file_path": "server_audit.log", "syslog_ident": "x"}
    there = [{"path": "/var/lib/mysql/server_audit.log", "format": "server_audit"}]
    assert mysql.logs_of(plugin) == there
    assert mysql.logs_of({**plugin, "file_path": ""}) == there
    assert mysql.logs_of({**plugin, "file_path": str(tmp_path)})[0]["path"] == f"{tmp_path}/server_audit.log"
    assert mysql.logs_of({**plugin, "output_type": "SYSLOG"}) == [{"program": "x"}]
    assert mysql.logs_of({"datadir": "/var/lib/mysql/"}) == []
