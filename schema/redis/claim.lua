-- claim.lua - up to `max` jobs for a worker. Lanes take turns, in a lane apps, then accounts; O(log n) a job.
-- ARGV: worker, number of this claim call, max. Returns next_ms, then five for each: job, lane, envelope, note, lost;
-- what is broken is dropped on the way, a bounded number of it a call.
local W, SEQ, MAX = ARGV[1], ARGV[2], math.min(tonumber(ARGV[3]), 1000)
local next_ms, tries, leaves = -1, 0, false -- leaves: a lane gave less than it has
local taken, mine, out = {}, {}, { -1 } -- ids; the worker's side of these claims; the answer
local is_taken, is_bad, is_new = {}, {}, {} -- of accounts with a cap; popped, but no job; without a note
local TRIES = 4 * MAX + 256
local has_caps = r('HLEN', P .. 'caps') > 0
local has_weights = r('HLEN', P .. 'weights') > 0

local function look_again(ms)
  ms = math.max(1, ms)
  if next_ms < 0 or ms < next_ms then next_ms = ms end
end

local function promote(L) -- delayed jobs whose time has come
  local key = P .. 'delayed:' .. L
  local due = r('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, MAX + 64)
  for _, J in ipairs(due) do
    local lane, A, C, prio, created = job_of(J)
    r('ZREM', key, J)
    if not lane then
      erase(J)
    elseif lane == L and r('HEXISTS', P .. 'claims:' .. L, J) == 0 then
      enqueue(J, L, A, C, score_of(prio, created), created)
      activate(L, A, C)
    end
  end
  local head = r('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if head then look_again(number(head, 0, now + 86400000, now + 86400000) - now) end
end

-- A claim of a worker that does not know of it would hold its place for ever: a few are looked at each time.
local function look_at_claims(L, n)
  local list = r('HRANDFIELD', P .. 'claims:' .. L, n, 'WITHVALUES')
  for i = 1, #list, 2 do
    local J, owner = list[i], list[i + 1]
    if r('HEXISTS', P .. 'worker:' .. owner, J) == 0 then
      local lane, A, C, _, created = job_of(J)
      unclaim(J, L, nil, A, C)
      if lane == L then
        enqueue(J, L, A, C, head_score(created), created)
        activate(L, A, C)
      end
    end
  end
end

local function room_under_cap(L, A, C, cap)
  local key = P .. 'running:' .. A .. ':' .. C
  local room = cap - r('HLEN', key)
  if room > 0 then return room end
  for _, J in ipairs(r('HRANDFIELD', key, 5)) do -- entries of claims that are gone must not block it for ever
    local lane = job_of(J)
    if not is_taken[J] and (not lane or r('HEXISTS', P .. 'claims:' .. lane, J) == 0) then
      room = room + r('HDEL', key, J)
    end
  end
  if room <= 0 then
    r('SADD', P .. 'capped:' .. A .. ':' .. C, L)
    r('SADD', P .. 'waits:' .. L, A .. ':' .. C)
  end
  return room
end

-- Takers (apps of a lane, accounts of an app) in order of their virtual time: what was read of the zset, which is read on,
-- a page at a time, only as far as this call goes; and a heap of those that had a turn and may have another.
local function before(x, y) return x.time < y.time or x.time == y.time and x.name < y.name end

local function takers(key, app, page) -- app: whose accounts; nil: apps
  return { key = key, app = app, page = page, from = 0, more = true, names = {}, times = {}, at = 1, served = {} }
end

-- Where as many accounts wait as jobs are wanted, and nobody anywhere has a weight or a cap, each has one turn and none a second:
-- in the order in which they stand, as nobody is more than a turn ahead of another (see join). Their times are not asked of each.
local function crowd(key, want, page)
  if has_weights or has_caps or want < 2 or r('ZCARD', key) < want then return end
  return { key = key, page = page, names = {}, jobs = {}, empty = {}, at = 0 }
end

local function next_of(c) -- nil: each has had its turn
  local at = c.at + 1
  if not c.names[at] then
    for i, name in ipairs(r('ZRANGE', c.key, c.at, c.at + c.page)) do c.names[c.at + i] = name end
  end
  if c.names[at] then c.at = at end
  return c.names[at]
end

local function read_on(h)
  local list, count = r('ZRANGE', h.key, h.from, h.from + h.page, 'WITHSCORES'), 0
  h.names, h.times, h.at = {}, {}, 1
  for i = 1, #list, 2 do
    count = count + 1
    h.names[count], h.times[count] = list[i], number(list[i + 1], -FAR, FAR, 0)
  end
  h.from, h.more, h.page, h.last = h.from + count, count > h.page, 2 * h.page, h.times[count] or h.last
  if count == 0 or not has_weights and not has_caps then return end
  local ids = {}
  for i = 1, count do ids[i] = h.app and h.app .. ':' .. h.names[i] or h.names[i] end
  h.weights = has_weights and r('HMGET', P .. 'weights', unpack(ids))
  h.caps = has_caps and h.app and r('HMGET', P .. 'caps', unpack(ids))
end

local function first(h) -- taken out; who may have another turn is given back
  local served, at = h.served, h.at
  while h.more and not h.names[at] and (not served[1] or served[1].time > h.last) do
    read_on(h)
    at = 1
  end
  local x, name, time = served[1], h.names[at], h.times[at]
  if name and (not x or time < x.time or time == x.time and name < x.name) then
    h.at = at + 1
    local weight, cap = h.weights and number(h.weights[at], 1, MOST_WEIGHT), h.caps and number(h.caps[at], 1, FAR)
    return { name = name, time = time, turn = 1 / (weight or 1), cap = cap, jobs = false, got = 0, room = 0, is_empty = false }
  end
  local n = #served
  local last = served[n]
  served[n] = nil
  if n < 2 then return x end
  local i, k = 1, 2
  while k < n do -- the last stands in for the first, and sinks to its place
    if k + 1 < n and before(served[k + 1], served[k]) then k = k + 1 end
    if not before(served[k], last) then break end
    served[i] = served[k]
    i, k = k, 2 * k
  end
  served[i] = last
  return x
end

local function give_back(h, x)
  local served = h.served
  local i = #served + 1
  while i > 1 do -- up to its place: mostly that is here
    local k = math.floor(i / 2)
    if not before(x, served[k]) then break end
    served[i] = served[k]
    i = k
  end
  served[i] = x
end

local function turns(own, h) -- how many it may have in a row before it is another's turn
  local other, x = h.times[h.at] or h.more and h.last or FAR, h.served[1]
  if x and x.time < other then other = x.time end
  if other - own.time <= own.turn then return 1 end
  return math.ceil((other - own.time) / own.turn - 1e-6)
end

local function count_in(A, account) -- what was taken of one with a cap runs
  local list = {}
  for _, J in ipairs(account.taken or {}) do
    if not is_bad[J] then list[#list + 1], list[#list + 2] = J, '' end
  end
  if #list > 0 then r('HSET', P .. 'running:' .. A .. ':' .. account.name, unpack(list)) end
  account.taken = {}
end

-- A hash or sorted set that Redis keeps as a list (of up to 512 entries, or 128) is read through for each one that is
-- added, moved or taken out, and one long value makes it a table for good: so they become one before they are many.
local LONG = string.rep('-', 80)
local function is_list(key)
  local encoding = redis.call('OBJECT', 'ENCODING', key)
  return encoding == 'listpack' or encoding == 'ziplist'
end

local function write_times(key, moved)
  if #moved >= 16 and r('ZCARD', key) >= 24 and is_list(key) then
    r('ZADD', key, 0, LONG)
    r('ZREM', key, LONG)
  end
  r('ZADD', key, unpack(moved))
end

local function write_places(key, moved, gone) -- returns whether any is left
  if #moved > 0 then write_times(key, moved) end
  if #gone > 0 then r('ZREM', key, unpack(gone)) end
  return #gone == 0 or r('EXISTS', key) == 1
end

local function all_exist(keys) -- nearly always they do: one question for all
  return #keys == 0 or redis.call('EXISTS', unpack(keys)) == #keys
end

local function times_of(c) -- of a crowd's first, those after their turn: mostly many stand at the same
  local times, at, asked = {}, 0, 0
  while at < c.at do
    local list = r('ZRANGE', c.key, at, asked < 16 and at or c.at - 1, 'WITHSCORES')
    for i = 2, #list, 2 do times[at + i / 2] = string.format('%.17g', number(list[i], -FAR, FAR, 0) + 1) end
    local last = at + #list / 2
    at, asked = math.max(last, r('ZCOUNT', c.key, '-inf', list[#list])), asked + 1
    for i = last + 1, math.min(at, c.at) do times[i] = times[last] end
  end
  return times
end

local function settle_crowd(c) -- as settle
  local moved, gone, times, all_are = {}, {}, times_of(c), all_exist(c.jobs)
  for i, jobs in ipairs(c.jobs) do
    if all_are or not c.empty[i] and r('EXISTS', jobs) == 1 then
      moved[#moved + 1], moved[#moved + 2] = times[i], c.names[i]
    else
      gone[#gone + 1] = c.names[i]
    end
  end
  return write_places(c.key, moved, gone)
end

local function settle(app) -- what was taken from an app's accounts, written down; returns whether any is left
  if app.crowd then return settle_crowd(app.crowd) end
  if not app.used[1] then return r('EXISTS', app.accounts.key) == 1 end
  local A, moved, gone, full = app.name, {}, {}, {}
  for _, account in ipairs(app.used) do
    if account.cap then count_in(A, account) end
    if not account.is_empty and not account.is_capped then full[#full + 1] = account.jobs end
  end
  local all_are = all_exist(full)
  for _, account in ipairs(app.used) do
    if account.is_empty or account.is_capped or not all_are and r('EXISTS', account.jobs) == 0 then
      gone[#gone + 1] = account.name
    elseif account.got > 0 then
      moved[#moved + 1], moved[#moved + 2] = account.time, account.name
    end
  end
  return write_places(app.accounts.key, moved, gone)
end

local function write_claims(key, list)
  local n = r('HLEN', key)
  local is_long = n <= 512 and n + #list / 2 >= 64 and (n == 0 or is_list(key))
  if is_long then r('HSET', key, '', LONG) end
  r('HSET', key, unpack(list))
  if is_long then r('HDEL', key, '') end
end

-- Popped ids become claims. An envelope says that the job is known; where there is none, because it is too large or
-- the job is gone, its record is asked. Returns how many were not jobs of the lane.
local function keep(L, ids)
  local keys, note_at, claims, mark, bad = {}, {}, {}, SEQ .. ':' .. L, 0
  local n = #ids
  for i, J in ipairs(ids) do keys[i] = P .. 'env:' .. J end
  for i, J in ipairs(ids) do
    if not is_new[J] then n, keys[n + 1], note_at[i] = n + 1, P .. 'note:' .. J, n + 1 end
  end
  local texts = n > 0 and redis.call('MGET', unpack(keys))
  for i, J in ipairs(ids) do
    local is_known, note = texts[i], note_at[i] and texts[note_at[i]] or false
    if not is_known then
      local h = r('HMGET', P .. 'job:' .. J, 'lane', 'app', 'account')
      is_known = h[1] == L and h[2] and h[3] and #J == 36 and string.find(J, '^[%x-]+$')
      if not h[1] or not h[2] or not h[3] then erase(J) end
    end
    if is_known then
      local m, k = #taken + 1, #claims
      taken[m], mine[2 * m - 1], mine[2 * m], claims[k + 1], claims[k + 2] = J, J, mark, J, W
      out[5 * m - 3], out[5 * m - 2], out[5 * m - 1], out[5 * m], out[5 * m + 1] = J, L, texts[i], note, 0
    else
      is_bad[J], bad = true, bad + 1
    end
  end
  if #claims > 0 then write_claims(P .. 'claims:' .. L, claims) end
  return bad
end

local function pop(jobs, n, ids, ages, has_old, taken) -- of an account's jobs, at most n; returns how many
  local popped, count = r('ZPOPMIN', jobs, n), 0
  for i = 1, #popped, 2 do
    local J, score = popped[i], tonumber(popped[i + 1]) or 0
    local slot = slot_of(score)
    ids[#ids + 1], count, ages[slot] = J, count + 1, (ages[slot] or 0) + 1
    is_new[J] = score >= 0 and score % 1 == 0 and not has_old
    if taken then taken[#taken + 1], is_taken[J] = J, true end
  end
  return count
end

local function take_turn(L, app, apps, want, ids, ages, has_old) -- of one account; returns how many jobs, nil: nobody is left
  local A, accounts = app.name, app.accounts
  local account = first(accounts)
  if not account then return end
  if not account.jobs then
    account.jobs, account.room = app.jobs .. account.name, account.cap and 0 or FAR
    app.used[#app.used + 1] = account
  end
  if account.room <= 0 then
    count_in(A, account)
    account.room = room_under_cap(L, A, account.name, account.cap)
    account.is_capped = account.room <= 0
    if account.is_capped then return 0 end
  end
  local ask = math.min(turns(app, apps), turns(account, accounts), want, account.room)
  local n = pop(account.jobs, ask, ids, ages, has_old, account.cap and account.taken)
  account.is_empty, account.got, account.room = n < ask, account.got + n, account.room - n
  account.time = account.time + n * account.turn
  if not account.is_empty then give_back(accounts, account) end
  return n
end

local function take_next(app, ids, ages, has_old) -- of a crowd's next one, likewise
  local c = app.crowd
  local name = next_of(c)
  if name then
    c.jobs[c.at] = app.jobs .. name
    local n = pop(c.jobs[c.at], '1', ids, ages, has_old) -- a number would be printed for Redis each time
    c.empty[c.at] = n == 0
    return n
  end
  leaves = true -- fewer had a job than stood there, and these may have more
  look_again(1)
end

local function take(L, want) -- returns how many
  local got, ids, ages, used, key = 0, {}, {}, {}, P .. 'apps:' .. L
  local apps, ready = takers(key, nil, math.min(want, 32)), P .. 'ready:' .. L
  local has_old = r('EXISTS', ready) == 1 -- placed by scripts that do not mark who is new
  while got < want and tries < TRIES do
    tries = tries + 1
    local app = first(apps)
    if not app then break end
    if not app.jobs then
      local accounts, others = P .. 'accounts:' .. L .. ':' .. app.name, #apps.names - apps.at + 1 + #apps.served
      local page = math.ceil((want - got) / (1 + others))
      app.crowd, app.used, app.accounts = crowd(accounts, want - got, page), {}, takers(accounts, app.name, page)
      app.jobs, used[#used + 1] = P .. 'jobs:' .. L .. ':' .. app.name .. ':', app
    end
    local n
    if app.crowd then
      n = take_next(app, ids, ages, has_old)
    else
      n = take_turn(L, app, apps, want - got, ids, ages, has_old)
    end
    if n then
      got, app.got, app.time = got + n, app.got + n, app.time + n * app.turn
      give_back(apps, app)
    end
  end
  got = got - keep(L, ids)
  local moved, gone = {}, {}
  for _, app in ipairs(used) do
    if not settle(app) then
      gone[#gone + 1] = app.name
    elseif app.got > 0 then
      moved[#moved + 1], moved[#moved + 2] = app.time, app.name
    end
  end
  if #moved > 0 then r('ZADD', key, unpack(moved)) end
  if #gone > 0 then r('ZREM', key, unpack(gone)) end
  for slot, n in pairs(ages) do tally(L, slot, -n) end
  for i = 1, has_old and #ids or 0, 1000 do r('ZREM', ready, unpack(ids, i, math.min(i + 999, #ids))) end
  return got
end

-- Which lanes can give something, and how much.
local open = {}
for _, L in ipairs(r('ZRANGE', P .. 'lanes', 0, 63)) do
  local pause = math.max(paused_until(L), number(r('HGET', P .. 'lane:' .. L, 'keys_wait'), 0, now + LONGEST_PAUSE, 0)) - now
  local has_ready = r('EXISTS', P .. 'apps:' .. L) == 1
  if not string.find(L, '^[%w_.-]+$') then
    r('ZREM', P .. 'lanes', L)
  elseif pause > 0 then
    if has_ready or r('EXISTS', P .. 'delayed:' .. L) == 1 then look_again(pause) end
  else
    promote(L)
    look_at_claims(L, 1)
    if r('EXISTS', P .. 'apps:' .. L) == 1 then
      local limit, room, b = limit_of(L), FAR, budget_of(L)
      if limit > 0 then
        room = limit - r('HLEN', P .. 'claims:' .. L)
        if room <= 0 then
          look_at_claims(L, 5)
          room = limit - r('HLEN', P .. 'claims:' .. L)
        end
      end
      if b then
        if b.spent >= b.count and room > 0 then look_again(budget_wait(b, 1, nil, b.count)) end
        room = math.min(room, b.count - b.spent)
      end
      if room > 0 then open[#open + 1] = { lane = L, room = room, budget = b, got = 0 } end
    else
      if r('EXISTS', P .. 'waits:' .. L) == 0 then r('DEL', P .. 'ages:' .. L) end -- nobody has a ready job
      if redis.call('EXISTS', P .. 'lane:' .. L, P .. 'claims:' .. L, P .. 'ages:' .. L, P .. 'delayed:' .. L) == 0 then
        r('ZREM', P .. 'lanes', L) -- nothing is left of it
      end
    end
  end
end

-- Turns: each open lane an equal part, what one leaves the others may have.
local asked = MAX
local turn = number(r('ZRANGE', P .. 'lanes', -1, -1, 'WITHSCORES')[2], 0, FAR, 0)
while asked > 0 and #open > 0 and tries < TRIES do
  local part, still = math.ceil(asked / #open), {}
  for _, lane in ipairs(open) do
    local want = math.min(part, lane.room, asked)
    local n = want > 0 and take(lane.lane, want) or 0
    lane.got, lane.room, asked = lane.got + n, lane.room - n, asked - n
    if n > 0 then
      if lane.budget then budget_spend(lane.budget, 's', n) end
      turn = turn + 1
      r('ZADD', P .. 'lanes', turn, lane.lane)
    end
    if lane.room <= 0 and lane.budget and lane.budget.spent >= lane.budget.count then
      look_again(budget_wait(lane.budget, 1, nil, lane.budget.count))
    end
    if lane.room > 0 and (n == want and n > 0 or want == 0) then still[#still + 1] = lane end
  end
  open = still
end

if tries >= TRIES or next(is_bad) then look_again(1) end -- what is left
out[1] = next_ms
if #taken == 0 then return out end
write_claims(P .. 'worker:' .. W, mine)
local lost = r('EXISTS', P .. 'lost') == 1 and r('SMISMEMBER', P .. 'lost', unpack(taken)) or {}
for i, is_lost in ipairs(lost) do -- told once: counting twice would be worse than not at all
  out[5 * i + 1] = is_lost
  if is_lost == 1 then r('SREM', P .. 'lost', taken[i]) end
end
-- This claim is full; what is left is the next sleeper's.
if #taken == MAX then
  for _, lane in ipairs(open) do
    leaves = leaves or lane.room > 0 and r('EXISTS', P .. 'apps:' .. lane.lane) == 1
  end
  if leaves then wake() end
end
return out
