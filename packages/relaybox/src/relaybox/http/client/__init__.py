"""A client of such an API: sends idempotency keys, and repeats requests by the API's rules.

It sends through the caller's httpx2 client, which the caller installs: ``pip install httpx2``.
Importing this package imports :mod:`relaybox.http` and with it FastAPI: ``relaybox[http]``.
"""

from relaybox.http.client._client import IdempotentClient
from relaybox.http.client._errors import BodyNotRepeatable, ClientError, KeyUnusable, ResponseUnknown

__all__ = ("BodyNotRepeatable", "ClientError", "IdempotentClient", "KeyUnusable", "ResponseUnknown")
