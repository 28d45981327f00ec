"""Define the types of Relaybox that are sent over a network or stored in a table; needs only Pydantic.

:mod:`~relaybox_types.rows` and :mod:`~relaybox_types.enums` describe the tables,
:mod:`~relaybox_types.envelope` the value of a Kafka message, :mod:`~relaybox_types.naming` the names of
events, :mod:`~relaybox_types.api` the command API.
"""
