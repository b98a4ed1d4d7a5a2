-- give_back.lua - claims that the worker is said to have and does not hold. ARGV: worker, last claim call that it has
-- the answer of, last that it made, jobs. A claim of a call in between is not touched: its answer is under way.
-- Returns how many went back.
local W, last, newest, moved = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0
for i = 4, #ARGV do
  local J = ARGV[i]
  local old, seq = claim_of(W, J)
  if old and (seq <= last or seq > newest) then
    local lane, A, C, _, created = job_of(J)
    local is_mine = r('HGET', P .. 'claims:' .. old, J) == W
    if is_mine then
      unclaim(J, old, W, A, C)
      if lane then
        enqueue(J, lane, A, C, head_score(created), created)
        activate(lane, A, C)
      end
    end
    r('HDEL', P .. 'worker:' .. W, J)
    moved = moved + 1
  end
end
if moved > 0 then wake() end
return moved
