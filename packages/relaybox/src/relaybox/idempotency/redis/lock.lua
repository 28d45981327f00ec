-- Take the lock KEYS[1] with the token ARGV[1] for ARGV[2] milliseconds; whether the caller has it. One that has it
-- already does so again: a client that has lost an answer asks once more.
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return 1
end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
