"""Transactional outbox, Kafka relay, idempotent requests and commands for FastAPI and PostgreSQL.

Each package can be used separately: :mod:`relaybox.outbox` and :mod:`relaybox.relay` alone, or with
:mod:`relaybox.commands`, :mod:`relaybox.consumers`, :mod:`relaybox.tasks` and :mod:`relaybox.http`.
:mod:`relaybox.local` starts a PostgreSQL and a Kafka for development and tests.
"""
