"""For who calls such an API: keys sent and requests repeated by the rules it keeps.

It stands on httpx, which the caller brings, as it is their client that sends: ``pip install httpx``. No
extra of ours names it, since it brings certifi (MPL-2.0). Importing this package imports
:mod:`relaybox.http` and with it FastAPI: ``relaybox[http]``.
"""

from relaybox.http.client._client import IdempotentClient
from relaybox.http.client._errors import AnswerUnknown, BodyNotRepeatable, ClientError, KeyUnusable

__all__ = ("AnswerUnknown", "BodyNotRepeatable", "ClientError", "IdempotentClient", "KeyUnusable")
