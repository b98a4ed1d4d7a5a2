-- adopt.lua - jobs that the worker holds and Redis does not know it of: they become its claims.
-- ARGV: worker, then job and lane of each. Returns how many. A job without a record gets none here: only the
-- reconciler knows its app and account.
local W, added = ARGV[1], 0
for i = 2, #ARGV, 2 do
  local J, L = ARGV[i], ARGV[i + 1]
  local lane, A, C = job_of(J)
  local owner = r('HGET', P .. 'claims:' .. L, J) or (lane and lane ~= L and r('HGET', P .. 'claims:' .. lane, J))
  if not claim_of(W, J) and (not owner or owner == W) then
    if lane then
      dequeue(J, lane, A, C)
      r('HSET', P .. 'running:' .. A .. ':' .. C, J, '')
      if lane ~= L then r('HSET', P .. 'job:' .. J, 'lane', L) end
    end
    r('HSET', P .. 'claims:' .. L, J, W)
    r('HSET', P .. 'worker:' .. W, J, '0:' .. L)
    r('ZADD', P .. 'lanes', 'NX', 0, L)
    added = added + 1
  end
end
return added
