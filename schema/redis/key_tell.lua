-- key_tell.lua - what a provider said about one of its keys. ARGV: lane, what, ms, code, the fingerprint it is about, then
-- those of all keys that the caller has. What: "pause" (429: for that long, never shortens), "out" (refused: for ms, twice
-- as long with each probe that fails too; what was on its way already counts once), "good", "look" (nothing new).
-- Returns after how many ms one of the keys may be used (0: now; -1: all are out), then four for each key: pause left, out
-- for, failures, code.
local L, what, ms, code, about = ARGV[1], ARGV[2], math.min(tonumber(ARGV[3]), LONGEST_PAUSE), ARGV[4], ARGV[5]
if what ~= 'look' then
  local name, k = key_name(L, about), key_of(L, about)
  if what == 'pause' and now + ms > k.paused then
    r('HSET', name, 'paused', now + ms)
  elseif what == 'out' and k.out <= now + PROBE then
    r('HSET', name, 'out', now + math.min(ms * 2 ^ math.min(k.fails, 10), LONGEST_OUT), 'fails', k.fails + 1, 'code', code)
  elseif what == 'good' and k.fails > 0 then
    r('HDEL', name, 'out', 'fails', 'code')
  end
  r('EXPIRE', name, 604800)
end
local wait, out = -1, { -1 }
for i = 6, #ARGV do
  local k = key_of(L, ARGV[i])
  local rest = math.max(0, k.paused - now)
  if k.out <= now and (wait < 0 or rest < wait) then wait = rest end
  out[#out + 1], out[#out + 2], out[#out + 3], out[#out + 4] = rest, math.max(0, k.out - now), k.fails, k.code
end
if wait > 0 and what == 'pause' then -- nothing of this provider can go before that
  local lane = P .. 'lane:' .. L
  if now + wait > number(r('HGET', lane, 'keys_wait'), 0, now + LONGEST_PAUSE, 0) then r('HSET', lane, 'keys_wait', now + wait) end
end
out[1] = wait
return out
