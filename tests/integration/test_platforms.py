# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each distribution calls things, as the roles find it there. The distributions themselves are only claimed."""

from __future__ import annotations

import pathlib
import sys

import running
import yaml

ROLES = pathlib.Path(__file__).resolve().parents[2] / "roles"

#: Distribution and version of PostgreSQL -> the packages of pgaudit, of both drivers, and of rsyslog with TLS.
NAMES = {
    "Debian 17": "postgresql-17-pgaudit python3-psycopg2 python3-pymysql rsyslog rsyslog-openssl",
    "RedHat 14": "pgaudit16_14 python3-psycopg2 python3-PyMySQL rsyslog rsyslog-mmjsonparse rsyslog-openssl",
    "RedHat 15": "pgaudit17_15 python3-psycopg2 python3-PyMySQL rsyslog rsyslog-mmjsonparse rsyslog-openssl",
    "RedHat 17": "pgaudit_17 python3-psycopg2 python3-PyMySQL rsyslog rsyslog-mmjsonparse rsyslog-openssl",
    "Suse 17": "postgresql17-pgaudit python3-psycopg2 python3-PyMySQL rsyslog rsyslog-module-ossl",
    "Archlinux 17": "pgaudit python-psycopg2 python-pymysql rsyslog",
    # A distribution without a file of its own.
    "Gentoo 17": "postgresql-17-pgaudit python3-psycopg2 python3-pymysql rsyslog rsyslog-openssl",
}

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact: {os_family: "{{ family }}", pkg_mgr: claimed, cacheable: true}
    - ansible.builtin.include_role: {name: dbfleet.audit.audit_packages, tasks_from: platform}
    - ansible.builtin.debug:
        msg: >-
          found {{ inventory_hostname }}:
          {{ (_audit_packages_pgaudit + _audit_packages_psycopg2 + _audit_packages_pymysql + _audit_packages_rsyslog
              + _audit_packages_rsyslog_tls) | join(' ') }}
"""


def test_every_platform_has_its_own_names(tmp_path: pathlib.Path):
    hosts = {
        name.replace(" ", "-"): {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "family": name.split()[0],
            "_pgaudit_major": int(name.split()[1]),
        }
        for name in NAMES
    }
    playbook = tmp_path / "platforms.yml"
    playbook.write_text(PLAY, encoding="utf-8")
    result = running.run_playbook(str(playbook), {"all": {"hosts": hosts}})
    for name, expected in NAMES.items():
        assert f'"found {name.replace(" ", "-")}: {expected}"' in result.stdout


def test_every_platform_answers_the_same_questions():
    found = {path.stem: set(yaml.safe_load(path.read_text())) for path in (ROLES / "audit_packages/vars").glob("*.yml")}
    assert {stem: names ^ found["Debian"] for stem, names in found.items() if names != found["Debian"]} == {}
