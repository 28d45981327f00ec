"""Answers kept in Redis, for whoever has no transaction to keep them in; needs the extra ``redis``."""

from relaybox.idempotency.redis._service import RedisIdempotencyService

__all__ = ("RedisIdempotencyService",)
