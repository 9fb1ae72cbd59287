-- requests.lua: the two requests that the scripts here send. Not run by itself.
-- What can be built before the run is; both return a function for request().

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

-- redirects yields redirects over the codes in the file that CODES names (see
-- fill.lua), the way links are followed: nine in ten go to the first hundredth
-- of the codes, the hot set, the rest to any of them.
function requests.redirects()
  local name = os.getenv("CODES") or "codes.txt"
  local file = io.open(name)
  if not file then
    error("no codes to follow in " .. name .. ": make some with fill.lua, and name the file in CODES", 0)
  end
  local gets = {}
  for line in file:lines() do
    gets[#gets + 1] = wrk.format("GET", "/" .. line:match("^%w+"))
  end
  file:close()
  if #gets == 0 then error(name .. " holds no codes", 0) end

  local all, hot = #gets, math.ceil(#gets / 100)
  local random = math.random
  math.randomseed(id) -- or every thread would follow the same links in step
  return function()
    if random() < 0.9 then return gets[random(hot)] end
    return gets[random(all)]
  end
end

return requests
