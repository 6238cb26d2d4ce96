-- What wrk counted, as one line of JSON: what the other loads print (xtask/go/overhead). wrk's times are microseconds.
done = function(summary, latency, _)
  local errors = 0
  for _, count in pairs(summary.errors) do
    errors = errors + count
  end
  io.write(string.format(
    '{"operations":%d,"seconds":%.6f,"p50_ns":%.0f,"p99_ns":%.0f,"p999_ns":%.0f,"errors":%d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) * 1e3, latency:percentile(99) * 1e3, latency:percentile(99.9) * 1e3, errors
  ))
end
