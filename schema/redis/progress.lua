-- progress.lua - what known jobs are at, for who watches. ARGV: worker or '', then job, phase, percent of each.
-- Returns of each 1 if it was known.
local events, out = {}, {}
for i = 2, #ARGV, 3 do
  out[#out + 1] = note_phase(ARGV[1], ARGV[i], ARGV[i + 1], ARGV[i + 2], events)
end
tell(events)
return out
