-- event.lua - jobs changed in PostgreSQL. ARGV: '', then job, version, state of each.
local events = {}
for i = 2, #ARGV, 3 do events[#events + 1] = { job = ARGV[i], version = tonumber(ARGV[i + 1]), state = ARGV[i + 2] } end
tell(events)
return {}
