-- cancel.lua - a canceled job leaves the queue; whoever holds it is told. ARGV: job, version, holder or ''.
-- A claim stays: its holder forgets it when PostgreSQL has told it `finished`. Without one nobody would: PostgreSQL's
-- holder may be dead, and Redis may have lost its claim and been told of the job anew.
local J, holder = ARGV[1], ARGV[3]
local L, A, C = job_of(J)
local owner = L and r('HGET', P .. 'claims:' .. L, J)
local gone = 0
if L and not owner then
  dequeue(J, L, A, C)
  gone = 1
end
if not owner then erase(J) end
if owner then redis.call('PUBLISH', P .. 'hint:' .. owner, J) end
if holder ~= '' and holder ~= owner then redis.call('PUBLISH', P .. 'hint:' .. holder, J) end
tell({ { job = J, version = tonumber(ARGV[2]), state = 'canceled' } })
return gone
