#include "serve/trace_span.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <algorithm>
#include <type_traits>

#include "serve/api_routes.h"
#include "serve/generation_call.h"

namespace tailor {
namespace {

constexpr int kInternal = 1, kServer = 2;  // SpanKind
constexpr int kStatusError = 2;

std::string random_hex(std::size_t bytes) {
  unsigned char raw[16];
  if (RAND_bytes(raw, static_cast<int>(bytes)) != 1)
    throw Exception({ErrorCode::kInternal, "no random numbers from the system", ""});
  std::string out;
  for (std::size_t i = 0; i < bytes; ++i) out += fmt::format("{:02x}", raw[i]);
  return out;
}

/// Of OTLP's JSON: 64-bit integers are strings.
Json value_of(const std::string& text) {
  return {{"stringValue", text}};
}
Json value_of(const char* text) {
  return {{"stringValue", text}};
}
Json value_of(double number) {
  return {{"doubleValue", number}};
}
Json value_of(bool flag) {
  return {{"boolValue", flag}};
}
template <typename Integer>
requires std::is_integral_v<Integer> Json value_of(Integer number) {
  return {{"intValue", std::to_string(number)}};
}

class Attributes {
 public:
  template <typename Value>
  void add(const char* key, const Value& value) {
    list_.push_back({{"key", key}, {"value", value_of(value)}});
  }
  void add(const char* key, const std::vector<std::string>& values) {
    Json array = Json::array();
    for (const std::string& value : values) array.push_back(value_of(value));
    list_.push_back({{"key", key}, {"value", {{"arrayValue", {{"values", std::move(array)}}}}}});
  }
  Json take() { return std::move(list_); }

 private:
  Json list_ = Json::array();
};

/// As the conventions name it; where they have no name, the route's last part.
std::string operation_of(const ApiRoute& route) {
  const std::string_view path = route.path;
  if (path.ends_with("/chat/completions")) return "chat";
  if (path.ends_with("/completions")) return "text_completion";
  return std::string(path.substr(path.rfind('/') + 1));
}

struct SpanTime {
  std::chrono::system_clock::time_point began;
  std::string at(double seconds) const {
    const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(began.time_since_epoch()).count();
    return std::to_string(ns + static_cast<std::int64_t>(seconds * 1e9));
  }
};

Json span(const std::string& trace, const std::string& id, const std::string& parent, const std::string& name, int kind,
          std::string begin, std::string end) {
  Json out{{"traceId", trace},
           {"spanId", id},
           {"name", name},
           {"kind", kind},
           {"startTimeUnixNano", std::move(begin)},
           {"endTimeUnixNano", std::move(end)}};
  if (!parent.empty()) out["parentSpanId"] = parent;
  return out;
}

}  // namespace

std::vector<Json> spans_of(const RequestRecord& record) {
  const std::string trace = record.trace.trace_id.empty() ? random_hex(16) : record.trace.trace_id;
  const std::string id = random_hex(8);
  const std::string operation = record.route != nullptr ? operation_of(*record.route) : "unknown";
  const SpanTime time{record.began};
  const GenerationReport* answer = record.generation.get();
  Json whole =
      span(trace, id, record.trace.parent_id, record.model.empty() ? operation : operation + " " + record.model,
           kServer, time.at(0), time.at(record.seconds));
  if (!record.trace.state.empty()) whole["traceState"] = record.trace.state;
  Attributes a;
  a.add("gen_ai.operation.name", operation);
  a.add("gen_ai.provider.name", "tailor");
  if (!record.model.empty()) {
    a.add("gen_ai.request.model", record.model);
    a.add("gen_ai.response.model", record.model);
  }
  if (answer != nullptr) {
    a.add("gen_ai.request.max_tokens", answer->max_tokens);
    a.add("gen_ai.request.temperature", answer->temperature);
    a.add("gen_ai.request.top_p", answer->top_p);
    if (answer->seeded) a.add("gen_ai.request.seed", static_cast<std::int64_t>(answer->seed));  // as it was asked for
    if (!answer->stop.empty()) a.add("gen_ai.request.stop_sequences", answer->stop);
    if (answer->choices != 1) a.add("gen_ai.request.choice.count", answer->choices);
    a.add("gen_ai.request.stream", answer->stream);
    a.add("gen_ai.response.id", answer->response_id);
    std::vector<std::string> reasons;
    for (const std::string& reason : answer->finish_reasons) reasons.push_back(reason.empty() ? "error" : reason);
    a.add("gen_ai.response.finish_reasons", reasons);
    a.add("gen_ai.usage.input_tokens", answer->prompt_tokens);
    a.add("gen_ai.usage.output_tokens", answer->answer_tokens);
    a.add("gen_ai.usage.cache_read.input_tokens", answer->cached_tokens);
  } else if (record.prompt_tokens > 0) {
    a.add("gen_ai.usage.input_tokens", record.prompt_tokens);
  }
  if (!record.server_address.empty()) a.add("server.address", record.server_address);
  if (record.server_port != 0) a.add("server.port", record.server_port);
  a.add("http.request.method", record.method);
  if (record.route != nullptr) a.add("http.route", record.route->path);
  a.add("http.response.status_code", record.status);
  a.add("tailor.request.id", record.id);
  if (record.status >= 400) a.add("error.type", std::to_string(record.status));
  whole["attributes"] = a.take();
  // A client's own mistake is no failure of the server's span.
  if (record.status >= 500 || record.status == kClientGone) whole["status"] = {{"code", kStatusError}};
  std::vector<Json> out;
  out.push_back(std::move(whole));
  if (answer == nullptr || answer->first_token_s < 0) return out;
  const double queued = answer->submitted_s, begun = std::min(queued + answer->queued_s, answer->first_token_s),
               first = answer->first_token_s;
  out.push_back(span(trace, random_hex(8), id, "queue", kInternal, time.at(queued), time.at(begun)));
  out.push_back(span(trace, random_hex(8), id, "prefill", kInternal, time.at(begun), time.at(first)));
  out.push_back(span(trace, random_hex(8), id, "decode", kInternal, time.at(first), time.at(first + answer->decode_s)));
  return out;
}

Json export_request(std::vector<Json> spans, const std::string& service_name) {
  Attributes resource;
  resource.add("service.name", service_name);
  resource.add("service.version", TAILOR_VERSION);
  return {
      {"resourceSpans",
       Json::array({{{"resource", {{"attributes", resource.take()}}},
                     {"scopeSpans", Json::array({{{"scope", {{"name", "tailor.serve"}, {"version", TAILOR_VERSION}}},
                                                  {"spans", std::move(spans)}}})}}})}};
}

}  // namespace tailor
