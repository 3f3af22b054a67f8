# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two servers that the documentation's examples are about, and runs of Ansible with these examples on them."""

from __future__ import annotations

import functools
import pathlib
import re
import sys
import typing as t

import documented_names as names
import running
import yaml
from auditing import install_trail
from databases import Database
from documentation import Block, left
from local_mysql import LocalMysql
from local_postgresql import LocalPostgresql
from mysql_databases import Schema

from ansible_collections.dbfleet.audit.plugins.plugin_utils._rollout import (
    database_problems,
    match_problems,
    plain_exceptions,
    server_problems,
    targets,
)

Variables = dict[str, t.Any]
Run = t.Callable[..., running.ModuleResult]

POSTGRESQL_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_preload_libraries": "pgaudit",
    "wal_level": "logical",
    "log_connections": "on",
    "log_line_prefix": "%m [%p] %q%u@%d %h %a ",
}
#: The tables of each database, as the examples name them.
_TABLES = {
    "shop": """
        CREATE TABLE users (id int PRIMARY KEY, email text, phone text, ssn text, password_hash text,
                            search_vector tsvector);
        CREATE TABLE orders (id int PRIMARY KEY, user_id int, customer_id int, status text);
        CREATE TABLE customers (id int PRIMARY KEY, email text);
        CREATE TABLE patients (id int PRIMARY KEY, ssn text, iban text, diagnosis text, card_number text);
        CREATE SCHEMA billing;
        CREATE TABLE billing.invoices (invoice_id int PRIMARY KEY, status text);
        CREATE TABLE billing.import_lines (id int PRIMARY KEY);
        CREATE TABLE billing.tmp_load (id int PRIMARY KEY);
        INSERT INTO billing.invoices VALUES (17, 'open');
    """,
    "clinic": """
        CREATE SCHEMA care; CREATE TABLE care.patients (id int PRIMARY KEY, ssn text, diagnosis text);
        CREATE SCHEMA billing; CREATE TABLE billing.invoices (invoice_id int PRIMARY KEY);
    """,
    "telemetry": """
        CREATE TABLE reading (reading_id int PRIMARY KEY, value numeric);
        CREATE SCHEMA billing; CREATE TABLE billing.usage (id int PRIMARY KEY);
        INSERT INTO reading VALUES (17, 20);
    """,
    "tenant_a": "CREATE TABLE users (id int PRIMARY KEY)",
    "billing": "CREATE TABLE invoices (invoice_id int PRIMARY KEY)",
}
_ROLES = ("shop_app", "compliance", "monitoring", "backup", "shop_owner")
#: What has happened by the time that the log is asked, on behalf of ada.lee.
_STORY = """
    SELECT audit.set_context('{"user": "ada.lee", "business_process": "billing"}');
    INSERT INTO users (id, email) VALUES (17, 'a@example.com');
    UPDATE users SET email = 'ada@example.com' WHERE id = 17;
"""
_MYSQL_TABLES = (
    ("shop", "users (id INT PRIMARY KEY, phone TEXT, ssn TEXT, password_hash TEXT)"),
    ("billing", "invoices (invoice_id INT PRIMARY KEY)"),
    ("billing", "tmp_load (id INT PRIMARY KEY)"),
)
#: The page whose variables are rolled out; those of others are predicted.
ROLLED_OUT = "README.md"
#: Where an example says nothing of policies.
_POLICIES = [{"tables": ["*.*"]}]


