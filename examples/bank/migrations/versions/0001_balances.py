"""Create the table of balances, and grant the rights of the services."""

from alembic import op

revision = "0001_balances"
down_revision = None


def upgrade() -> None:
    op.execute(
        "CREATE TABLE balances (account_id UUID PRIMARY KEY, owner TEXT NOT NULL, balance BIGINT NOT NULL)"
    )
    op.execute("CREATE INDEX balances_owner ON balances (owner)")
    op.execute(
        "CREATE FUNCTION bank_grant(service NAME) RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
        "EXECUTE format('GRANT SELECT, INSERT, UPDATE ON balances TO %I', service); "
        "EXECUTE format('GRANT SELECT ON bank_alembic_version TO %I', service); END $$"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION bank_grant(NAME)")
    op.execute("DROP TABLE balances")
