-- claim.lua - up to `max` jobs for a worker. Lanes take turns, in a lane apps, then accounts; O(log n) a job.
-- ARGV: worker, number of this claim call, max. Returns next_ms, then five for each: job, lane, envelope, note, lost;
-- what is broken is dropped on the way, a bounded number of it a call.
local W, SEQ, MAX = ARGV[1], ARGV[2], math.min(tonumber(ARGV[3]), 1000)
local next_ms, taken, is_taken, tries = -1, {}, {}, 0
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

local function room_under_cap(L, A, C)
  if not has_caps then return FAR end
  local cap = number(r('HGET', P .. 'caps', A .. ':' .. C), 1, FAR)
  if not cap then return FAR end
  local key = P .. 'running:' .. A .. ':' .. C
  local room = cap - r('HLEN', key)
  if room > 0 then return room end
  for _, J in ipairs(r('HRANDFIELD', key, 5)) do -- entries of claims that are gone must not block it for ever
    local lane = job_of(J)
    if not is_taken[J] and (not lane or r('HEXISTS', P .. 'claims:' .. lane, J) == 0) then
      room = room + r('HDEL', key, J)
    end
  end
  if room <= 0 then r('SADD', P .. 'capped:' .. A .. ':' .. C, L) end
  return room
end

-- Takers (apps of a lane, accounts of an app) in order of their virtual time: a heap of what was read of the zset, which
-- is read on, a page at a time, only as far as this call goes.
local function before(x, y) return x.time < y.time or x.time == y.time and x.name < y.name end

local function sink(h, i) -- h[i] may stand before those that it should follow
  local n, x = #h, h[i]
  while true do
    local k = 2 * i
    if k > n then break end
    if k < n and before(h[k + 1], h[k]) then k = k + 1 end
    if not before(h[k], x) then break end
    h[i] = h[k]
    i = k
  end
  h[i] = x
end

local function drop_first(h)
  local n = #h
  h[1] = h[n]
  h[n] = nil
  if n > 2 then sink(h, 1) end
end

local function takers(key, prefix, page) return { key = key, prefix = prefix, page = page, from = 0, more = true } end

local function read_on(h)
  local list = r('ZRANGE', h.key, h.from, h.from + h.page, 'WITHSCORES')
  local count, names = #list / 2, {}
  h.from, h.more, h.page = h.from + count, count > h.page, 2 * h.page
  for i = 1, count do names[i] = h.prefix .. list[2 * i - 1] end
  local weights = has_weights and count > 0 and r('HMGET', P .. 'weights', unpack(names))
  for i = 1, count do
    h.last = number(list[2 * i], -FAR, FAR, 0)
    local x = { name = list[2 * i - 1], time = h.last, turn = weights and 1 / number(weights[i], 1, MOST_WEIGHT, 1) or 1 }
    local at = #h + 1
    while at > 1 do -- up to its place
      local parent = math.floor(at / 2)
      if not before(x, h[parent]) then break end
      h[at] = h[parent]
      at = parent
    end
    h[at] = x
  end
end

local function first(h)
  while h.more and (not h[1] or h[1].time > h.last) do read_on(h) end
  return h[1]
end

local function turns(h) -- how many the first may have in a row before it is another's turn
  local own, other = h[1], h.more and h.last or FAR
  if h[2] then other = math.min(other, h[2].time) end
  if h[3] then other = math.min(other, h[3].time) end
  return math.max(1, math.ceil((other - own.time) / own.turn - 1e-6))
end

