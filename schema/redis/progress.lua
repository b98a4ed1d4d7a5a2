-- progress.lua - what known jobs are at, for who watches. ARGV: worker or '', then job, phase, percent of each.
-- Returns of each 1 if it was known, or is the worker's.
local W, events, out = ARGV[1], {}, {}
for i = 2, #ARGV, 3 do
  local J, phase, percent = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local is_known = r('HEXISTS', P .. 'job:' .. J, 'lane') == 1 -- else the phase would be all that there is of the job
  if is_known then r('HSET', P .. 'job:' .. J, 'phase', phase, 'percent', percent) end
  is_known = is_known or W ~= '' and claim_of(W, J)
  if is_known then events[#events + 1] = { job = J, phase = phase, percent = tonumber(percent) } end
  out[#out + 1] = is_known and 1 or 0
end
tell(events)
return out
