"""Run the revisions on the given connection, inside its transaction; called by Alembic."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
)
context.run_migrations()
