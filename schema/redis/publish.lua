-- publish.lua - adds jobs that Redis does not know; a known one that lost its place in a queue gets it back.
-- ARGV: nine for each: job, lane, app, account, priority, created, delay, cap, envelope ('': none). Returns how many
-- were new.
-- What many have in common is asked and written once a call: whether any is known at all, whose claims they are, the
-- envelopes, and each sorted set.
local fresh, placed = 0, 0
local seen = {} -- lanes, apps' and accounts' places, caps: made sure of once a call
local sets, envelopes = {}, {} -- to be written by flush
local function add(key, score, J) -- as text: Redis prints a number for a command with all its digits
  local list = sets[key]
  if not list then
    list = {}
    sets[key] = list
  end
  local n = #list
  list[n + 1], list[n + 2] = string.format('%d', score), J
end
local function flush()
  if #envelopes > 0 then redis.call('MSET', unpack(envelopes)) end
  for key, list in pairs(sets) do r('ZADD', key, unpack(list)) end
  sets, envelopes = {}, {}
end

local function place(J, L, jobs, prio, created)
  add(jobs, score_of(prio, created), J)
  add(P .. 'ready:' .. L, created, J)
  placed = placed + 1
end
local function make_sure(L, A, C, jobs)
  if seen[jobs] then return end
  seen[jobs] = true
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

local records, lanes, claims, in_call = {}, {}, {}, {}
for i = 1, #ARGV, 9 do
  local J, L = ARGV[i], ARGV[i + 1]
  local ids = lanes[L] or {}
  lanes[L], ids[#ids + 1], records[#records + 1] = ids, J, P .. 'job:' .. J
end
local is_any_known = redis.call('EXISTS', unpack(records)) > 0
for L, ids in pairs(lanes) do
  r('ZADD', P .. 'lanes', 'NX', 0, L)
  claims[L] = {}
  for k, owner in ipairs(r('HMGET', P .. 'claims:' .. L, unpack(ids))) do
    if owner then claims[L][ids[k]] = true end
  end
end

for i = 1, #ARGV, 9 do
  local J, L, A, C = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local prio, created = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local delay, cap = tonumber(ARGV[i + 6]), tonumber(ARGV[i + 7])
  local jobs = P .. 'jobs:' .. L .. ':' .. A .. ':' .. C
  local lane, app, account, its_prio, its_created
  if in_call[J] then flush() end -- the same one twice
  if is_any_known or in_call[J] then lane, app, account, its_prio, its_created = job_of(J) end
  in_call[J] = true

  if cap >= 0 and not seen[A .. ' ' .. C] then -- below: who publishes does not know it
    seen[A .. ' ' .. C] = true
    if cap == 0 then
      r('HDEL', P .. 'caps', A .. ':' .. C)
    elseif r('HSET', P .. 'caps', A .. ':' .. C, cap) == 1 then
      new_caps[A .. ':' .. C] = true
    end
  end

  local is_claimed = claims[L][J]
  if lane and lane ~= L then is_claimed = r('HEXISTS', P .. 'claims:' .. lane, J) == 1 end
  if lane and not is_claimed and (lane ~= L or app ~= A or account ~= C) then -- who publishes knows better
    dequeue(J, lane, app, account)
    lane = nil
  end
  if lane then
    if r('ZSCORE', jobs, J) then
      make_sure(L, A, C, jobs)
    elseif not is_claimed and not number(r('ZSCORE', P .. 'delayed:' .. L, J), 0, now + LONGEST_DELAY) then
      place(J, L, jobs, its_prio, its_created)
      make_sure(L, A, C, jobs)
    end
  else
    r('HSET', P .. 'job:' .. J, 'lane', L, 'app', A, 'account', C, 'prio', ARGV[i + 4], 'created', ARGV[i + 5])
    if ARGV[i + 8] ~= '' then
      local n = #envelopes
      envelopes[n + 1], envelopes[n + 2] = P .. 'env:' .. J, ARGV[i + 8]
    end
    if is_claimed then -- a worker said that it holds it, when Redis was empty
      r('HSET', P .. 'running:' .. A .. ':' .. C, J, '')
    else
      fresh = fresh + 1
      if delay > 0 then
        add(P .. 'delayed:' .. L, now + math.min(delay, LONGEST_DELAY), J)
      else
        place(J, L, jobs, prio, created)
        make_sure(L, A, C, jobs)
      end
    end
  end
end
flush()
if next(new_caps) then count_running() end
if fresh + placed > 0 then wake() end -- for delayed ones too: who wakes learns when to look again
return fresh
