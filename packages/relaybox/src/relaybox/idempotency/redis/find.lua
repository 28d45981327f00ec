-- Return the response KEYS[1] and the server's time (seconds and microseconds); null if there is no response.
local kept = redis.call('HMGET', KEYS[1], 'result', 'body', 'created_us', 'expires_us')
if not kept[1] then
    return false
end
local time = redis.call('TIME')
return {kept[1], kept[2], kept[3], kept[4], time[1], time[2]}
