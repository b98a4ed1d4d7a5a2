-- stats.lua - six for each lane: lane, ready, delayed, claimed, age of the oldest ready job, pause left.
-- Ready jobs are counted as they come and go (tally), by slots of ten seconds; here the accounts are looked at as well, of
-- as many lanes as have few, and what was miscounted, by scripts of another version or because a key was lost, is put right.
local out, left = {}, 1000 -- accounts, of all lanes together

local function look(L) -- how many are ready; nil: too many accounts
  local seen, n = {}, 0
  local function add(id)
    if not seen[id] then n = n + r('ZCARD', P .. 'jobs:' .. L .. ':' .. id) end
    seen[id] = true
  end
  local waiting = r('SCARD', P .. 'waits:' .. L)
  local many = waiting + r('ZCARD', P .. 'apps:' .. L)
  local apps = many <= left and r('ZRANGE', P .. 'apps:' .. L, 0, -1) or {}
  for _, A in ipairs(apps) do many = many + r('ZCARD', P .. 'accounts:' .. L .. ':' .. A) end
  if many > left then return end -- the other lanes have theirs looked at
  left = left - many
  for _, A in ipairs(apps) do
    for _, C in ipairs(r('ZRANGE', P .. 'accounts:' .. L .. ':' .. A, 0, -1)) do add(A .. ':' .. C) end
  end
  for _, id in ipairs(waiting > 0 and r('SMEMBERS', P .. 'waits:' .. L) or {}) do add(id) end -- they have no turn
  return n
end

local function ages_of(L) -- { slot, how many }, their sum, and the first slot
  local key, list, sum, first = P .. 'ages:' .. L, {}, 0
  local all = r('HGETALL', key)
  for i = 1, #all, 2 do
    local slot, n = number(all[i], 0, AGE / SLOT), number(all[i + 1], 1, FAR)
    if slot and n then
      list[#list + 1], sum, first = { slot, n }, sum + n, math.min(first or slot, slot)
    else
      r('HDEL', key, all[i])
    end
  end
  return list, sum, first
end

local function ready_of(L) -- how many, and the slot of the oldest
  local n, list, sum, first = look(L), ages_of(L)
  n = n or sum
  if n > sum then tally(L, slot_of(now), n - sum) end -- how old they are nobody knows
  if n >= sum then return n, first end
  table.sort(list, function(x, y) return x[1] < y[1] end)
  for _, of in ipairs(list) do -- those that were taken and not counted are the oldest ones
    local over = math.min(of[2], sum - n)
    if over > 0 then tally(L, of[1], -over) end
    sum = sum - over
    if over < of[2] then return n, of[1] end
  end
  return n
end

for _, L in ipairs(r('ZRANGE', P .. 'lanes', 0, 255)) do
  local at, n, slot = #out, ready_of(L)
  out[at + 1], out[at + 2], out[at + 3] = L, n, r('ZCARD', P .. 'delayed:' .. L)
  out[at + 4] = r('HLEN', P .. 'claims:' .. L)
  out[at + 5] = slot and math.max(0, now - (slot + 1) * SLOT + 1) or 0 -- at least
  out[at + 6] = math.max(0, paused_until(L) - now)
end
return out
