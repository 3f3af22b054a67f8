# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which flags run containers on which machine."""

from __future__ import annotations

import container_machine
import pytest
from container_machine import CgroupMounts, ContainerError

UNIFIED = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
HYBRID = (
    "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0\n"
    "tmpfs /run tmpfs rw 0 0\n"
)
LEGACY = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        (UNIFIED, CgroupMounts("/sys/fs/cgroup", False)),
        (HYBRID, CgroupMounts("/sys/fs/cgroup/unified", True)),
        (LEGACY, CgroupMounts(None, True)),
    ],
)
def test_control_groups_are_found_where_they_are_mounted(mounts, found):
    assert container_machine.cgroup_mounts(mounts) == found


def test_a_machine_with_the_new_hierarchy_alone_takes_the_ordinary_flags():
    options, flags = container_machine.runtime_flags(CgroupMounts("/sys/fs/cgroup", False))
    assert options == ()
    assert {"--systemd=always", "--cgroupns=private"} <= set(flags)


def test_a_machine_with_both_hierarchies_gives_systemd_the_new_one(monkeypatch):
    monkeypatch.setattr(container_machine, "find_program", lambda name: f"/usr/sbin/{name}")
    options, flags = container_machine.runtime_flags(CgroupMounts("/sys/fs/cgroup/unified", True))
    assert options == ("--runtime=runc",)
    assert "--volume=/sys/fs/cgroup/unified:/sys/fs/cgroup:rw" in flags


def test_why_containers_cannot_run_is_said(monkeypatch):
    with pytest.raises(ContainerError, match="no cgroup2 is mounted"):
        container_machine.runtime_flags(CgroupMounts(None, True))
    monkeypatch.setattr(container_machine, "find_program", lambda _name: None)
    with pytest.raises(ContainerError, match="runc is needed"):
        container_machine.runtime_flags(CgroupMounts("/sys/fs/cgroup/unified", True))
    with pytest.raises(ContainerError, match="not installed: podman"):
        container_machine.find_machine()
