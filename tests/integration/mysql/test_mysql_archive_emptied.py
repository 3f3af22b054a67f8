# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A partition that somebody has emptied behind the guards of MariaDB or MySQL stays, with what it proves."""

from __future__ import annotations

import pathlib

from archiving import period
from mysql_archiving import MysqlArchiver, add_old, name_of, old_log, partitions
from mysql_databases import MysqlServer


def test_a_period_that_somebody_has_emptied_is_not_dropped(trail: MysqlServer, tmp_path: pathlib.Path) -> None:
    with old_log(trail) as log:
        archiver = MysqlArchiver(log, tmp_path)
        add_old(log, 5)
        add_old(log, 4)
        archiver.seal()
        log.execute(f"ALTER TABLE audit.audit_log_data TRUNCATE PARTITION {name_of(5)}")
        said = archiver.refused()
        assert f"{name_of(5)}: has no rows, which is not what was sealed: seal " in said
        assert set(partitions(log)) & {name_of(ago) for ago in (6, 5, 4)} == {name_of(5)}
        assert f"{period(4)}.manifest.json" in archiver.files()
