"""What crosses a wire or a table in Relaybox; depends on Pydantic alone.

The backbone's: :mod:`~relaybox_types.rows`, :mod:`~relaybox_types.enums`,
:mod:`~relaybox_types.envelope`, :mod:`~relaybox_types.naming`, :mod:`~relaybox_types.api`.
The applications': :mod:`~relaybox_types.genesis`, :mod:`~relaybox_types.genesis_api`.
"""
