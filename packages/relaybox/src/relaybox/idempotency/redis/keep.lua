-- Store a response at KEYS[1], unless one is stored or another request holds the lock KEYS[2]; return whether it is stored.
-- ARGV: a random id of this call, the token of the caller's lock (empty if the caller has not acquired the lock), the
-- result, its ttl in microseconds, and the body, if there is one.
local by = redis.call('HGET', KEYS[1], 'by')
if by then
    -- A client whose connection broke before the reply repeats the call with the same id.
    return by == ARGV[1] and 1 or 0
end
local holder = redis.call('GET', KEYS[2])
if holder and ARGV[2] ~= '' and holder ~= ARGV[2] then
    return 0
end
local time = redis.call('TIME')
local created_us = time[1] * 1000000 + time[2]
local expires_ms = math.ceil((created_us + ARGV[4]) / 1000)
redis.call('HSET', KEYS[1], 'by', ARGV[1], 'result', ARGV[3],
    'created_us', created_us, 'expires_us', expires_ms * 1000)
if ARGV[5] then
    redis.call('HSET', KEYS[1], 'body', ARGV[5])
end
redis.call('PEXPIREAT', KEYS[1], expires_ms)
return 1
