-- note.lua - a fact about one attempt of a job, kept with the claim if it is the worker's.
-- ARGV: worker, then job, attempt, note of each. Returns of each 1 if it is.
-- A note outlives the job's record (Redis may be emptied while a call is in flight), but not for ever.
local ids, out = {}, {}
for i = 2, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
for i, L in ipairs(claims_of(ARGV[1], ids)) do
  if L then redis.call('SET', P .. 'note:' .. ids[i], ARGV[3 * i] .. '\n' .. ARGV[3 * i + 1], 'EX', 604800) end
  out[i] = L and 1 or 0
end
return out
