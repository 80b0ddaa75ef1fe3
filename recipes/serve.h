#pragma once
/// Recipe: serve models behind the API until told to stop.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/log.h"
#include "core/result.h"
#include "serve/http_options.h"
#include "serve/request_log.h"
#include "serve/trace_exporter.h"

namespace tailor {

struct ServeRequest {
  std::vector<std::filesystem::path> packages;
  std::vector<std::string> models;    // base models, by name or path
  std::vector<std::string> adapters;  // NAME=PATH of the first base model
  std::vector<std::string> listen{"127.0.0.1:8080"};  // endpoints, see parse_endpoint()
  std::filesystem::path tls_certificate, tls_key, tls_client_ca;
  int threads = 0;
  std::uint64_t cache_bytes = 0;  // keys and values; 0: a quarter of the memory
  int max_context = 0;
  std::chrono::seconds drain_timeout{45};
  bool vllm_metrics = false;  // /metrics under vLLM's names as well
  LogSink* request_log = nullptr;  // a line for each request; null: none. Outlives the call, as `log` does
  RequestLogOptions request_log_options;
  std::optional<TraceOptions> traces;
};

/// Returns when `stop` is set and what ran has ended, or `drain_timeout` after it. `ready` hears the addresses.
Status serve(const ServeRequest& request, Logger& log, const std::function<void(const std::vector<std::string>&)>& ready,
             const CancelToken& stop);

}  // namespace tailor
