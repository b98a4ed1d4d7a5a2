-- stats.lua - six for each lane: lane, ready, delayed, claimed, age of the oldest ready job, pause left.
local out = {}
for _, L in ipairs(r('ZRANGE', P .. 'lanes', 0, 255)) do
  local ready = P .. 'ready:' .. L
  for _, J in ipairs(r('ZRANGE', ready, 0, 9)) do -- remains of a job that is gone would look like a very old one
    if not job_of(J) then r('ZREM', ready, J) end
  end
  local oldest = r('ZRANGE', ready, 0, 0, 'WITHSCORES')[2]
  local at = #out
  out[at + 1], out[at + 2], out[at + 3] = L, r('ZCARD', ready), r('ZCARD', P .. 'delayed:' .. L)
  out[at + 4] = r('HLEN', P .. 'claims:' .. L)
  out[at + 5] = oldest and math.max(0, now - number(oldest, 0, FAR, now)) or 0
  out[at + 6] = math.max(0, paused_until(L) - now)
end
return out
