"""What is done in Redis, as Lua scripts: each is atomic, so no publisher and no crash comes in between.

Owns the names of keys and channels and what is stored there. Topics, keys and payloads are arguments, never parts of
a script.

    <prefix>topic:<topic>       stream of the kept messages, and the channel of the same name
    <prefix>inbox:<process>     the same, of what is sent to the connections of a process
    <prefix>present:<topic>     hash: "<address> <key>" → [key, meta]
    <prefix>owned:<process>     set of [topic, "<address> <key>"]: what ends when that process dies
    <prefix>processes           sorted set: process → until when (ms) it counts as alive without another sign of life

An entry of a stream has the fields ``b`` (id of the one before it, ``0-0`` if there is none), ``k`` (kind), ``s``
(sender), ``n`` (a name that its publisher gave it, by which a repeated attempt is known) and ``d`` (JSON). On the
channel it is ``<b> <id> <k> <s>\\n<d>``: whoever listens can tell from ``b`` whether something is missing.
"""

from __future__ import annotations

__all__ = ["BURY", "HEARTBEAT", "LIST", "PUBLISH", "REPLAY", "SEND", "TRACK", "UNTRACK"]

_EMIT = """
local function emit(stream, keep, age, kind, sender, name, payload)
  local tail = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  local before = tail[1] and tail[1][1] or '0-0'
  local id = redis.call('XADD', stream, 'MAXLEN', '=', keep, '*',
    'b', before, 'k', kind, 's', sender, 'n', name, 'd', payload)
  redis.call('PEXPIRE', stream, age)
  redis.call('PUBLISH', stream, before .. ' ' .. id .. ' ' .. kind .. ' ' .. sender .. '\\n' .. payload)
  return id
end
local function repeated(stream, name)
  for _, entry in ipairs(redis.call('XREVRANGE', stream, '+', '-')) do
    if entry[2][8] == name then return entry[1] end
  end
end
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function newest(processes)
  return tonumber(redis.call('ZREVRANGE', processes, 0, 0, 'WITHSCORES')[2] or 0)
end
-- Who has shown a sign of life since then is alive. If nobody has, it was the server that was away, and they will; if
-- they have not within a minute, they are all dead.
local function limit(processes)
  local last = newest(processes)
  if last < now() and last >= now() - 60000 then return 0 end
  return now()
end
"""

#: Publish. Keys: stream. Arguments: keep, age in ms, kind, sender, name, whether this is repeated, JSON.
#: Returns the id.
PUBLISH = (
    _EMIT
    + """
local id = ARGV[6] == '1' and repeated(KEYS[1], ARGV[5])
return id or emit(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[7])
"""
)

#: Publish to an inbox, if its process is there. Keys: inbox, processes. Arguments: process, keep, age in ms, name,
#: whether this is repeated, JSON. Returns the id or nothing.
SEND = (
    _EMIT
    + """
local until_ = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not until_ or tonumber(until_) < limit(KEYS[2]) then return false end
local id = ARGV[5] == '1' and repeated(KEYS[1], ARGV[4])
return id or emit(KEYS[1], ARGV[2], ARGV[3], 'message', '', ARGV[4], ARGV[6])
"""
)

#: Read what is kept behind an id. Keys: stream. Arguments: id. Returns the time in ms, whether that id is kept, the
#: oldest entry, the newest id, and the entries.
REPLAY = (
    _EMIT
    + """
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if not first[1] then return {now(), 0, false, '0-0', {}} end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local found = #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
return {now(), found, first[1], last[1][1], redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+')}
"""
)

#: Enter somebody. Keys: present, owned, stream. Arguments: field, JSON, member of owned, keep, age in ms.
TRACK = (
    _EMIT
    + """
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before == ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
emit(KEYS[3], ARGV[4], ARGV[5], 'join', '', '', ARGV[2])
if before then emit(KEYS[3], ARGV[4], ARGV[5], 'leave', '', '', before) end
return 1
"""
)

#: Remove somebody. Keys and arguments as for `TRACK`; what its JSON was is in the server.
UNTRACK = (
    _EMIT
    + """
local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before then return 0 end
emit(KEYS[3], ARGV[4], ARGV[5], 'leave', '', '', before)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[2], ARGV[3])
return 1
"""
)

#: Say who is present, those of dead processes left out. Keys: present, processes. Returns a list of JSON.
LIST = (
    _EMIT
    + """
local alive, present, dead = {}, {}, limit(KEYS[2])
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  local process = string.match(all[at], '^[^.]*')
  if alive[process] == nil then
    local until_ = redis.call('ZSCORE', KEYS[2], process)
    alive[process] = until_ and tonumber(until_) >= dead or false
  end
  if alive[process] then table.insert(present, all[at + 1]) end
end
return present
"""
)

#: Show a sign of life. Keys: processes. Arguments: process, lifetime in ms, processes one wants to know about.
#: Returns whether this one was known, which others have died, which of those asked for are not there, and until when
#: in ms this one counts as alive.
HEARTBEAT = (
    _EMIT
    + """
local time, lifetime = now(), tonumber(ARGV[2])
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if newest(KEYS[1]) < time then -- the server was away, for however long: it cannot know who has died
  for _, process in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    redis.call('ZADD', KEYS[1], time + lifetime, process)
  end
end
redis.call('ZADD', KEYS[1], time + lifetime, ARGV[1])
local lost = {}
for at = 3, #ARGV do
  local until_ = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if not until_ or tonumber(until_) < time then table.insert(lost, ARGV[at]) end
end
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. time, 'LIMIT', 0, 16)
return {known and 1 or 0, dead, lost, time + lifetime}
"""
)

#: A process has died, or ends: take back what it had said. Keys: processes, its owned, its inbox. Arguments: process,
#: prefix, keep, age in ms, whether it says so itself. Returns how many entries were removed.
BURY = (
    _EMIT
    + """
local until_ = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not until_ or (ARGV[5] ~= '1' and tonumber(until_) >= now()) then return 0 end
local count = 0
for _, member in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local topic, field = unpack(cjson.decode(member))
  local present = ARGV[2] .. 'present:' .. topic
  local text = redis.call('HGET', present, field)
  if text then
    emit(ARGV[2] .. 'topic:' .. topic, ARGV[3], ARGV[4], 'leave', '', '', text)
    redis.call('HDEL', present, field)
    count = count + 1
  end
  redis.call('SREM', KEYS[2], member)
end
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[1], ARGV[1])
return count
"""
)
