# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What server and database have of change data capture: two queries, whatever the number of tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._core.errors import AuditError
from .cdc import MARK, CdcCatalog, CdcOptions, Publication
from .cdc_settings import SETTINGS, ServerCatalog, Setting
from .cdc_tables import Identity
from .session import Session, psycopg2
from .settings import read_lines
from .trigger_catalog import read_tables

# RDS has a role of its own instead of the attribute.
_SERVER = """
SELECT (SELECT jsonb_object_agg(s.name, jsonb_build_array(s.setting, s.source))
        FROM pg_settings AS s WHERE s.name = ANY (%(names)s)) AS settings,
       (SELECT count(*) FROM pg_replication_slots) AS slots,
       (SELECT r.rolsuper OR r.rolreplication
               OR EXISTS (SELECT FROM pg_roles AS m
                          WHERE m.rolname = 'rds_replication' AND pg_has_role(m.oid, 'MEMBER'))
        FROM pg_roles AS r WHERE r.rolname = current_user) AS replication
"""

# A key counts as the server counts it: RelationGetReplicaIndex takes no deferrable or broken one.
_DATABASE = """
SELECT (SELECT jsonb_build_object(
                 'comment', coalesce(obj_description(p.oid, 'pg_publication'), ''),
                 'everything', p.puballtables OR {schemas},
                 'options_right', p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot
                                  AND {generated})
        FROM pg_publication AS p WHERE p.pubname = %(publication)s) AS publication,
       (SELECT jsonb_agg(jsonb_build_array(
                 obj_description(p.oid, 'pg_publication'),
                 (SELECT coalesce(jsonb_agg(jsonb_build_array(n.nspname, c.relname)), '[]')
                  FROM pg_publication_rel AS m JOIN pg_class AS c ON c.oid = m.prrelid
                       JOIN pg_namespace AS n ON n.oid = c.relnamespace
                  WHERE m.prpubid = p.oid)))
        FROM pg_publication AS p
        WHERE p.pubname <> %(publication)s
          AND starts_with(obj_description(p.oid, 'pg_publication'), %(mark)s)) AS others,
       (SELECT jsonb_agg(jsonb_build_array(n.nspname, c.relname, {restricted}) ORDER BY n.nspname, c.relname)
        FROM pg_publication AS p JOIN pg_publication_rel AS m ON m.prpubid = p.oid
             JOIN pg_class AS c ON c.oid = m.prrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE p.pubname = %(publication)s) AS members,
       (SELECT jsonb_agg(jsonb_build_array(
                 n.nspname, c.relname, c.relreplident,
                 coalesce((SELECT x.relname FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
                           WHERE i.indrelid = c.oid AND i.indisreplident), ''),
                 c.relreplident = 'f' OR EXISTS (
                   SELECT FROM pg_index AS i
                   WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
                     AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END),
                 EXISTS (SELECT FROM pg_index AS i
                         WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate),
                 c.oid::bigint,
                 (SELECT coalesce(jsonb_agg(x.relname), '[]')
                  FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
                  WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate),
                 (SELECT coalesce(string_agg(DISTINCT a.attgenerated::text, ''), '')
                  FROM pg_attribute AS a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> '')))
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_') AS identities
"""

_SLOT = """
SELECT s.plugin, s.database, s.active, s.active_pid, s.wal_status, s.safe_wal_size,
       s.restart_lsn::text AS restart_lsn, s.confirmed_flush_lsn::text AS confirmed_flush_lsn,
       pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint AS lag_bytes,
       pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint AS retained_bytes
FROM pg_replication_slots AS s
WHERE s.slot_name = %(slot)s
"""

#: Since then, publications have lists of columns, conditions on rows, and whole schemas.
_NARROWED_VERSION = 150000

#: Since then, generated columns are published on demand, and needed in a replica identity.
_GENERATED_VERSION = 180000


def read_server(session: Session) -> ServerCatalog:
    """Read the settings and slots of the server."""
    row = session.one(_SERVER, {"names": list(SETTINGS)})
    return ServerCatalog(
        {name: Setting(*entry) for name, entry in row.settings.items()},
        read_lines(session, SETTINGS) if session.superuser else [],
        row.slots,
        session.superuser,
        row.replication,
    )


def read_slot(session: Session, slot: str) -> dict[str, Any] | None:
    """Return what pg_replication_slots says of a slot; lag and retained WAL in bytes."""
    rows = session.all(_SLOT, {"slot": slot})
    return rows[0]._asdict() if rows else None


def read_database(session: Session, options: CdcOptions, schema: str, slot_ready: bool) -> CdcCatalog:
    """Read publication, replica identities and slot.

    :param schema: the trail's own, whose tables are never published.
    :param slot_ready: whether the server could make a slot now.
    """
    narrowed = session.version_number >= _NARROWED_VERSION
    schemas = "EXISTS (SELECT FROM pg_publication_namespace AS s WHERE s.pnpubid = p.oid)" if narrowed else "false"
    restricted = "m.prqual IS NOT NULL OR m.prattrs IS NOT NULL" if narrowed else "false"
    stored = session.version_number >= _GENERATED_VERSION
    query = _DATABASE.replace("{schemas}", schemas).replace("{restricted}", restricted)
    query = query.replace("{generated}", "p.pubgencols = 's'" if stored else "true")
    row = session.one(query, {"publication": options.publication, "mark": MARK})
    publication = None
    if row.publication:
        members = {(schema_name, name): narrow for schema_name, name, narrow in row.members or []}
        publication = Publication(**row.publication, members=members)
    return CdcCatalog(
        session.database,
        read_tables(session, schema),
        {(schema_name, name): _identity(*rest) for schema_name, name, *rest in row.identities or []},
        publication,
        read_slot(session, options.slot) if options.slot else None,
        slot_ready,
        [
            Publication(comment, False, True, dict.fromkeys(map(tuple, members), False))
            for comment, members in row.others or []
        ],
        stored,
    )


def _identity(
    kind: str, index: str, usable: bool, keyed: bool, oid: int, indexes: Sequence[str], generated: str
) -> Identity:
    return Identity(kind, index, usable, keyed, oid, tuple(indexes), generated)


def require_plugin(session: Session, plugin: str) -> None:
    """Refuse an output plugin that the server has not. Only a superuser may look; others learn it from the slot.

    :raises AuditError: naming its package.
    """
    if not session.superuser:
        return
    try:
        session.execute(f"LOAD {session.literal(plugin)}")
    except psycopg2.errors.UndefinedFile:
        major = session.version_number // 10000
        raise AuditError(
            f"{session.database}: this server has no {plugin}; install postgresql-{major}-{plugin} (Debian) or "
            f"{plugin}_{major} (PGDG's RPMs), or take pgoutput, which every server has"
        ) from None
