-- publish.lua - adds jobs that Redis does not know; a known one that lost its place in a queue gets it back.
-- ARGV: groups of jobs that have all this in common: how many, lane, app, account, priority, created, delay, cap, and
-- whether they were accepted just now ('1'); then job and envelope ('': none) of each. Returns how many were new.
-- What many have in common is asked and written once a call: whether any is known at all, whose claims they are, the
-- envelopes, each sorted set, and how old they are.
local fresh, placed = 0, 0
local seen = {} -- lanes, apps' and accounts' places, caps: made sure of once a call
local sets, ages, envelopes = {}, {}, {} -- to be written by flush
local function add(key, score, J) -- as text: Redis prints a number for a command with all its digits
  local list = sets[key]
  if not list then
    list = {}
    sets[key] = list
  end
  local n = #list
  list[n + 1], list[n + 2] = string.format(score % 1 == 0 and '%d' or '%.1f', score), J
  return list
end
local function count(L, slot, n)
  local of = ages[L] or {}
  ages[L], of[slot] = of, (of[slot] or 0) + n
end
local function flush()
  if #envelopes > 0 then redis.call('MSET', unpack(envelopes)) end
  for key, list in pairs(sets) do
    local old = list.lane and #list / 2 - r('ZADD', key, 'NX', unpack(list)) or 0
    if not list.lane then r('ZADD', key, unpack(list)) end
    for i = 1, old > 0 and #list or 0, 2 do -- without a record, but in a place, which they keep
      if tonumber(r('ZSCORE', key, list[i + 1])) ~= tonumber(list[i]) then
        count(list.lane, slot_of(list[i]), -1)
        old = old - 1
      end
    end
    if old > 0 then count(list.lane, slot_of(list[1]), -old) end -- in the very same place
  end
  for L, of in pairs(ages) do
    for slot, n in pairs(of) do tally(L, slot, n) end
  end
  sets, ages, envelopes = {}, {}, {}
end

local function place(J, L, jobs, score, created)
  add(jobs, score, J).lane = L
  count(L, slot_of(created), 1)
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

local groups, records, lanes, claims, in_call = {}, {}, {}, {}, {}
local at = 1
while at < #ARGV do
  local g = { L = ARGV[at + 1], A = ARGV[at + 2], C = ARGV[at + 3], prio = ARGV[at + 4], created = ARGV[at + 5],
              delay = tonumber(ARGV[at + 6]), cap = tonumber(ARGV[at + 7]), from = at + 9 }
  g.score = score_of(tonumber(g.prio), tonumber(g.created)) + (ARGV[at + 8] == '1' and 0 or 0.5) -- see enqueue
  at = at + 9 + 2 * tonumber(ARGV[at])
  g.to, groups[#groups + 1] = at - 1, g
  local ids = lanes[g.L] or {}
  lanes[g.L] = ids
  for i = g.from, g.to, 2 do ids[#ids + 1], records[#records + 1] = ARGV[i], P .. 'job:' .. ARGV[i] end
end
local is_any_known = redis.call('EXISTS', unpack(records)) > 0
for L, ids in pairs(lanes) do
  r('ZADD', P .. 'lanes', 'NX', 0, L)
  claims[L] = {}
  for k, owner in ipairs(r('HMGET', P .. 'claims:' .. L, unpack(ids))) do
    if owner then claims[L][ids[k]] = true end
  end
end

local function publish(J, envelope, g)
  local L, A, C, jobs = g.L, g.A, g.C, g.jobs
  local lane, app, account, its_prio, its_created
  if in_call[J] then flush() end -- the same one twice
  if is_any_known or in_call[J] then lane, app, account, its_prio, its_created = job_of(J) end
  in_call[J] = true

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
      place(J, L, jobs, score_of(its_prio, its_created) + 0.5, its_created)
      make_sure(L, A, C, jobs)
    end
    return
  end

  if g.record and not is_any_known then
    redis.call('COPY', g.record, P .. 'job:' .. J, 'REPLACE') -- the same but for its name, at half the price
  else
    g.record = P .. 'job:' .. J
    r('HSET', g.record, 'lane', L, 'app', A, 'account', C, 'prio', g.prio, 'created', g.created)
  end
  if envelope ~= '' then
    local n = #envelopes
    envelopes[n + 1], envelopes[n + 2] = P .. 'env:' .. J, envelope
  end
  if is_claimed then -- a worker said that it holds it, when Redis was empty
    r('HSET', P .. 'running:' .. A .. ':' .. C, J, '')
    return
  end
  fresh = fresh + 1
  if g.delay > 0 then
    add(P .. 'delayed:' .. L, now + math.min(g.delay, LONGEST_DELAY), J)
  else
    place(J, L, jobs, g.score, tonumber(g.created))
    make_sure(L, A, C, jobs)
  end
end

for _, g in ipairs(groups) do
  local id = g.A .. ':' .. g.C
  g.jobs = P .. 'jobs:' .. g.L .. ':' .. id
  if g.cap >= 0 and not seen['cap ' .. id] then -- below: who publishes does not know it
    seen['cap ' .. id] = true
    if g.cap == 0 then
      r('HDEL', P .. 'caps', id)
    elseif r('HSET', P .. 'caps', id, g.cap) == 1 then
      new_caps[id] = true
    end
  end
  for i = g.from, g.to, 2 do publish(ARGV[i], ARGV[i + 1], g) end
end
flush()
if next(new_caps) then count_running() end
if fresh + placed > 0 then wake() end -- for delayed ones too: who wakes learns when to look again
return fresh
