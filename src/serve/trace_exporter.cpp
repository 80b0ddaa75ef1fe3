#include "serve/trace_exporter.h"

#include <fmt/format.h>
#include <openssl/rand.h>

#include <algorithm>

#include "serve/api_routes.h"
#include "serve/trace_span.h"
#include "serve/web_client.h"

namespace tailor {
namespace {

constexpr std::chrono::milliseconds kLongestPause{30'000}, kLastFlush{2000};

std::string traces_url(std::string endpoint) {
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return endpoint.ends_with("/v1/traces") ? endpoint : endpoint + "/v1/traces";
}

bool drawn(double ratio) {
  if (ratio >= 1) return true;
  std::uint32_t number = 0;
  return RAND_bytes(reinterpret_cast<unsigned char*>(&number), sizeof number) == 1 && number < ratio * 4294967296.0;
}

struct Outcomes {
  std::uint64_t sent = 0, dropped = 0, failed = 0;
};

void write_outcomes(MetricText& out, const Outcomes& outcomes) {
  out.counter("tailor_traces_total", "Requests traced: sent, dropped with a full queue, failed at the collector.");
  out.sample({{"outcome", "sent"}}, outcomes.sent);
  out.sample({{"outcome", "dropped"}}, outcomes.dropped);
  out.sample({{"outcome", "failed"}}, outcomes.failed);
}

/// As OTLP has it; the rest would fail again.
bool worth_another(int status) {
  return status == 429 || status == 502 || status == 503 || status == 504;
}

}  // namespace

TraceExporter::TraceExporter(TraceOptions options, Logger& log) : options_(std::move(options)), log_(log) {
  options_.endpoint = traces_url(options_.endpoint);
  thread_ = std::thread([this] { run(); });
}

TraceExporter::~TraceExporter() {
  flush(kLastFlush);
  cancel_.cancel();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void TraceExporter::on_request(const RequestRecord& record) {
  if (record.route == nullptr || record.route->scope != ApiScope::kInfer || record.method != "POST") return;
  if (record.route->needs_store) return;  // files, jobs, batches
  if (record.trace.trace_id.empty() ? !drawn(options_.ratio) : !record.trace.sampled) return;
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() >= options_.queue_requests) {
      ++dropped_;
      return;
    }
    queue_.push_back(record);
    if (queue_.size() > 1 && queue_.size() < options_.batch_requests) return;
  }
  changed_.notify_one();
}

bool TraceExporter::flush(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  hurry_ = true;
  changed_.notify_all();
  const bool done = idle_.wait_for(lock, timeout, [&] { return queue_.empty() && !sending_; });
  hurry_ = false;
  return done;
}

void TraceExporter::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    // A little later there is more to send at once.
    changed_.wait_for(lock, options_.interval,
                      [&] { return stopping_ || hurry_ || queue_.size() >= options_.batch_requests; });
    std::vector<RequestRecord> batch;
    while (!queue_.empty() && batch.size() < options_.batch_requests) {
      batch.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    sending_ = true;
    lock.unlock();
    try {
      send(batch);
    } catch (const std::exception& e) {
      failed_ += batch.size();
      log_.warning(fmt::format("traces: {}", e.what()));
    }
    batch.clear();
    lock.lock();
    sending_ = false;
    idle_.notify_all();
  }
}

bool TraceExporter::pause(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, time, [&] { return stopping_; });
}

void TraceExporter::send(const std::vector<RequestRecord>& batch) {
  std::vector<Json> spans;
  for (const RequestRecord& record : batch) {
    for (Json& span : spans_of(record)) spans.push_back(std::move(span));
  }
  WebRequest request{.url = options_.endpoint,
                     .fields = options_.fields,
                     .body = dump_json(export_request(std::move(spans), options_.service_name)),
                     .timeout = options_.timeout};
  request.fields.emplace_back("Content-Type", "application/json");
  std::string reason;
  std::chrono::milliseconds backoff = options_.backoff;
  for (int attempt = 1;; ++attempt) {
    const Result<WebReply> reply = ask_web(request, &cancel_);
    if (reply.has_value() && reply->status >= 200 && reply->status < 300) {
      exported_ += batch.size();
      return;
    }
    reason = reply.has_value() ? fmt::format("{} answers {}", options_.endpoint, reply->status) : reply.error().message;
    const bool again = reply.has_value() ? worth_another(reply->status) : reply.error().code == ErrorCode::kUnavailable;
    if (!again || attempt >= options_.attempts) break;
    const auto asked = std::chrono::seconds(reply.has_value() ? reply->retry_after_s.value_or(0) : 0);
    if (!pause(std::min(kLongestPause, std::max<std::chrono::milliseconds>(backoff, asked)))) break;
    backoff *= 2;
  }
  failed_ += batch.size();
  log_.warning(fmt::format("traces of {} requests were given up: {}", batch.size(), reason));
}

void TraceExporter::write_metrics(MetricText& out) const {
  write_outcomes(out, {.sent = exported_.load(), .dropped = dropped_.load(), .failed = failed_.load()});
}

void TraceExporter::write_zeros(MetricText& out) {
  write_outcomes(out, {});
}

}  // namespace tailor
