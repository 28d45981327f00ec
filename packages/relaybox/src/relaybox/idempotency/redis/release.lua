-- Release the lock KEYS[1] if its token is ARGV[1]. Otherwise its lease has ended, and another request may have the lock.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
