"""Run the revisions on the connection of ``tables.py``; called by Alembic."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
)
context.run_migrations()
