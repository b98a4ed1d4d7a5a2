-- bury.lua - claims of a dead worker back to ready, at most `max` a call. ARGV: worker, max.
-- Returns how many claims it had of those, and how many it has still.
local W, MAX = ARGV[1], tonumber(ARGV[2])
local key = P .. 'worker:' .. W
local list = r('HRANDFIELD', key, MAX, 'WITHVALUES')
local moved = 0
for i = 1, #list, 2 do
  local J = list[i]
  local old = string.match(list[i + 1], '^%d+:([%w_.-]+)$')
  local lane, A, C, _, created = job_of(J)
  if r('SISMEMBER', P .. 'collecting:' .. W, J) == 1 then r('SADD', P .. 'lost', J) end
  if old and r('HGET', P .. 'claims:' .. old, J) == W then
    unclaim(J, old, W, A, C)
    moved = moved + 1
    if lane then
      enqueue(J, lane, A, C, head_score(created), created)
      activate(lane, A, C)
    end
  end
  r('HDEL', key, J)
end
local left = r('HLEN', key)
if left == 0 then redis.call('DEL', P .. 'collecting:' .. W) end
if moved > 0 then wake() end
return { moved, left }
