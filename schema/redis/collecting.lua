-- collecting.lua - a job's result is being collected or stored, or no longer.
-- ARGV: worker, then job, 1 or 0 of each. Returns of each whether that is new.
local W, key, ids, out = ARGV[1], P .. 'collecting:' .. ARGV[1], {}, {}
for i = 2, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local claims, before, now_is = claims_of(W, ids), r('SMISMEMBER', key, unpack(ids)), {}
for i, J in ipairs(ids) do
  local is, was = ARGV[2 * i + 1] == '1', now_is[J]
  if was == nil then was = before[i] == 1 end
  if is and claims[i] then
    now_is[J] = true
  elseif not is then
    now_is[J] = false
  end
  out[i] = now_is[J] ~= nil and now_is[J] ~= was and 1 or 0
end
local add, drop = {}, {}
for J, is in pairs(now_is) do
  if is then add[#add + 1] = J else drop[#drop + 1] = J end
end
if #add > 0 then r('SADD', key, unpack(add)) end
if #drop > 0 then r('SREM', key, unpack(drop)) end
return out
