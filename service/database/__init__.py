"""The database: tables, connections, transactions. SQLite by default, PostgreSQL by configuration."""
