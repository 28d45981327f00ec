-- Acquire the lock KEYS[1] with the token ARGV[1] for ARGV[2] milliseconds; return whether the caller holds the lock. A
-- client whose connection broke before the reply repeats the call.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return 1
end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
