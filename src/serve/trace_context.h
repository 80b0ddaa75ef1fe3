#pragma once
/// The trace that a request belongs to, as the client tells it: https://www.w3.org/TR/trace-context/

#include <optional>
#include <string>
#include <string_view>

namespace tailor {

struct TraceContext {
  std::string trace_id;   // 32 hexadecimal digits; empty: the client sent none
  std::string parent_id;  // 16
  std::string state;      // of "tracestate", handed on
  bool sampled = true;
};

/// Of the header's value; nothing where it breaks a rule: such a trace is not continued.
std::optional<TraceContext> parse_traceparent(std::string_view value);

}  // namespace tailor
