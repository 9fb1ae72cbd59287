-- requests.lua: the two requests that the scripts here send. Not run by itself.
-- Both build what they can before the run, and return a function for request().

local requests = {}

-- creates yields creates, each with a target of its own. The targets differ in
-- a counter of fixed width, so the head of the request is the same every time.
-- API_KEY is a list in the server's environment; its first key is sent.
function requests.creates()
  local key = (os.getenv("API_KEY") or ""):match("^[^,]*")
  local target = string.format("https://example.com/load/%08x/%02d/%%010d/some/long/page", os.time(), id)
  local body = '{"url":"' .. target .. '"}'

  local sample = body:format(0)
  local whole = wrk.format("POST", "/generate_url",
    { ["Content-Type"] = "application/json", ["API-Key"] = key }, sample)
  local head = whole:sub(1, -#sample - 1)

  local n = -1
  return function()
    n = n + 1
    return head .. body:format(n)
  end
end

-- codes opens the file that CODES names: a line each, which begins with the code
-- (see fill.lua).
local function codes()
  local name = os.getenv("CODES") or "codes.txt"
  local file = io.open(name)
  if not file then
    error("no codes to follow in " .. name .. ": make some with fill.lua, and name the file in CODES", 0)
  end
  return file, name
end

-- redirects yields redirects over the codes, the way links are followed: nine in
-- ten go to the first hundredth of them, the hot set, the rest to any. HOT is
-- another share than 0.9.
function requests.redirects()
  return requests.followed(function(code) return { wrk.format("GET", "/" .. code) } end)
end

-- followed yields redirects over the codes as redirects does, with the requests that
-- of(code) returns, drawn evenly.
function requests.followed(of)
  local file, name = codes()
  local gets = {}
  for line in file:lines() do
    gets[#gets + 1] = of(line:match("^%w+"))
  end
  file:close()
  if #gets == 0 then error(name .. " holds no codes", 0) end

  local all, hot = #gets, math.ceil(#gets / 100)
  local share = tonumber(os.getenv("HOT") or "0.9")
  local random = math.random
  math.randomseed(id) -- or every thread would follow the same links in step
  return function()
    local some = gets[random(random() < share and hot or all)]
    return some[random(#some)]
  end
end

-- visits yields redirects as redirects does, with the headers of browsers: each link
-- has eight visitors of some thousand, each with an address, and one in four visits
-- comes from a campaign. Backends that are asked directly believe X-Forwarded-For.
function requests.visits()
  local agents, pages, countries = {}, {}, { "DE", "FR", "US", "IN", "BR", "JP", "GB", "PL" }
  for version = 100, 119 do
    agents[#agents + 1] = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/" .. version .. ".0.0.0 Safari/537.36"
    agents[#agents + 1] = "Mozilla/5.0 (X11; Linux x86_64; rv:" .. version .. ".0) Gecko/20100101 Firefox/" .. version .. ".0"
    agents[#agents + 1] = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18." .. version - 100 .. " Mobile/15E148 Safari/604.1"
  end
  for site = 1, 50 do pages[site] = "https://www.site" .. site .. ".example/news/" .. site * 7919 end
  math.randomseed(id)
  local random = math.random
  return requests.followed(function(code)
    local some = {}
    for i = 1, 8 do
      local path = "/" .. code
      if i > 6 then path = path .. "?utm_source=mail&utm_medium=email&utm_campaign=c" .. random(20) end
      some[i] = wrk.format("GET", path, {
        ["User-Agent"] = agents[random(#agents)],
        ["Referer"] = pages[random(#pages)],
        ["X-Forwarded-For"] = "198.51." .. random(0, 255) .. "." .. random(0, 255),
        ["CF-IPCountry"] = countries[random(#countries)],
      })
    end
    return some
  end)
end

-- once yields redirects that follow each code once: COUNT of them, behind the
-- first FROM (all, unless told). The lines must hold a code each, all of one
-- length, and nothing else. THREADS is wrk's -t: each takes its part.
function requests.once()
  local file, name = codes()
  local width = #file:read("*l") + 1
  file:seek("set", width * tonumber(os.getenv("FROM") or "0"))
  local count = tonumber(os.getenv("COUNT"))
  local left = file:read(count and width * count or "*a") or ""
  file:close()

  local head, tail = wrk.format("GET", "/CODE"):match("^(.-)CODE(.*)$")
  local at, step = 1 + width * (id - 1), width * tonumber(os.getenv("THREADS") or "1")
  return function()
    local code = left:sub(at, at + width - 2)
    if code == "" then
      error("each code of " .. name .. " was asked for once: it takes more codes or a shorter run", 0)
    end
    at = at + step
    return head .. code .. tail
  end
end

return requests