class Fleet:
    """A PostgreSQL server and a MariaDB or MySQL server, and a folder with an inventory and playbooks."""

    def __init__(self, folder: pathlib.Path, postgresql: LocalPostgresql, mysql: LocalMysql) -> None:
        self.folder, self.postgresql, self.mysql = folder, postgresql, mysql
        self.databases = {name: Database(postgresql, name) for name in _TABLES}
        for role in _ROLES:
            self.databases["shop"].execute(f"CREATE ROLE {role} LOGIN")
        for name, tables in _TABLES.items():
            self.databases[name].execute(tables)
        self.schemas = {name: Schema(mysql, name) for name, _table in _MYSQL_TABLES}
        for name, table in _MYSQL_TABLES:
            self.schemas[name].execute(f"CREATE TABLE {table}")
        for account in ("shop_app", "compliance", "cdc"):
            self.schemas["shop"].execute(f"CREATE USER '{account}'@'%' IDENTIFIED BY 'Secret-of-the-4-tests'")
        reading = "BINLOG MONITOR" if mysql.is_mariadb else "REPLICATION CLIENT"
        self.schemas["shop"].execute(f"GRANT REPLICATION SLAVE, {reading} ON *.* TO 'cdc'@'%'")
        self._folders()
        self._inventory()

    def _folders(self) -> None:
        """Make the files that examples name: the server's log, an option file's folder."""
        (self.folder / "log").mkdir()
        (self.folder / "log" / "postgresql-1.log").symlink_to(self.postgresql.log)
        options = self.mysql.socket_dir / "conf.d"
        options.mkdir(mode=0o755)
        with self.mysql.option_file.open("a", encoding="utf-8") as opened:
            opened.write(f"!includedir {options}\n")

    @property
    def logins(self) -> dict[str, dict[str, t.Any]]:
        """What brings a module to its server, by the word that its name begins with; to the shop, unless told."""
        return {"postgresql": self.databases["shop"].login, "mysql": self.schemas["shop"].login}

    def _inventory(self) -> None:
        groups: dict[str, dict[str, t.Any]] = {"all": {"vars": {"ansible_connection": "local"}}}
        groups["all"]["vars"]["ansible_python_interpreter"] = sys.executable
        groups["all"]["vars"]["ansible_async_dir"] = str(self.folder / "async")
        # The files of an example are on somebody else's host.
        groups["all"]["vars"]["audit_shipping_local"] = False
        # Pages on what is done with seals leave to another page how they are made.
        groups["all"]["vars"]["audit_seal_signing_key"] = "/etc/dbfleet/seal.pem"
        inventory = self.folder / "inventory"
        (inventory / "host_vars").mkdir(parents=True)
        for block in left("yaml"):
            for group in (*preflights_of(block), "examples"):
                groups.setdefault(group, {"hosts": {}})["hosts"][block.host] = {}
            host_vars = inventory / "host_vars" / f"{block.host}.yml"
            host_vars.write_text(yaml.safe_dump(variables_up_to(block)), encoding="utf-8")
        (inventory / "hosts.yml").write_text(yaml.safe_dump(groups), encoding="utf-8")

    # -- variables of roles -----------------------------------------------------------------------------------------

    def roll_out(self) -> None:
        """Do what the roles do with the variables of the page that is rolled out, and have the log filled."""
        for block in left("yaml"):
            if block.page == ROLLED_OUT and names.kind(block) == "variables":
                self.apply(block, check_mode=False)
        self.databases["shop"].execute(_STORY)
        install_trail(self.databases["telemetry"])

    def apply(self, block: Block, check_mode: bool = True) -> int:
        """Run the modules with the variables of a block as the roles run them; return how many were run.

        :raises ModuleError: when a module refuses what it is given.
        """
        given = variables_up_to(block)
        run = functools.partial(self._run_module, check_mode=check_mode)
        return sum(
            step(run, given)
            for prefix, step in (
                (r"postgresql_audit_", self._rows_of_postgresql),
                (r"pgaudit_", self._statements_of_postgresql),
                (r"mysql_audit_(?!plugin_)", self._rows_of_mysql),
                (r"mysql_audit_plugin_", self._statements_of_mysql),
            )
            if any(re.match(prefix, name) for name in names.given_variables(block))
        )

    def _run_module(self, name: str, check_mode: bool, **options: t.Any) -> running.ModuleResult:
        return running.run_module(name, check_mode=check_mode, **{**self.logins[name.partition("_")[0]], **options})

    @staticmethod
    def _rows_of_postgresql(run: Run, given: Variables) -> int:
        databases = given.get("postgresql_audit_databases", [{"name": "shop", "policies": _POLICIES}])
        exceptions = given.get("postgresql_audit_exceptions", [])
        baseline = given.get("postgresql_audit_baseline_policies", [])
        server = run("postgresql_audit_info", databases=[entry["name"] for entry in databases])
        problems = database_problems(databases, baseline, exceptions) + match_problems(databases, server)
        assert problems == []
        common = {
            "schema": given.get("postgresql_audit_schema", "audit"),
            "policies": baseline,
            "readers": [],
            "applications": [],
            "exceptions": exceptions,
        }
        for target in (found := targets(databases, server, common)):
            for module in ("trail", "partitions", "triggers"):
                name = f"postgresql_audit_{module}"
                wanted = {**options_of("postgresql_audit_", name, given), **options_of("", name, target)}
                run(name, login_db=target["name"], **wanted)
        return len(found)

    @staticmethod
    def _statements_of_postgresql(run: Run, given: Variables) -> int:
        exempt = {role: {"log": []} for role in given.get("pgaudit_exempt_roles", [])}
        run(
            "postgresql_pgaudit",
            settings=given.get("pgaudit_settings", {}),
            databases=given.get("pgaudit_database_settings", {}),
            roles={**given.get("pgaudit_role_settings", {}), **exempt},
            objects=given.get("pgaudit_objects", []),
        )
        return 1

    @staticmethod
    def _rows_of_mysql(run: Run, given: Variables) -> int:
        policies, exceptions = given.get("mysql_audit_policies", _POLICIES), given.get("mysql_audit_exceptions", [])
        baseline = given.get("mysql_audit_baseline_policies", [])
        assert server_problems(policies, baseline, exceptions) == []
        wanted = {"policies": policies + baseline, "exceptions": plain_exceptions(exceptions)}
        for module in ("trail", "partitions", "triggers"):
            name = f"mysql_audit_{module}"
            run(name, **{**options_of("mysql_audit_", name, given), **options_of("", name, wanted)})
        return 1

    @staticmethod
    def _statements_of_mysql(run: Run, given: Variables) -> int:
        run("mysql_audit_plugin", settings=given["mysql_audit_plugin_settings"])
        return 1

    # -- tasks and plays --------------------------------------------------------------------------------------------

    def perform(self) -> running.PlaybookResult:
        """Run the tasks, the plays without roles, and what looks at the variables of roles without a server."""
        plays = [*preflight_plays(), *(play for block in left("yaml") for play in self._plays(block))]
        return self._run("performed.yml", plays)

    def parse(self) -> running.PlaybookResult:
        """Have Ansible read the plays that include roles."""
        plays = [play for block in left("yaml") for play in self._plays(block, with_roles=True)]
        return self._run("parsed.yml", plays, "--syntax-check")

    def _run(self, name: str, plays: list[dict[str, t.Any]], *arguments: str) -> running.PlaybookResult:
        playbook = self.folder / name
        playbook.write_text(yaml.safe_dump(plays, sort_keys=False), encoding="utf-8")
        return running.run_playbook(
            playbook, self.folder / "inventory", *arguments, "--forks", "4", check=False, folder=self.folder
        )

    def _plays(self, block: Block, with_roles: bool = False) -> list[dict[str, t.Any]]:
        """Return the plays of a block on its own host, and its tasks as a play; with our servers' logins."""
        common = {
            "name": block.place,
            "hosts": block.host,
            "gather_facts": False,
            "become": False,
            "module_defaults": {f"group/dbfleet.audit.{name}": login for name, login in self.logins.items()},
        }
        if names.kind(block) == "plays":
            found = [play for play in yaml.safe_load(self._text(block)) if ("roles" in play) == with_roles]
            return [{**play, **common, "tasks": to_the_end(play.get("tasks", []))} for play in found]
        if with_roles or names.kind(block) not in ("tasks", "policies"):
            return []
        items = yaml.safe_load(self._text(block))
        if names.kind(block) == "policies":
            items = {"dbfleet.audit.postgresql_audit_triggers": {"policies": items}, "check_mode": True}
        return [{**common, "tasks": to_the_end(items if isinstance(items, list) else [items])}]

    def _text(self, block: Block) -> str:
        """Return an example with this machine's paths, and without its patience."""
        text = block.text
        for example, ours in (
            ("/var/log/postgresql/", f"{self.folder}/log/"),
            ("/var/tmp/", f"{self.folder}/"),
            ("/root/", f"{self.folder}/"),
            ("poll: 15", "poll: 1"),
        ):
            text = text.replace(example, ours)
        return text


