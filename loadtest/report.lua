-- report.lua: what every script here counts and prints. Not run by itself.
--
-- wrk calls only answers above 399 errors, so a wrong 200 would pass unseen.
-- The scripts count each status instead. That makes wrk parse every answer for
-- Lua: about half a microsecond each, a twentieth of what wrk spends on one.

local report = {}

local threads = {}

-- setup runs before the threads do: it numbers them from 1.
function report.setup(thread)
  threads[#threads + 1] = thread
  thread:set("id", #threads)
end

-- answers counts what a thread received, by status. It is a global, because
-- done() runs in another Lua state and reads a thread's globals only.
answers = {}

function report.count(status)
  answers[status] = (answers[status] or 0) + 1
end

-- done returns the function that wrk calls at the end; expected holds the
-- statuses that a right answer can have, as { [201] = true }. The name of a global
-- instead of true, which counts what a thread asked for, bounds how many can.
function report.done(expected)
  return function(summary, latency, requests)
    local total, unexpected, statuses = 0, 0, {}
    for _, thread in ipairs(threads) do
      for status, n in pairs(thread:get("answers")) do
        if not statuses[status] then statuses[status] = 0 end
        statuses[status] = statuses[status] + n
        total = total + n
        local right = expected[status]
        if type(right) == "string" then
          unexpected = unexpected + math.max(0, n - thread:get(right))
        elseif not right then
          unexpected = unexpected + n
        end
      end
    end

    local names = {}
    for status in pairs(statuses) do names[#names + 1] = status end
    table.sort(names)
    for i, status in ipairs(names) do
      names[i] = string.format("%d x %d", statuses[status], status)
    end

    local e = summary.errors
    local lost = e.connect + e.read + e.write + e.timeout
    local function line(name, value) print(string.format("%-20s %s", name, value)) end
    local function ms(p) return string.format("%.3f ms", latency:percentile(p) / 1000) end

    line("requests a second", string.format("%.0f", total / summary.duration * 1e6))
    line("p50", ms(50))
    line("p99", ms(99))
    line("p99.9", ms(99.9))
    line("answers", #names > 0 and table.concat(names, ", ") or "none")
    line("unexpected answers", unexpected)
    line("failed requests", string.format("%d (connect %d, read %d, write %d, timeout %d)",
      lost, e.connect, e.read, e.write, e.timeout))

    if total == 0 then
      print("NOTHING ANSWERED: is the server up at this address?")
    elseif statuses[401] == total then
      print("EVERY ANSWER WAS 401: these figures mean nothing. API_KEY in the environment is missing or wrong.")
    elseif unexpected > 0 then
      print("NOT ALL ANSWERS WERE RIGHT: these figures mean little.")
    end
  end
end

return report
