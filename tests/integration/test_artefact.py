# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What users install: the built artefact, without network, used from a folder that has nothing to do with it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import typing as t

import pytest
from databases import Database
from fleet import HOST, inventory
from running import ROOT, private_environment, run_playbook


def galaxy(*arguments: t.Any) -> None:
    """Run ansible-galaxy collection of this environment."""
    program = os.path.join(os.path.dirname(sys.executable), "ansible-galaxy")
    subprocess.run([program, "collection", *map(str, arguments)], env=private_environment(), check=True)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Build the collection from the files that git knows or would add, as a clean clone has them."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, env=private_environment(), capture_output=True, text=True, check=True)
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    galaxy("build", source, "--output-path", built)
    return next(built.glob("dbfleet-audit-*.tar.gz"))


def test_the_artefact_holds_the_collection_and_nothing_of_its_workshop(artefact: pathlib.Path):
    with tarfile.open(artefact) as archive:
        tops = {name.partition("/")[0] for name in archive.getnames()}
    assert {"plugins", "roles", "playbooks", "meta", "docs", "README.md", "LICENSE"} <= tops
    assert not tops & {"molecule", "demo", "benchmarks", ".ci", ".cache", ".git", ".config"}


@pytest.mark.smoke
def test_site_runs_from_the_installed_artefact_in_an_unrelated_folder(
    artefact: pathlib.Path, db: Database, tmp_path: pathlib.Path
):
    collections, elsewhere = tmp_path / "collections", tmp_path / "elsewhere"
    elsewhere.mkdir()
    galaxy("install", artefact, "--offline", "--collections-path", collections)
    db.execute("CREATE TABLE users (id int PRIMARY KEY)")
    hosts = inventory(db.server, [db])
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(collections)}
    first = run_playbook("dbfleet.audit.site", hosts, environment=environment, folder=elsewhere)
    db.execute("INSERT INTO users VALUES (1)")
    second = run_playbook("dbfleet.audit.site", hosts, environment=environment, folder=elsewhere)
    assert first.stats(HOST)["changed"] == 3
    assert second.stats(HOST)["changed"] == 0
    assert db.execute("SELECT action, table_name FROM audit.audit_log WHERE action <> 'DDL'") == [("INSERT", "users")]
