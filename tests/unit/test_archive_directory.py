# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Archives in a directory of a file system that has no links."""

from __future__ import annotations

import errno
import os
import pathlib
import typing as t

import pytest

from ansible_collections.dbfleet.audit.plugins.module_utils._core.errors import AuditError
from ansible_collections.dbfleet.audit.plugins.plugin_utils._archive_directory import Directory


def refuse_links(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the file system refuse every link so."""

    def link(*_given: t.Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)


def write(place: Directory, text: bytes) -> None:
    """Make a new file."""
    with place.writing("a.jsonl.gz", None, new=True) as file:
        file.write(text)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK])
def test_a_file_needs_no_links_and_replaces_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_links(monkeypatch, number)
    place = Directory(str(tmp_path))
    write(place, b"first")
    with pytest.raises(AuditError, match="File exists"):
        write(place, b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.jsonl.gz", b"first")]


def test_what_is_wrong_otherwise_is_told_and_leaves_no_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_links(monkeypatch, errno.EIO)
    with pytest.raises(AuditError, match=os.strerror(errno.EIO)):
        write(Directory(str(tmp_path)), b"first")
    assert list(tmp_path.iterdir()) == []


def test_only_files_in_the_making_are_swept(tmp_path: pathlib.Path) -> None:
    names = [".a.jsonl.gz.0a1b2c3d.part", ".a.part", "a.jsonl.gz", ".nfs0a1b2c3d"]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    Directory(str(tmp_path.parent)).sweep(tmp_path.name)
    Directory(str(tmp_path / "nowhere")).sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
