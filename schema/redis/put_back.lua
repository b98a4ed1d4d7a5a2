-- put_back.lua - claims of the worker's back to ready, or to delayed.
-- ARGV: worker, then job, lane ('': stays), delay, keep of each. Returns of each 1 if it was its claim.
-- A job whose record is gone (Redis was emptied) leaves nothing: the reconciler publishes it anew.
local W, opens, out = ARGV[1], false, {}

local function put_back(J, L, delay, keep)
  local old = claim_of(W, J)
  if not old then return 0 end
  local lane, A, C, prio, created = job_of(J)
  opens = unclaim(J, old, W, A, C) or opens
  if keep ~= '1' then redis.call('DEL', P .. 'note:' .. J) end
  if not lane then return 1 end
  if L == '' then L = lane end
  if L ~= lane then
    r('HSET', P .. 'job:' .. J, 'lane', L)
    r('ZADD', P .. 'lanes', 'NX', 0, L)
  end
  if delay > 0 then
    r('ZADD', P .. 'delayed:' .. L, now + math.min(delay, LONGEST_DELAY), J)
  else
    enqueue(J, L, A, C, head_score(created), created)
    activate(L, A, C)
  end
  opens = true
  return 1
end

for i = 2, #ARGV, 4 do out[#out + 1] = put_back(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]) end
if opens then wake() end
return out
