-- set_limits.lua - what the catalogue and operators set. ARGV: lane, concurrency, budget count, window, keys, paused for
-- each.
-- A pause by operators (> 0: that long from now; -1: lifted) stands beside the one that a 429 sets.
for i = 1, #ARGV, 6 do
  local L, key, pause = ARGV[i], P .. 'lane:' .. ARGV[i], tonumber(ARGV[i + 5])
  r('HSET', key, 'concurrency', ARGV[i + 1], 'budget_count', ARGV[i + 2], 'budget_window_ms', ARGV[i + 3],
    'keys', ARGV[i + 4])
  if pause < 0 then
    r('HDEL', key, 'paused_by_operator')
  elseif pause > 0 then
    r('HSET', key, 'paused_by_operator', now + pause)
  end
  r('ZADD', P .. 'lanes', 'NX', 0, L)
end
wake() -- more may be allowed now
return #ARGV / 6
