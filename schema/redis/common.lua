-- common.lua - what stands before the scripts of the queue (queue_scripts.c joins them before loading): of the parts that
-- begin with `--: NAMES` only those whose names a script uses, for each call of it runs them all.
--
-- Structures, all below P = "kiln:{0}:" (L lane, A app, C account, J job, W worker):
--   lanes            zset   L by its last turn            lane:L          hash  limits, pauses
--   apps:L           zset   A by virtual time             accounts:L:A    zset  C by virtual time
--   jobs:L:A:C       zset   J by priority, then age       ages:L          hash  time of creation -> ready J of it
--   delayed:L        zset   J by due time                 claims:L        hash  J -> W; its size is the concurrency
--   worker:W         hash   J -> "claim call:L"           collecting:W    set   J; if W dies now, it counts as a loss
--   running:A:C      hash   J of a capped account -> ''   capped:A:C      set   L where the account waits for its cap
--   waits:L          set    A:C that wait for their cap
--   caps             hash   A:C -> accounts.max_running   weights         hash  A and A:C -> weight; who is not there: 1
--   spent:L          hash   requests by slice of the window
--   key:L#K          hash   one of several keys of a provider (K: its fingerprint): pauses, refusals
--   spent:L#K        hash   requests with that key
--   job:J            hash   lane app account prio created [phase percent]
--   env:J note:J     string envelope; "attempt\nJSON"     lost            set   J whose worker died while collecting
--   wake             list   a token wakes one sleeper     marker          string (the reconciler's)
-- job:J is kept small so that it stays one listpack; envelope and note have keys of their own for that reason.
--
-- Virtual time: who is served moves on by one turn, which is 1/weight, the lowest is next. Who joins stands a hair less
-- than one turn of its own behind the lowest, so that a returning one neither jumps the queue again and again nor waits
-- for more than a turn of each other, and nobody saves up what it did not use. It needs no clock of its own, so there is
-- none that could drift.
local P = KEYS[1]

--: now
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

--: AGE BEHIND FAR SLICES MOST_WEIGHT LONGEST_PAUSE LONGEST_DELAY
local AGE = 4398046511104 -- 2^42 ms: the next priority begins here
local BEHIND, FAR, SLICES, MOST_WEIGHT = 0.999, 4503599627370496, 20, 1000
local LONGEST_PAUSE, LONGEST_DELAY = 7 * 86400000, 366 * 86400000 -- by a provider; what says more is garbage

--: r
-- Every command goes through here: a key that holds another kind of thing (or number) is somebody's mistake, and goes. Other
-- errors (out of memory, read-only replica) come before the script's first write and end it.
local function r(command, key, ...)
  local v = redis.pcall(command, key, ...)
  if type(v) == 'table' and v.err then
    if not string.find(v.err, 'WRONGTYPE', 1, true) and not string.find(v.err, 'is not a', 1, true) and
       not string.find(v.err, 'overflow', 1, true) then
      error(v.err)
    end
    redis.call('DEL', key)
    v = redis.call(command, key, ...)
  end
  return v
end

--: number
local function number(text, low, high, otherwise) -- refuses nan, too
  local n = tonumber(text or nil)
  if n and n >= low and n <= high then return n end
  return otherwise
end

--: job_of
local function job_of(J) -- lane, app, account, priority, created; nil: unknown or broken
  local h = r('HMGET', P .. 'job:' .. J, 'lane', 'app', 'account', 'prio', 'created')
  local prio, created = number(h[4], -100, 100), number(h[5], 0, AGE - 1)
  if h[1] and h[2] and h[3] and prio and created then return h[1], h[2], h[3], prio, created end
end

--: erase
local function erase(J)
  redis.call('DEL', P .. 'job:' .. J, P .. 'env:' .. J, P .. 'note:' .. J)
  r('SREM', P .. 'lost', J)
end

--: join
local function join(key, member, id)
  if r('ZSCORE', key, member) then return end
  local lowest, at = r('ZRANGE', key, 0, 0, 'WITHSCORES')[2], 0
  if lowest then
    at = number(lowest, -FAR, FAR, 0) + BEHIND / number(r('HGET', P .. 'weights', id), 1, MOST_WEIGHT, 1)
  end
  r('ZADD', key, at, member)
end

--: activate
local function activate(L, A, C)
  join(P .. 'accounts:' .. L .. ':' .. A, C, A .. ':' .. C)
  join(P .. 'apps:' .. L, A, A)
end

--: tally
-- Of the lane's ready jobs, those created in that slot: n more. What is in a jobs:L:A:C is counted here; what would be less
-- than none was miscounted before, and stats.lua sees to that.
local function tally(L, slot, n)
  local key, field = P .. 'ages:' .. L, string.format('%d', slot)
  if r('HINCRBY', key, field, n) <= 0 then r('HDEL', key, field) end
end

--: SLOT
local SLOT = 10000 -- ms

--: slot_of
local function slot_of(score) -- of a job's place, or of a time: when it was created
  local created = (tonumber(score) or 0) % AGE
  return created >= 0 and math.floor(created / SLOT) or 0 -- an infinite one has no remainder
end

--: enqueue
-- One that is not new: the half tells it from those of which nobody can have noted anything.
local function enqueue(J, L, A, C, score, created) -- as text: Redis prints a number for a command with all its digits
  if r('ZADD', P .. 'jobs:' .. L .. ':' .. A .. ':' .. C, string.format('%.1f', score + 0.5), J) == 1 then
    tally(L, slot_of(created), 1)
  end
end

--: score_of
local function score_of(prio, created) return (100 - prio) * AGE + created end

--: head_score
local function head_score(created) return created - AGE end -- before every priority

--: dequeue
local function dequeue(J, L, A, C) -- out of ready and delayed; empty places are tidied by the next claim
  local jobs = P .. 'jobs:' .. L .. ':' .. A .. ':' .. C
  local score = r('ZSCORE', jobs, J)
  if score then
    r('ZREM', jobs, J)
    tally(L, slot_of(score), -1)
  end
  r('ZREM', P .. 'ready:' .. L, J) -- scripts of before ages:L keep it there as well
  r('ZREM', P .. 'delayed:' .. L, J)
end

--: wake
local function wake() -- few tokens: a claim that leaves work wakes the next
  r('RPUSH', P .. 'wake', '1')
  r('LTRIM', P .. 'wake', 0, 3)
end

--: limit_of
local function limit_of(L) return number(r('HGET', P .. 'lane:' .. L, 'concurrency'), 0, FAR, 0) end

--: uncap
-- The account waits for nobody's end any more in the lanes where it had come to its cap. True if it did: wake.
local function uncap(A, C)
  local capped = P .. 'capped:' .. A .. ':' .. C
  local lanes = r('SMEMBERS', capped)
  for _, lane in ipairs(lanes) do
    activate(lane, A, C)
    r('SREM', P .. 'waits:' .. lane, A .. ':' .. C)
  end
  if #lanes > 0 then redis.call('DEL', capped) end
  return #lanes > 0
end

--: is_full
local function is_full(L) -- and somebody waits for that to end
  local limit = limit_of(L)
  return limit > 0 and r('HLEN', P .. 'claims:' .. L) >= limit and r('EXISTS', P .. 'apps:' .. L) == 1
end

--: unclaim
-- The claim of J goes, and the phase that was told of it. True when somebody else could start now who could not before:
-- wake.
local function unclaim(J, L, W, A, C)
  local opens = is_full(L)
  r('HDEL', P .. 'claims:' .. L, J)
  r('HDEL', P .. 'job:' .. J, 'phase', 'percent')
  if W then
    r('HDEL', P .. 'worker:' .. W, J)
    r('SREM', P .. 'collecting:' .. W, J)
  end
  if A and C then
    r('HDEL', P .. 'running:' .. A .. ':' .. C, J)
    opens = uncap(A, C) or opens
  end
  return opens
end

--: claim_of
local function claim_of(W, J) -- lane, number of the claim call; nil: not a claim of W
  local v = r('HGET', P .. 'worker:' .. W, J)
  if not v then return end
  local seq, L = string.match(v, '^(%d+):([%w_.-]+)$')
  if L then return L, tonumber(seq) end
  r('HDEL', P .. 'worker:' .. W, J)
end

--: claims_of
local function claims_of(W, ids) -- of each its claim's lane, or false
  local list = r('HMGET', P .. 'worker:' .. W, unpack(ids))
  for i, v in ipairs(list) do
    list[i] = v and string.match(v, '^%d+:([%w_.-]+)$') or false
    if v and not list[i] then r('HDEL', P .. 'worker:' .. W, ids[i]) end
  end
  return list
end

--: tell
local function tell(events) -- who watches: one message, an object or a list of them
  if #events > 0 then redis.call('PUBLISH', P .. 'events', cjson.encode(#events > 1 and events or events[1])) end
end

--: paused_until
local function paused_until(L)
  local h = r('HMGET', P .. 'lane:' .. L, 'paused', 'paused_by_operator')
  return math.max(number(h[1], 0, now + LONGEST_PAUSE, 0), number(h[2], 0, FAR, 0))
end

--: PROBE LONGEST_OUT key_name key_of
-- One of several keys of a provider: until when it rests (429), until when it is not used (refused), and how often in a
-- row it was. Out for PROBE or less means that somebody is finding out whether it is good again.
local PROBE, LONGEST_OUT = 15000, 600000
local function key_name(L, K) return P .. 'key:' .. L .. '#' .. K end
local function key_of(L, K)
  local h = r('HMGET', key_name(L, K), 'paused', 'out', 'fails', 'code')
  return { paused = number(h[1], 0, now + LONGEST_PAUSE, 0), out = number(h[2], 0, now + LONGEST_OUT, 0),
           fails = number(h[3], 0, FAR, 0), code = h[4] or '' }
end

--: budget_of
-- The lane's request budget: a window that slides by slices, so that no stretch of its length ever sees more than
-- `count`, not even at the provider: one slice more is for what takes longer on its way there than what comes after it.
-- Providers count by key: a lane of several has the budget as often as there are keys, and each key (K) has it once.
-- Returns nil when there is none, else count, spent, polls among them, and slices {start, n} in order of time.
local function budget_of(L, K)
  local h = r('HMGET', P .. 'lane:' .. L, 'budget_count', 'budget_window_ms', 'keys')
  local count, window = number(h[1], 1, FAR), number(h[2], 1, FAR)
  if not count or not window then return end
  if not K then count = count * number(h[3], 1, 1000, 1) end
  local key = P .. 'spent:' .. L .. (K and '#' .. K or '')
  local slice = math.max(1, math.floor(window / SLICES))
  window = window + slice
  local b = { key = key, count = count, window = window, slice = slice, spent = 0, polls = 0 }
  local all = r('HGETALL', key)
  if #all > 10 * SLICES then
    redis.call('DEL', key)
    all = {}
  end
  for i = 1, #all, 2 do
    local kind, start = string.match(all[i], '^([sp])(%d+)$')
    local n = number(all[i + 1], 0, FAR)
    start = number(start, now - window - b.slice + 1, FAR)
    if start and n and start > now then -- the clock was set back: as if spent just now, lest too many go
      r('HDEL', key, all[i])
      start, n = now - now % b.slice, math.min(n, count)
      r('HINCRBY', key, kind .. string.format('%d', start), n)
    end
    if start and n then
      b.spent = b.spent + n
      if kind == 'p' then b.polls = b.polls + n end
      b[#b + 1] = { start, n, kind }
    else
      r('HDEL', key, all[i])
    end
  end
  table.sort(b, function(x, y) return x[1] < y[1] end)
  return b
end

--: budget_spend
local function budget_spend(b, kind, n)
  if n <= 0 then return end
  local start = now - now % b.slice
  r('HINCRBY', b.key, kind .. string.format('%d', start), n)
  r('PEXPIRE', b.key, 2 * b.window + 1000)
  b.spent = b.spent + n
  if kind == 'p' then b.polls = b.polls + n end
  b[#b + 1] = { start, n, kind }
end

--: budget_wait
local function budget_wait(b, n, kind, count) -- ms until n more than now fit; kind nil: of any kind
  local rounds = math.floor((n - 1) / count)
  local left = n - rounds * count
  for _, slice in ipairs(b) do
    if not kind or slice[3] == kind then
      left = left - slice[2]
      if left <= 0 then return math.max(1, slice[1] + b.slice + b.window - now) + rounds * b.window end
    end
  end
  return (rounds + 1) * b.window
end
