#pragma once
/// What the server tells of itself: counted from requests as they end, read from engines and the HTTP server when
/// asked.
///
/// Labels are bounded: models of the registry, routes of the API, classes of status. Nothing of a key, a user or a
/// request's content.

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <vector>

#include "infer/engine.h"
#include "serve/http_metrics.h"
#include "serve/metric_text.h"
#include "serve/request_record.h"
#include "serve/served_model.h"

namespace tailor {

/// Of the requests to one model.
struct ModelMetrics {
  using Counter = std::atomic<std::uint64_t>;
  static constexpr std::array kStatuses{"2xx", "4xx", "499", "5xx"};
  static constexpr std::array kReasons{"stop", "length", "tool_calls", "abort", "error"};
  std::array<Counter, kStatuses.size()> requests{};
  std::array<Counter, kReasons.size()> answers{};
  Counter prompt_tokens{0}, cached_tokens{0}, answer_tokens{0};
  Histogram first_token{kFirstTokenSeconds}, token{kTokenSeconds}, request{kRequestSeconds}, queue{kRequestSeconds},
      prefill{kRequestSeconds}, decode{kRequestSeconds}, inference{kRequestSeconds}, batched{kBatchedSeconds},
      prompt_size{kRequestTokens}, answer_size{kRequestTokens}, longest_answer{kRequestTokens},
      max_tokens{kRequestTokens}, choices{kChoiceCounts};
};

struct ServerMetricsOptions {
  bool vllm_names = false;  // the same numbers again, as vLLM names them
};

/// Threads: all, but for add() and watch_http(), which come before the server starts.
class ServerMetrics final : public RequestObserver {
 public:
  explicit ServerMetrics(const ModelRegistry& models, ServerMetricsOptions options = {});
  void on_request(const RequestRecord& record) override;

  /// Alive while somebody may ask.
  void watch_http(const HttpMetrics& http) { http_ = &http; }
  /// More families, written by their owner.
  void add(std::function<void(MetricText&)> source) { sources_.push_back(std::move(source)); }
  void set_draining(const std::atomic<bool>* draining) { draining_ = draining; }

  std::string text(MetricText::Format format) const;

 private:
  struct Row {
    std::string label;
    std::shared_ptr<const ModelMetrics> metrics;
    ServedModelPtr model;
  };
  /// An engine with its models, or a model without one, whose figures of an engine are 0.
  struct EngineRow {
    std::string label;
    EngineStats stats;
    std::vector<std::pair<AdapterId, std::string>> adapters;
  };
  std::shared_ptr<ModelMetrics> of(const std::string& model) const;
  std::vector<Row> rows() const;
  static std::vector<EngineRow> engines(const std::vector<Row>& rows);
  void write_server(MetricText& out) const;
  void write_http(MetricText& out) const;
  static void write_models(MetricText& out, const std::vector<Row>& rows);
  static void write_engines(MetricText& out, const std::vector<EngineRow>& engines);
  static void write_vllm(MetricText& out, const std::vector<Row>& rows, const std::vector<EngineRow>& engines);

  const ModelRegistry& models_;
  ServerMetricsOptions options_;
  const HttpMetrics* http_ = nullptr;
  const std::atomic<bool>* draining_ = nullptr;
  std::vector<std::function<void(MetricText&)>> sources_;
  // By route, then class; the last row: no route.
  static constexpr std::array kClasses{"2xx", "3xx", "4xx", "499", "5xx"};
  std::vector<std::array<std::atomic<std::uint64_t>, kClasses.size()>> by_route_;
  static constexpr std::array kRefusals{401, 403, 429, 503};
  std::array<std::atomic<std::uint64_t>, kRefusals.size()> refused_{};
  static constexpr std::array kWaitRefusals{"key", "server", "queue"};  // as WaitRefusal
  std::array<std::atomic<std::uint64_t>, kWaitRefusals.size()> refused_to_wait_{};
  mutable std::shared_mutex mutex_;
  mutable std::map<std::string, std::shared_ptr<ModelMetrics>> by_model_;
};

}  // namespace tailor
