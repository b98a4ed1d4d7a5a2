-- set_weights.lua - what operators set: shares of apps and accounts other than 1, all of them each time. ARGV: app,
-- account ('': the app's own), weight for each.
local key = P .. 'weights'
redis.call('DEL', key)
for i = 1, #ARGV, 3 do
  local id = ARGV[i]
  if ARGV[i + 1] ~= '' then id = id .. ':' .. ARGV[i + 1] end
  r('HSET', key, id, ARGV[i + 2])
end
return #ARGV / 3
