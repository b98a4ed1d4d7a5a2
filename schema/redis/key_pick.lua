-- key_pick.lua - which of a provider's keys sends the next request, and one of that key's budget. ARGV: lane, then the
-- fingerprints of the keys that the worker has. Returns which (from 0; -1: none now), after how many ms to ask again,
-- and 1 when the key was out and this request is to find out whether it is good again.
local L, n, wait = ARGV[1], #ARGV - 1, nil
local turn = number(r('HINCRBY', P .. 'lane:' .. L, 'turn', 1), 0, FAR, 0)
if turn > 1000000000 then r('HDEL', P .. 'lane:' .. L, 'turn') end

local function take(i, probes)
  local K = ARGV[2 + i]
  local rest = key_of(L, K).paused - now
  local b = budget_of(L, K)
  if b and b.spent >= b.count then rest = math.max(rest, budget_wait(b, 1, nil, b.count)) end
  if rest > 0 then
    wait = math.min(wait or rest, rest)
    return
  end
  if b then budget_spend(b, 's', 1) end
  if probes then r('HSET', key_name(L, K), 'out', now + PROBE) end
  return { i, 0, probes and 1 or 0 }
end

local soonest, first = nil, nil
for step = 0, n - 1 do
  local i = (turn + step) % n
  local k = key_of(L, ARGV[2 + i])
  if k.out <= now then
    local got = take(i, k.fails > 0)
    if got then return got end
  elseif not soonest or k.out < soonest then
    soonest, first = k.out, i
  end
end
if not wait and first then -- all are out: whoever asks hears it from the provider, as with one key
  local got = take(first, true)
  if got then return got end
end
-- No key can send before that: claims of this lane would only come back.
wait = math.max(1, wait or 1)
r('HSET', P .. 'lane:' .. L, 'keys_wait', now + math.min(wait, LONGEST_PAUSE))
return { -1, wait, 0 }
