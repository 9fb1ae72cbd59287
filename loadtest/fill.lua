-- fill.lua: creates exactly COUNT links (default 10000), then stops. It writes the code and
-- the target of each to the file that CODES names, for redirect.lua and mixed.lua. -d is
-- only the longest time that it may take.
--
--   API_KEY=... COUNT=10000 CODES=codes.txt wrk -t1 -c64 -d60s -s loadtest/fill.lua http://127.0.0.1:80

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local report, requests = dofile(here .. "report.lua"), dofile(here .. "requests.lua")

local name = os.getenv("CODES") or "codes.txt"
local count = tonumber(os.getenv("COUNT") or "10000")

setup = report.setup

function init()
  if id > 1 then error("fill.lua counts within one thread: run it with -t1", 0) end

  local file = assert(io.open(name, "w"))
  local create = requests.creates()
  local ping = wrk.format("GET", "/ping")
  local asked, answered = -1, 0 -- wrk's first call only looks: it is not sent

  function request()
    if asked == count then return ping end -- the last answers are still due
    asked = asked + 1
    return create()
  end

  function response(status, headers, body)
    if status == 200 then return end -- a ping
    report.count(status)
    answered = answered + 1
    if status == 201 then
      file:write(body:match('"code":"(%w+)"'), "\t", body:match('"url":"([^"]*)"'), "\n")
    end
    if answered == count then
      file:close()
      -- wrk's main thread sleeps through -d unless interrupted. A moment later,
      -- or this thread, just back from starting the shell, takes the signal.
      io.popen("sleep 0.1; kill -INT $PPID")
    end
  end
end

done = report.done({ [201] = true })
