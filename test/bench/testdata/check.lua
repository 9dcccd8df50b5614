-- Copyright The apikey-operator Authors.
-- SPDX-License-Identifier: Apache-2.0

-- Makes wrk send checks with one key after the other.
--
-- usage: wrk -s check.lua URL -- PATH KEYS-FILE HEADER VALUE
--
-- Each line of the file is a namespace and a token; PATH may contain {namespace}. It prints one line: the number of requests, their time in
-- µs, the 99th percentile of their latency in µs, the number of responses with a status of 400 or above, and of failed requests.

local requests, last = {}, 0

function init(arguments)
  local path, file, header, value = unpack(arguments)
  for line in io.lines(file) do
    local namespace, token = line:match("(%S+) (%S+)")
    requests[#requests + 1] = wrk.format("GET", (path:gsub("{namespace}", namespace)), {
      ["X-API-Key"] = token,
      [header] = value,
      ["X-Forwarded-For"] = "192.0.2.1",
      ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
      ["Accept"] = "application/json, text/plain, */*",
    })
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function done(summary, latency)
  local errors = summary.errors
  print(summary.requests, summary.duration, latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout)
end
