#pragma once
/// Counters of the HTTP server. Any thread may read them at any time.

#include <atomic>
#include <cstdint>

namespace tailor {

struct HttpMetrics {
  using Counter = std::atomic<std::uint64_t>;
  Counter accepted{0};
  Counter open_connections{0};     // now
  Counter refused_connections{0};  // over HttpLimits::connections
  Counter refused_addresses{0};    // over connections_per_address
  Counter accept_errors{0};        // out of file descriptors, mostly
  Counter requests{0};             // heads that came whole and good
  Counter bad_requests{0};         // answered by the server itself with 4xx or 5xx, timeouts not counted
  Counter disconnects{0};          // clients that went before their answer was complete
  Counter slow_readers{0};         // disconnected since a stream waited for them
  Counter bytes_in{0}, bytes_out{0};
  Counter handshake_timeouts{0}, header_timeouts{0}, idle_timeouts{0}, body_timeouts{0}, write_timeouts{0};
  Counter handshake_errors{0};
};

inline void count(HttpMetrics::Counter& counter, std::uint64_t n = 1) {
  counter.fetch_add(n, std::memory_order_relaxed);
}

}  // namespace tailor
