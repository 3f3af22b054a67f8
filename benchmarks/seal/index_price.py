# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the index on ids, by which sealing finds rows, costs an audited change."""

from __future__ import annotations

from auditing import install_trail, rollout, wanted
from databases import Database, fetch
from local_postgresql import LocalPostgresql
from price import PEOPLE, PEOPLE_TABLE, ROUNDS, Cost, line_of, one_round, written_ahead

WITHOUT, WITH = "none", "BRIN on id"


def price_of_the_index(server: LocalPostgresql) -> str:
    """Return the table of audited single-row updates with and without the index, by turns."""
    made = Database(server)
    install_trail(made)
    made.execute(PEOPLE_TABLE, PEOPLE)
    rollout(made, policies=[wanted("public.people")])
    made.disconnect()
    sessions = {name: Database(server, template=made.name).connect() for name in (WITHOUT, WITH)}
    fetch(sessions[WITHOUT], "DROP INDEX audit.audit_log_id_idx")
    # Brings what is needed into memory, too.
    wal = {name: written_ahead(session) for name, session in sessions.items()}
    rounds: dict[str, list[Cost]] = {name: [] for name in sessions}
    for _number in range(ROUNDS):
        for name, cost in one_round(sessions).items():
            rounds[name].append(cost)
    lines = [
        "| index | changes/s | processor, µs a change | of none, median (rounds) | written ahead, bytes a change |",
        "|---|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(line_of(name, rounds[name], rounds[WITHOUT], wal[name]) for name in sessions)])
