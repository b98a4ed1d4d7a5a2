-- publish.lua - adds jobs that Redis does not know; a known one that lost its place in a queue gets it back.
-- ARGV: nine for each: job, lane, app, account, priority, created, delay, cap, envelope ('': none). Returns how many
-- were new.
local fresh, placed = 0, 0
local seen = {} -- account's place: made sure of once a call
local function place(J, L, A, C, prio, created)
  enqueue(J, L, A, C, score_of(prio, created), created)
  placed = placed + 1
end
local function make_sure(L, A, C)
  local id = L .. ':' .. A .. ':' .. C
  if seen[id] then return end
  seen[id] = true
  join(P .. 'accounts:' .. L .. ':' .. A, C, A .. ':' .. C)
  if seen[L .. ':' .. A] then return end
  seen[L .. ':' .. A] = true
  join(P .. 'apps:' .. L, A, A)
end

-- Only accounts with a cap have a list of what runs. A cap that is new counts what runs already: of a thousand claims at
-- most, for Redis stands still meanwhile.
local new_caps = {}
local function count_running()
  local left = 1000
  for _, L in ipairs(r('ZRANGE', P .. 'lanes', 0, 63)) do
    local list = left > 0 and r('HRANDFIELD', P .. 'claims:' .. L, left) or {}
    left = left - #list
    for _, J in ipairs(list) do
      local lane, A, C = job_of(J)
      if lane and new_caps[A .. ':' .. C] then r('HSET', P .. 'running:' .. A .. ':' .. C, J, '') end
    end
  end
end

for i = 1, #ARGV, 9 do
  local J, L, A, C = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local prio, created = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local delay, cap = tonumber(ARGV[i + 6]), tonumber(ARGV[i + 7])
  local lane, app, account, its_prio, its_created = job_of(J)

  if not seen[L] then
    seen[L] = true
    r('ZADD', P .. 'lanes', 'NX', 0, L)
  end
  if not seen[A .. ' ' .. C] then
    seen[A .. ' ' .. C] = true
    if cap > 0 then
      if r('HSET', P .. 'caps', A .. ':' .. C, cap) == 1 then new_caps[A .. ':' .. C] = true end
    elseif cap == 0 then -- below: who publishes does not know it
      r('HDEL', P .. 'caps', A .. ':' .. C)
    end
  end

  local is_claimed = r('HEXISTS', P .. 'claims:' .. (lane or L), J) == 1
  if lane and not is_claimed and (lane ~= L or app ~= A or account ~= C) then -- who publishes knows better
    dequeue(J, lane, app, account)
    lane = nil
  end
  if lane then
    if r('ZSCORE', P .. 'jobs:' .. L .. ':' .. A .. ':' .. C, J) then
      make_sure(L, A, C)
    elseif not is_claimed and not number(r('ZSCORE', P .. 'delayed:' .. L, J), 0, now + LONGEST_DELAY) then
      place(J, L, A, C, its_prio, its_created)
      make_sure(L, A, C)
    end
  else
    r('HSET', P .. 'job:' .. J, 'lane', L, 'app', A, 'account', C, 'prio', ARGV[i + 4], 'created', ARGV[i + 5])
    if ARGV[i + 8] ~= '' then redis.call('SET', P .. 'env:' .. J, ARGV[i + 8]) end
    if is_claimed then -- a worker said that it holds it, when Redis was empty
      r('HSET', P .. 'running:' .. A .. ':' .. C, J, '')
    else
      fresh = fresh + 1
      if delay > 0 then
        r('ZADD', P .. 'delayed:' .. L, now + math.min(delay, LONGEST_DELAY), J)
      else
        place(J, L, A, C, prio, created)
        make_sure(L, A, C)
      end
    end
  end
end
if next(new_caps) then count_running() end
if fresh + placed > 0 then wake() end -- for delayed ones too: who wakes learns when to look again
return fresh
