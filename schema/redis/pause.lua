-- pause.lua - nobody claims from the lane for that long; never shortens. ARGV: lane, ms.
local L, till = ARGV[1], now + math.min(tonumber(ARGV[2]), LONGEST_PAUSE)
if till <= number(r('HGET', P .. 'lane:' .. L, 'paused'), 0, now + LONGEST_PAUSE, 0) then return 0 end
r('HSET', P .. 'lane:' .. L, 'paused', till)
r('ZADD', P .. 'lanes', 'NX', 0, L)
return 1
