"""Store responses in Redis, for applications without a transaction; needs the extra ``redis``."""

from relaybox.idempotency.redis._service import RedisIdempotencyService

__all__ = ("RedisIdempotencyService",)
