"""For who calls such an API: keys sent and requests repeated by the rules it keeps.

It uses httpx2, which the caller installs, because the caller's client sends: ``pip install httpx2``.
Importing this package imports :mod:`relaybox.http` and with it FastAPI: ``relaybox[http]``.
"""

from relaybox.http.client._client import IdempotentClient
from relaybox.http.client._errors import BodyNotRepeatable, ClientError, KeyUnusable, ResponseUnknown

__all__ = ("BodyNotRepeatable", "ClientError", "IdempotentClient", "KeyUnusable", "ResponseUnknown")
