#include "serve/request_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cmath>

#include "core/json.h"
#include "serve/api_routes.h"
#include "serve/generation_call.h"

namespace tailor {
namespace {

std::string time_text(std::chrono::system_clock::time_point at) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(at.time_since_epoch()).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(static_cast<std::time_t>(ms / 1000)), ms % 1000);
}

const char* name_of(LogLevel level) {
  return level == LogLevel::kDebug ? "debug" : level == LogLevel::kInfo ? "info" : "warning";
}

/// With all that is not printable ASCII escaped.
std::string line_of(const Json& json) {
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

double rounded_ms(double seconds) {
  return std::round(seconds * 1e6) / 1e3;
}

}  // namespace

void JsonLogger::log(LogLevel level, std::string_view message) {
  if (level < least_) return;
  sink_.write(
      line_of({{"ts", time_text(std::chrono::system_clock::now())}, {"level", name_of(level)}, {"message", message}}));
}

void RequestLog::on_request(const RequestRecord& record) {
  // A batch has up to thousands of requests at once; what became of each stands in its files.
  const bool background =
      !record.batch_id.empty() ||
      (record.route != nullptr && (record.route->scope == ApiScope::kNone || record.route->while_draining));
  const LogLevel level = record.status >= 500 ? LogLevel::kWarning : background ? LogLevel::kDebug : LogLevel::kInfo;
  if (level < options_.least) return;
  Json out{{"ts", time_text(record.began)}, {"level", name_of(level)}, {"message", "request"}};
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) out[key] = value;
  };
  text("request_id", record.id);
  text("method", record.method);
  text("route", record.route != nullptr ? record.route->path : "");
  out["status"] = record.status;
  text("model", record.model);
  text("key_id", record.key_id);
  text("batch_id", record.batch_id);
  if (options_.addresses) text("remote_address", record.remote_address);
  text("trace_id", record.trace.trace_id);
  out["bytes_in"] = record.bytes_in;
  out["bytes_out"] = record.bytes_out;
  out["total_ms"] = rounded_ms(record.seconds);
  if (const GenerationReport* answer = record.generation.get()) {
    out["prompt_tokens"] = answer->prompt_tokens;
    out["cached_tokens"] = answer->cached_tokens;
    out["answer_tokens"] = answer->answer_tokens;
    out["finish_reasons"] = answer->finish_reasons;
    out["stream"] = answer->stream;
    out["queue_ms"] = rounded_ms(answer->queued_s);
    if (answer->first_token_s >= 0) out["first_token_ms"] = rounded_ms(answer->first_token_s);
    out["decode_ms"] = rounded_ms(answer->decode_s);
  } else if (record.prompt_tokens > 0) {
    out["prompt_tokens"] = record.prompt_tokens;
  }
  sink_.write(line_of(out));
}

}  // namespace tailor
