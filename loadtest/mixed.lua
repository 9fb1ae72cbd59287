-- mixed.lua: ninety-nine redirects to one create, a shortener's usual day. wrk does not
-- tell which request an answer belongs to, so the script checks that there are no more
-- answers of 201 than creates.
--
--   API_KEY=... COUNT=10000 CODES=codes.txt wrk -t1 -c64 -d60s -s loadtest/fill.lua http://127.0.0.1:80
--   API_KEY=... CODES=codes.txt wrk -t8 -c1000 -d30s -s loadtest/mixed.lua http://127.0.0.1:80

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local report, requests = dofile(here .. "report.lua"), dofile(here .. "requests.lua")

setup = report.setup

asked = 0 -- creates

function init()
  local create, redirect = requests.creates(), requests.redirects()
  local n = 0
  function request()
    n = n + 1
    if n % 100 > 0 then return redirect() end
    asked = asked + 1
    return create()
  end
end

response = report.count
done = report.done({ [201] = "asked", [302] = true })
