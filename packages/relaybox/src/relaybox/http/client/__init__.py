"""Send requests with idempotency keys, and repeat them until there is a final response.

The caller passes an httpx2 client, which sends the requests; install it with ``pip install httpx2``. This
package imports :mod:`relaybox.http` and with it FastAPI, so it needs the extra ``http``.
"""

from relaybox.http.client._client import IdempotentClient
from relaybox.http.client._errors import BodyNotRepeatable, ClientError, KeyUnusable, ResponseUnknown

__all__ = ("BodyNotRepeatable", "ClientError", "IdempotentClient", "KeyUnusable", "ResponseUnknown")
