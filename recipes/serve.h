#pragma once
/// Recipe: serve models behind the API until told to stop.

#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/log.h"
#include "core/result.h"
#include "infer/request_queue.h"
#include "serve/api_context.h"
#include "serve/http_options.h"
#include "serve/log_sink.h"
#include "serve/request_log.h"
#include "serve/trace_exporter.h"

namespace tailor {

struct ServeAdapter {
  std::string name;
  std::filesystem::path path;
};

/// One entry of `models` of a file: one of model, package, stored.
struct ServeModel {
  std::string name;                    // as clients ask for it; empty: its own
  std::string model;                   // a base model: name or path
  std::filesystem::path package;       // a directory
  std::string stored;                  // NAME or NAME@VERSION of the store
  std::vector<ServeAdapter> adapters;  // of `model`
  std::string where;                   // "serve.yaml:12", for errors
};

struct ServeRequest {
  std::vector<std::filesystem::path> packages;        // directories, or NAME or NAME@VERSION of the store
  std::vector<std::string> models;                    // base models, by name or path
  std::vector<std::string> adapters;                  // NAME=PATH of the first base model
  std::vector<std::string> listen{"127.0.0.1:8080"};  // endpoints, see parse_endpoint()
  std::filesystem::path tls_certificate, tls_key, tls_client_ca;
  /// Whose pages may use the API beside the server's own, as parse_origin() has them.
  std::vector<std::string> allowed_origins;

  int hsts_days = 0;  // browsers that came by TLS once come by nothing else for so long; 0: not told to
  int threads = 0;
  std::uint64_t cache_bytes = 0;  // keys and values of all models together; 0: a quarter of the memory
  int max_context = 0;
  bool nearest_rows = true;  // training rows of packages that hold them may be asked for
  std::chrono::seconds drain_timeout{45};

  std::vector<ServeModel> served;       // of a file
  std::filesystem::path data;           // of the store; empty: the usual place, where it can be made
  std::filesystem::path keys_file;      // of keys beside those of the store
  bool keys_required = false;           // no request without a key, also while none exists
  std::filesystem::path adapters_root;  // adapters under it may be loaded over HTTP; empty: none
  ApiLimits limits;
  HttpLimits http_limits;
  HttpTimeouts timeouts;
  QueueLimits queue;
  std::atomic<bool>* reload = nullptr;  // set by SIGHUP: keys, certificates and packages in production are read again
  bool vllm_metrics = false;            // /metrics under vLLM's names as well
  LogSinkOptions log;                   // for who opens the log
  bool log_requests = true;             // a line for each request in `log_sink`
  LogSink* log_sink = nullptr;          // /metrics tell what it dropped; null: nobody logs. Outlives the call
  RequestLogOptions request_log_options;
  std::optional<TraceOptions> traces;  // an empty endpoint: none
};

/// An error where a part of TLS is named without certificate and key: it must not end in plain HTTP.
Status check_tls(const ServeRequest& request);

/// Returns when `stop` is set and what ran has ended, or `drain_timeout` after it; until then requests are refused with
/// 503 and /readyz is, too. `ready` hears the addresses.
Status serve(const ServeRequest& request, Logger& log,
             const std::function<void(const std::vector<std::string>&)>& ready, const CancelToken& stop);

}  // namespace tailor
