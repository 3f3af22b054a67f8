# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tests run is this checkout, in a home of its own."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import running

pytestmark = pytest.mark.smoke


def ansible(program: str, *arguments: str) -> str:
    """Run an Ansible program of this environment and return what it prints."""
    command = [os.path.join(os.path.dirname(sys.executable), program), *arguments]
    return subprocess.run(
        command, env=running.private_environment(), cwd="/", check=True, capture_output=True, text=True
    ).stdout


def test_the_collection_name_leads_to_this_checkout():
    path = running.COLLECTIONS / "ansible_collections" / "dbfleet" / "audit"
    assert path.resolve() == running.ROOT


def test_ansible_finds_no_other_copy_of_the_collection():
    found = json.loads(ansible("ansible-galaxy", "collection", "list", "dbfleet.audit", "--format", "json"))
    assert [pathlib.Path(path) for path in found] == [running.COLLECTIONS / "ansible_collections"]


def test_everything_that_ansible_writes_for_itself_is_below_the_checkout():
    settings = json.loads(ansible("ansible-config", "dump", "--format", "json"))
    values = {setting["name"]: setting["value"] for setting in settings if "name" in setting}
    for name in ("ANSIBLE_HOME", "DEFAULT_LOCAL_TMP", "GALAXY_TOKEN_PATH", "GALAXY_CACHE_DIR"):
        assert pathlib.Path(values[name]).is_relative_to(running.CACHE), name
    assert values["CONFIG_FILE"] is None


def test_modules_on_this_machine_work_in_the_private_home(playbook, local_host, tmp_path):
    play = tmp_path / "ping.yml"
    play.write_text("[{hosts: all, gather_facts: false, tasks: [{ansible.builtin.ping: }]}]", encoding="utf-8")
    shown = playbook(play, {"all": {"hosts": {"here": local_host}}}, "-vvvv").stdout
    copied_to = re.findall(r"^<.*> PUT \S+ TO (\S+)$", shown, re.MULTILINE)
    assert copied_to
    for path in copied_to:
        assert pathlib.Path(path).is_relative_to(running.HOME / ".ansible" / "tmp")