local function pop(L, A, account, n, ids) -- of an account's jobs, at most n; returns how many of them are jobs
  local popped, found = r('ZPOPMIN', account.jobs, n), 0
  for i = 1, #popped, 2 do
    local J = popped[i]
    ids[#ids + 1] = J
    local h = r('HMGET', P .. 'job:' .. J, 'lane', 'app', 'account')
    local lane, app, name = h[1], h[2], h[3]
    if lane == L and app == A and name == account.name and #J == 36 and string.find(J, '^[%x-]+$') then
      found = found + 1
      taken[#taken + 1], is_taken[J] = { J, L }, true
      account.taken[#account.taken + 1], account.taken[#account.taken + 2] = J, ''
    else
      tries = tries + 1
      if not lane or not app or not name then erase(J) end
    end
  end
  account.is_empty = #popped < 2 * n
  return found
end

local function count_in(A, account) -- what was taken of it runs
  if #account.taken == 0 then return end
  r('HSET', P .. 'running:' .. A .. ':' .. account.name, unpack(account.taken))
  account.taken = {}
end

local function settle(L, app) -- what was taken from an app's accounts, written down; returns whether any is left
  local A, accounts, moved, gone, full = app.name, app.accounts.key, {}, {}, {}
  for _, account in ipairs(app.used) do
    count_in(A, account)
    if not account.is_empty and not account.is_capped then full[#full + 1] = account.jobs end
  end
  local all_are = #full == 0 or redis.call('EXISTS', unpack(full)) == #full -- nearly always: one question for all
  for _, account in ipairs(app.used) do
    if account.is_empty or account.is_capped or not all_are and r('EXISTS', account.jobs) == 0 then
      gone[#gone + 1] = account.name
    elseif account.got > 0 then
      moved[#moved + 1], moved[#moved + 2] = account.time, account.name
    end
  end
  if #moved > 0 then r('ZADD', accounts, unpack(moved)) end
  if #gone > 0 then r('ZREM', accounts, unpack(gone)) end
  return (#gone == 0 and app.used[1] or r('EXISTS', accounts) == 1) and true
end

local function take(L, want) -- returns how many
  local got, ids, used, key = 0, {}, {}, P .. 'apps:' .. L
  local apps = takers(key, '', math.min(want, 32))
  while got < want and tries < TRIES do
    tries = tries + 1
    local app = first(apps)
    if not app then break end
    local A = app.name
    if not app.used then
      app.used, used[#used + 1] = {}, app
      app.accounts = takers(P .. 'accounts:' .. L .. ':' .. A, A .. ':', math.ceil((want - got) / #apps))
    end
    local account = first(app.accounts)
    if account and not account.jobs then
      account.jobs, account.taken = P .. 'jobs:' .. L .. ':' .. A .. ':' .. account.name, {}
      account.room, account.got = 0, 0
      app.used[#app.used + 1] = account
    end
    if account and account.room <= 0 then
      count_in(A, account)
      account.room = room_under_cap(L, A, account.name)
      account.is_capped = account.room <= 0
    end
    if not account then
      drop_first(apps)
    elseif account.is_capped then
      drop_first(app.accounts)
    else
      local n = pop(L, A, account, math.min(turns(apps), turns(app.accounts), want - got, account.room), ids)
      got, app.got, account.got, account.room = got + n, (app.got or 0) + n, account.got + n, account.room - n
      app.time, account.time = app.time + n * app.turn, account.time + n * account.turn
      if account.is_empty then drop_first(app.accounts) else sink(app.accounts, 1) end
      sink(apps, 1)
    end
  end
  local moved, gone = {}, {}
  for _, app in ipairs(used) do
    if not settle(L, app) then
      gone[#gone + 1] = app.name
    elseif app.got then
      moved[#moved + 1], moved[#moved + 2] = app.time, app.name
    end
  end
  if #moved > 0 then r('ZADD', key, unpack(moved)) end
  if #gone > 0 then r('ZREM', key, unpack(gone)) end
  for i = 1, #ids, 1000 do r('ZREM', P .. 'ready:' .. L, unpack(ids, i, math.min(i + 999, #ids))) end
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
    elseif redis.call('EXISTS', P .. 'lane:' .. L, P .. 'claims:' .. L, P .. 'ready:' .. L, P .. 'delayed:' .. L) == 0 then
      r('ZREM', P .. 'lanes', L) -- nothing is left of it
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

if tries >= TRIES then look_again(1) end
if #taken == 0 then return { next_ms } end

local mine, by_lane, keys, ids, out = {}, {}, {}, {}, { next_ms }
for i, claim in ipairs(taken) do
  local J, L = claim[1], claim[2]
  mine[#mine + 1], mine[#mine + 2] = J, SEQ .. ':' .. L
  local theirs = by_lane[L] or {}
  theirs[#theirs + 1], theirs[#theirs + 2] = J, W
  by_lane[L] = theirs
  keys[#keys + 1], keys[#keys + 2] = P .. 'env:' .. J, P .. 'note:' .. J
  ids[i] = J
end
r('HSET', P .. 'worker:' .. W, unpack(mine))
for L, theirs in pairs(by_lane) do r('HSET', P .. 'claims:' .. L, unpack(theirs)) end
local texts = redis.call('MGET', unpack(keys))
local lost = r('EXISTS', P .. 'lost') == 1 and r('SMISMEMBER', P .. 'lost', unpack(ids)) or {}
for i, claim in ipairs(taken) do
  local at = #out
  out[at + 1], out[at + 2], out[at + 3], out[at + 4] = claim[1], claim[2], texts[2 * i - 1], texts[2 * i]
  out[at + 5] = lost[i] == 1 and 1 or 0
  if lost[i] == 1 then r('SREM', P .. 'lost', claim[1]) end -- told once: counting twice would be worse than not at all
end
-- This claim is full; what is left is the next sleeper's.
if #taken == MAX then
  for _, lane in ipairs(open) do
    if lane.room > 0 and r('EXISTS', P .. 'apps:' .. lane.lane) == 1 then
      wake()
      break
    end
  end
end
return out
