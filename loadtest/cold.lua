-- cold.lua: follows each link once, so that no cache can have it. There must be more
-- codes than a run can ask for.
--
--   API_KEY=... COUNT=1000000 CODES=codes.txt wrk -t1 -c64 -d600s -s loadtest/fill.lua http://127.0.0.1:80
--   cut -f1 codes.txt > cold.txt
--   CODES=cold.txt THREADS=8 wrk -t8 -c1000 -d10s -s loadtest/cold.lua http://127.0.0.1:80

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local report, requests = dofile(here .. "report.lua"), dofile(here .. "requests.lua")

setup = report.setup
function init() request = requests.once() end
response = report.count
done = report.done({ [302] = true })