def variables_up_to(block: Block) -> dict[str, t.Any]:
    """Return the variables of a page's blocks up to this one, which adds to those before it; of a play, its own."""
    if names.kind(block) == "plays":
        return names.given_variables(block)
    found: dict[str, t.Any] = {}
    for other in left("yaml"):
        if other.page == block.page and other.line <= block.line and names.kind(other) == "variables":
            found.update(names.given_variables(other))
    return found


def options_of(prefix: str, module: str, given: Variables) -> Variables:
    """Return what a module has options for, of variables that begin with a prefix."""
    found = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    return {name: value for name, value in found.items() if name in names.module_options(module)}


def preflights_of(block: Block) -> list[str]:
    """Return the roles whose variables a block sets and which look at them before anything else, without a server."""
    given = names.given_variables(block) if names.kind(block) == "variables" else {}
    return [group for group in _PREFLIGHTS if any(name.startswith(f"{group}_") for name in given)][:1]


def preflight_plays() -> list[dict[str, t.Any]]:
    """Return the plays that have roles look at variables, each on the hosts that have some."""
    return [
        {"name": group, "hosts": group, "gather_facts": False, **play, "tasks": to_the_end(play["tasks"])}
        for group, play in _PREFLIGHTS.items()
    ]


def to_the_end(tasks: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Return tasks that end no run when they fail; the recap says that they were rescued."""
    return [{"block": tasks, "rescue": [{"ansible.builtin.debug": {"msg": "failed"}}]}] if tasks else []


def _preflight(role: str) -> dict[str, t.Any]:
    return {"ansible.builtin.import_role": {"name": f"dbfleet.audit.{role}", "tasks_from": "preflight"}}


#: What looks at variables, by what these begin with; the longest first.
_PREFLIGHTS: dict[str, dict[str, t.Any]] = {
    "audit_shipping_trail": {
        # The second task is none of the role's own.
        "vars": {"audit_shipping_state": "absent", "role_path": str(names.ROOT / "roles" / "audit_shipping")},
        "tasks": [
            _preflight("audit_seal"),
            _preflight("audit_shipping"),
            {
                "ansible.builtin.fail": {"msg": "{{ _audit_shipping_trail_problems }}"},
                "when": "_audit_shipping_trail_problems | length > 0",
            },
        ],
    },
    **{
        role: {"tasks": [_preflight(role)]}
        for role in ("audit_archive", "audit_report", "audit_shipping", "audit_subject_access", "audit_seal")
    },
}
