-- redirect.lua: follows links made beforehand, most of the time those of a hot set.
--
--   API_KEY=... COUNT=10000 CODES=codes.txt wrk -t1 -c64 -d60s -s loadtest/fill.lua http://127.0.0.1:80
--   CODES=codes.txt wrk -t8 -c1000 -d30s -s loadtest/redirect.lua http://127.0.0.1:80

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local report, requests = dofile(here .. "report.lua"), dofile(here .. "requests.lua")

setup = report.setup
function init() request = requests.redirects() end
response = report.count
done = report.done({ [302] = true })
