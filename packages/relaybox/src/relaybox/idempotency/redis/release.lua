-- Release the lock KEYS[1] if it still has the token ARGV[1]: it may have expired and belong to another request.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
