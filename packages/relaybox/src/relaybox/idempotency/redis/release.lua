-- Let go of the lock KEYS[1], if it is still that of the token ARGV[1]: it may have lapsed and be somebody else's.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
