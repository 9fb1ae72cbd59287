-- create.lua: creates links as fast as they are answered, every target new.
--
--   API_KEY=... wrk -t8 -c1000 -d30s -s loadtest/create.lua http://127.0.0.1:80/generate_url

local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
local report, requests = dofile(here .. "report.lua"), dofile(here .. "requests.lua")

setup = report.setup
function init() request = requests.creates() end
response = report.count
done = report.done({ [201] = true })
