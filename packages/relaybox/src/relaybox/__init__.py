"""Commands taken once, facts recorded with them in one transaction, every fact told to Kafka in order.

Each package is a part that can be used by itself: :mod:`relaybox.outbox` and :mod:`relaybox.relay`
alone, or :mod:`relaybox.commands`, :mod:`relaybox.consumers`, :mod:`relaybox.tasks` and
:mod:`relaybox.http` with them. :mod:`relaybox.local` brings a PostgreSQL and a Kafka to try them on.
"""
