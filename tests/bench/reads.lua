-- reads.lua - wrk's script: GET /v1/jobs/{id} of many jobs in turn.
--
-- From the environment: BENCH_IDS, a file with "ID VERSION" on each line; KILN_API_KEY; BENCH_MATCH=1 sends each job's
-- version as If-None-Match. Requests are made once, so that a read costs wrk as little as it can.
local requests, at = {}, 0

function init()
    local headers = { ["Authorization"] = "Bearer " .. os.getenv("KILN_API_KEY") }
    for line in io.lines(os.getenv("BENCH_IDS")) do
        local id, version = line:match("^(%S+) (%d+)$")
        if os.getenv("BENCH_MATCH") == "1" then headers["If-None-Match"] = '"' .. version .. '"' end
        requests[#requests + 1] = wrk.format("GET", "/v1/jobs/" .. id, headers)
    end
end

function request()
    at = at % #requests + 1
    return requests[at]
end

function done(summary)
    io.write(string.format("requests=%d us=%d bytes=%d bad=%d cut=%d\n", summary.requests, summary.duration, summary.bytes,
        summary.errors.status, summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
