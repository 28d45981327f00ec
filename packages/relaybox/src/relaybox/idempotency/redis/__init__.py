"""Store responses in Redis, for endpoints whose effect is not in PostgreSQL; needs the extra ``redis``."""

from relaybox.idempotency.redis._service import RedisIdempotencyService

__all__ = ("RedisIdempotencyService",)
