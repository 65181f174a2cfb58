"""Takes over a database of an older Shoal: adds columns and indexes that are missing, drops those that are gone.

New columns have defaults, so old rows need nothing else. It knows the tables of today only; so several steps are one.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.schema import CreateColumn

UPGRADABLE: Final = frozenset({1, 2, 3, 4})
"""Schema versions that `upgrade` starts from."""

# One artifact for each content, whoever sent it (1); jobs by principal, in no order (2).
_GONE: Final = frozenset({("artifacts", "ix_artifacts_content"), ("jobs", "ix_jobs_principal")})


def upgrade(connection: Connection, tables: MetaData) -> None:
    """Makes old tables what they are in `tables`. New tables are there already.

    Args:
        connection: In a transaction that writes.
        tables: The tables of today.
    """
    found = inspect(connection)
    indexes = {(name, index["name"]) for name in found.get_table_names() for index in found.get_indexes(name)}
    for gone in indexes.intersection(_GONE):
        connection.exec_driver_sql(f"DROP INDEX {gone[1]}")
    for table in tables.sorted_tables:
        there = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
        for index in table.indexes:
            if (table.name, index.name) not in indexes:
                index.create(connection)
