#pragma once
/// Sends requests as spans to a collector, OTLP over HTTP with JSON, from a thread of its own.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/log.h"
#include "serve/metric_text.h"
#include "serve/request_record.h"

namespace tailor {

struct TraceOptions {
  std::string endpoint;  // "http://collector:4318": /v1/traces is added where the path does not end with it
  std::vector<std::pair<std::string, std::string>> fields;  // of each request to it: credentials
  std::string service_name = "tailor";
  double ratio = 1;                   // of requests whose client says nothing; what a client's trace decides holds
  std::size_t queue_requests = 4096;  // waiting; more are dropped and counted
  std::size_t batch_requests = 256;
  std::chrono::milliseconds interval{1000};  // between batches that are not full
  std::chrono::milliseconds timeout{10'000};
  int attempts = 5;
  std::chrono::milliseconds backoff{500};  // doubles with each attempt, at most 30 s
};

/// Requests to models alone, those of batches too; not files, jobs, health or metrics. Threads: all.
class TraceExporter final : public RequestObserver {
 public:
  TraceExporter(TraceOptions options, Logger& log);
  TraceExporter(const TraceExporter&) = delete;
  TraceExporter& operator=(const TraceExporter&) = delete;
  ~TraceExporter();  ///< flush(), at most two seconds

  void on_request(const RequestRecord& record) override;
  bool flush(std::chrono::milliseconds timeout);               ///< whether all was sent or given up
  std::uint64_t exported() const { return exported_.load(); }  ///< requests
  std::uint64_t dropped() const { return dropped_.load(); }
  void write_metrics(MetricText& out) const;
  static void write_zeros(MetricText& out);  ///< the same series where nothing is traced

 private:
  void run();
  void send(const std::vector<RequestRecord>& batch);
  bool pause(std::chrono::milliseconds time);  // false: the end

  TraceOptions options_;
  Logger& log_;
  CancelToken cancel_;
  std::atomic<std::uint64_t> exported_{0}, dropped_{0}, failed_{0};
  std::mutex mutex_;
  std::condition_variable changed_, idle_;
  std::deque<RequestRecord> queue_;
  bool sending_ = false, hurry_ = false, stopping_ = false;
  std::thread thread_;
};

}  // namespace tailor
