-- visit.lua: redirect.lua with what browsers send, for the counting of clicks: many visitors,
-- browsers, pages with the link and countries.
--
--   API_KEY=... COUNT=10000 CODES=codes.txt wrk -t1 -c64 -d60s -s loadtest/fill.lua http://127.0.0.1:80
--   CODES=codes.txt wrk -t8 -c1000 -d30s -s loadtest/visit.lua http://127.0.0.1:80

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local report, requests = dofile(here .. "report.lua"), dofile(here .. "requests.lua")

setup = report.setup
function init() request = requests.visits() end
response = report.count
done = report.done({ [302] = true })
