-- forget.lua - PostgreSQL said finished: everything about these jobs goes.
-- ARGV: worker or '', then job, version, state or '' of each. Returns of each 1 if it was known.
local W, ids, events, out, opens = ARGV[1], {}, {}, {}, false
for i = 2, #ARGV, 3 do
  ids[#ids + 1] = ARGV[i]
  if ARGV[i + 2] ~= '' then
    events[#events + 1] = { job = ARGV[i], version = tonumber(ARGV[i + 1]), state = ARGV[i + 2] }
  end
end

local function forget(J) -- one that may be anywhere
  local L, A, C = job_of(J)
  local mine = W ~= '' and claim_of(W, J) or nil
  local known = (L or mine) and 1 or 0
  if L then
    local owner = r('HGET', P .. 'claims:' .. L, J)
    if owner then
      opens = unclaim(J, L, owner, A, C) or opens
      if owner == W then mine = nil end
    end
    dequeue(J, L, A, C)
  end
  if mine then opens = unclaim(J, mine, W, A, C) or opens end
  erase(J)
  return known
end

-- Nearly all are what they should be: claims of who says so, as both sides of the claim and the job's record have it.
-- These are in no queue, and go together.
local lanes, accounts, found, keys, counted, seen = {}, {}, {}, {}, {}, {}
for i, L in ipairs(W ~= '' and claims_of(W, ids) or {}) do
  local J = ids[i]
  if L and not seen[J] then
    seen[J] = true
    lanes[L] = lanes[L] or { at = {}, ids = {} }
    local of = lanes[L]
    of.at[#of.at + 1], of.ids[#of.ids + 1] = i, J
  end
end
for L, of in pairs(lanes) do
  local claims = {}
  for k, owner in ipairs(r('HMGET', P .. 'claims:' .. L, unpack(of.ids))) do
    local J, record = of.ids[k], P .. 'job:' .. of.ids[k]
    local h = owner == W and r('HMGET', record, 'lane', 'app', 'account') or {}
    local A, C = h[2], h[3]
    if h[1] == L and A and C then
      local running = P .. 'running:' .. A .. ':' .. C
      local account = accounts[running]
      if not account then
        account = { A, C, {} }
        accounts[running] = account
        counted[#counted + 1], counted[#counted + 2] = running, P .. 'capped:' .. A .. ':' .. C
      end
      account[3][#account[3] + 1] = J
      claims[#claims + 1], found[#found + 1], out[of.at[k]] = J, J, 1
      local n = #keys
      keys[n + 1], keys[n + 2], keys[n + 3] = record, P .. 'env:' .. J, P .. 'note:' .. J
    end
  end
  if #claims > 0 then
    opens = is_full(L) or opens
    r('HDEL', P .. 'claims:' .. L, unpack(claims))
  end
end
if #found > 0 then
  r('HDEL', P .. 'worker:' .. W, unpack(found))
  r('SREM', P .. 'collecting:' .. W, unpack(found))
  if redis.call('EXISTS', unpack(counted)) > 0 then -- of accounts with a cap
    for running, account in pairs(accounts) do
      r('HDEL', running, unpack(account[3]))
      opens = uncap(account[1], account[2]) or opens
    end
  end
  redis.call('DEL', unpack(keys))
  if r('EXISTS', P .. 'lost') == 1 then r('SREM', P .. 'lost', unpack(found)) end
end
for i, J in ipairs(ids) do out[i] = out[i] or forget(J) end
tell(events)
if opens then wake() end
return out
