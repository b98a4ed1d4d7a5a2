-- stats.lua - six for each lane: lane, ready, delayed, claimed, age of the oldest ready job, pause left.
-- Ready jobs are counted as they come and go (tally), by the second; here the accounts are looked at as well, as long as
-- they are few, and what was miscounted, by scripts of another version or because a key was lost, is put right.
local WALK, out = 1000, {}
local caps = r('HLEN', P .. 'caps') <= WALK and r('HKEYS', P .. 'caps')

local function look(L) -- how many are ready; nil: too many accounts
  local seen, left, n = {}, caps and WALK or -1, 0
  local function add(A, C)
    local id = A .. ':' .. C
    if not seen[id] then n = n + r('ZCARD', P .. 'jobs:' .. L .. ':' .. id) end
    seen[id] = true
  end
  for _, A in ipairs(left > 0 and r('ZRANGE', P .. 'apps:' .. L, 0, left) or {}) do
    local accounts = r('ZRANGE', P .. 'accounts:' .. L .. ':' .. A, 0, left)
    left = left - 1 - #accounts
    if left < 0 then break end
    for _, C in ipairs(accounts) do add(A, C) end
  end
  if left < 0 then return end
  for _, id in ipairs(caps) do -- who waits at its cap has no turn
    if r('SISMEMBER', P .. 'capped:' .. id, L) == 1 then add(string.match(id, '^([^:]*):(.*)$')) end
  end
  return n
end

local function ages_of(L) -- {second, how many} by age, and their sum
  local key, list, sum = P .. 'ages:' .. L, {}, 0
  local all = r('HGETALL', key)
  for i = 1, #all, 2 do
    local second, n = number(all[i], 0, AGE / 1000), number(all[i + 1], 1, FAR)
    if second and n then
      list[#list + 1], sum = { second, n }, sum + n
    else
      r('HDEL', key, all[i])
    end
  end
  table.sort(list, function(x, y) return x[1] < y[1] end)
  return list, sum
end

local function ready_of(L) -- how many, and since when the oldest waits
  local n, list, sum = look(L), ages_of(L)
  n = n or sum
  if n > sum then tally(L, math.floor(now / 1000), n - sum) end -- how old they are nobody knows
  for _, of in ipairs(list) do -- those that were taken and not counted are the oldest ones
    if n >= sum then break end
    local over = math.min(of[2], sum - n)
    tally(L, of[1], -over)
    sum, of[2] = sum - over, of[2] - over
  end
  for _, of in ipairs(list) do
    if of[2] > 0 then return n, of[1] * 1000 end
  end
  return n, now
end

for _, L in ipairs(r('ZRANGE', P .. 'lanes', 0, 255)) do
  redis.call('UNLINK', P .. 'ready:' .. L) -- what versions before this one kept
  local at, n, oldest = #out, ready_of(L)
  out[at + 1], out[at + 2], out[at + 3] = L, n, r('ZCARD', P .. 'delayed:' .. L)
  out[at + 4] = r('HLEN', P .. 'claims:' .. L)
  out[at + 5] = math.max(0, now - oldest)
  out[at + 6] = math.max(0, paused_until(L) - now)
end
return out
