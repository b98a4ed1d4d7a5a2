-- set_marker.lua - the reconciler's marker. ARGV: what has to be there ('': whatever is), the new one. Not set, and 0, when
-- something else is there: Redis lost its data meanwhile.
local key = P .. 'marker'
if ARGV[1] ~= '' and redis.pcall('GET', key) ~= ARGV[1] then return 0 end
redis.call('SET', key, ARGV[2])
return 1
