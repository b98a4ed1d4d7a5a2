-- spend.lua - requests other than submits ask for a part of the lane's budget. ARGV: lane, key and n for each; key: the
-- fingerprint of the one it is bound to, where the provider has several, else "". The key's budget decides then.
-- Returns for each: 0 (spent), or after how many ms to ask again; nothing goes while the provider has asked for
-- silence (429). Who is refused in one call is told different times, as the window will free them.
local lanes, out = {}, {}
for i = 1, #ARGV, 3 do
  local L, K, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if K == '' then K = nil end
  local s = lanes[L .. '#' .. ARGV[i + 1]]
  if not s then
    s = { lane = L, key = K, budget = budget_of(L, K), polls = 0, refused = 0 }
    s.pause = number(r('HGET', P .. 'lane:' .. L, 'paused'), 0, now + LONGEST_PAUSE, 0) - now
    if K then s.pause = key_of(L, K).paused - now end -- another key's silence is not its own
    if s.budget and r('EXISTS', P .. 'ages:' .. L) == 1 then -- submits wait: two thirds at most
      s.share = math.max(1, math.floor(s.budget.count * 2 / 3))
    end
    lanes[L .. '#' .. ARGV[i + 1]] = s
  end
  local b = s.budget
  if s.pause > 0 then -- the provider asked for silence; an operator only holds back submits
    out[#out + 1] = s.pause
  elseif not b then
    out[#out + 1] = 0
  else
    n = math.min(n, s.share or b.count)
    local over_all = b.spent + s.polls + n - b.count
    local over_share = s.share and b.polls + s.polls + n - s.share or 0
    if s.refused == 0 and over_all <= 0 and over_share <= 0 then
      s.polls = s.polls + n
      out[#out + 1] = 0
    else
      s.refused = s.refused + n
      local wait = 0
      if over_all > 0 then wait = budget_wait(b, s.refused, nil, b.count) end
      if over_share > 0 then wait = math.max(wait, budget_wait(b, s.refused, 'p', s.share)) end
      out[#out + 1] = math.max(1, wait)
    end
  end
end
for _, s in pairs(lanes) do
  if s.budget and s.polls > 0 then
    budget_spend(s.budget, 'p', s.polls)
    if s.key then budget_spend(budget_of(s.lane), 'p', s.polls) end -- so that claims leave room for it
  end
end
return out
