#include "serve/server_metrics.h"

#include <algorithm>
#include <mutex>

#include "serve/api_routes.h"
#include "serve/generation_call.h"
#include "serve/process_metrics.h"

namespace tailor {
namespace {

std::size_t class_of(int status) {
  return status == kClientGone ? 3 : status >= 500 ? 4 : status >= 400 ? 2 : status >= 300 ? 1 : 0;
}

}  // namespace

ServerMetrics::ServerMetrics(const ModelRegistry& models, ServerMetricsOptions options)
    : models_(models), options_(options), by_route_(api_routes().size() + 1) {}

std::shared_ptr<ModelMetrics> ServerMetrics::of(const std::string& model) const {
  {
    const std::shared_lock lock(mutex_);
    if (const auto found = by_model_.find(model); found != by_model_.end()) return found->second;
  }
  const std::unique_lock lock(mutex_);
  std::shared_ptr<ModelMetrics>& entry = by_model_[model];
  if (!entry) entry = std::make_shared<ModelMetrics>();
  return entry;
}

void ServerMetrics::on_request(const RequestRecord& record) {
  const std::size_t route =
      record.route == nullptr ? api_routes().size() : static_cast<std::size_t>(record.route - api_routes().data());
  const std::size_t status = class_of(record.status);
  const bool over_http = record.batch_id.empty();
  if (over_http) by_route_[route][status].fetch_add(1, std::memory_order_relaxed);
  for (std::size_t i = 0; over_http && i < kRefusals.size(); ++i) {
    if (record.status == kRefusals[i] && (record.route == nullptr || record.route->scope != ApiScope::kNone))
      refused_[i].fetch_add(1, std::memory_order_relaxed);
  }
  if (record.refused_for != WaitRefusal::kNone)
    refused_to_wait_[static_cast<std::size_t>(record.refused_for) - 1].fetch_add(1, std::memory_order_relaxed);
  if (record.model.empty() || record.route == nullptr || record.route->scope != ApiScope::kInfer) return;
  const std::shared_ptr<ModelMetrics> model = of(record.model);
  count(model->requests[status == 0 || status == 1 ? 0 : status - 1]);
  const GenerationReport* text = record.generation.get();
  if (text == nullptr) {
    count(model->prompt_tokens, record.prompt_tokens);
    if (record.status == 200) model->batched.observe(record.seconds);
    return;
  }
  count(model->prompt_tokens, text->prompt_tokens);
  count(model->cached_tokens, text->cached_tokens);
  count(model->answer_tokens, text->answer_tokens);
  for (const std::string& reason : text->finish_reasons) {
    const std::string_view told = !reason.empty()                ? std::string_view(reason)
                                  : record.status == kClientGone ? "abort"
                                                                 : "error";
    const auto found = std::find(ModelMetrics::kReasons.begin(), ModelMetrics::kReasons.end(), told);
    count(model->answers[std::min<std::size_t>(static_cast<std::size_t>(found - ModelMetrics::kReasons.begin()),
                                               ModelMetrics::kReasons.size() - 1)]);
  }
  model->token.add(text->token_seconds);
  if (text->first_token_s >= 0) {
    model->first_token.observe(text->first_token_s);
    model->queue.observe(text->queued_s);
    model->prefill.observe(text->prefill_s);
  }
  if (record.status != 200) return;
  model->request.observe(record.seconds);
  model->decode.observe(text->decode_s);
  model->inference.observe(text->prefill_s + text->decode_s);
  model->prompt_size.observe(static_cast<double>(text->prompt_tokens));
  model->answer_size.observe(static_cast<double>(text->answer_tokens));
  model->longest_answer.observe(static_cast<double>(text->longest_answer));
  model->max_tokens.observe(text->max_tokens);
  model->choices.observe(text->choices);
}

/// One for each model there is. Of models that are gone the counts go too: labels stay bounded.
std::vector<ServerMetrics::Row> ServerMetrics::rows() const {
  std::vector<Row> out;
  for (ServedModelPtr& model : models_.list()) {
    std::shared_ptr<const ModelMetrics> metrics = of(model->id);
    out.push_back({model->id, std::move(metrics), std::move(model)});
  }
  const std::unique_lock lock(mutex_);
  std::erase_if(by_model_, [&](const auto& entry) {
    return std::none_of(out.begin(), out.end(), [&](const Row& row) { return row.label == entry.first; });
  });
  return out;
}

std::vector<ServerMetrics::EngineRow> ServerMetrics::engines(const std::vector<Row>& rows) {
  std::vector<EngineRow> out;
  std::vector<const EngineHost*> hosts;  // of these; null: none
  const auto add = [&](std::string label, const ServedModel& model) {
    const BatcherLoad beside = model.batcher_load();
    EngineStats stats = model.text ? model.text->engine().stats() : EngineStats{};
    stats.running += static_cast<int>(beside.running);
    stats.waiting += static_cast<int>(beside.waiting);
    hosts.push_back(model.text ? model.text->host().get() : nullptr);
    out.push_back({std::move(label), std::move(stats), {}});
  };
  const auto taken = [&](const std::string& label) {
    return std::any_of(out.begin(), out.end(), [&](const EngineRow& e) { return e.label == label; });
  };
  for (const Row& row : rows) {
    if (row.model->parent.empty()) add(row.label, *row.model);
  }
  for (const Row& row : rows) {
    const ServedModel& model = *row.model;
    if (model.parent.empty()) continue;
    const bool adapts = model.text && model.text->adapter() != 0;
    auto host = model.text ? std::find(hosts.begin(), hosts.end(), model.text->host().get()) : hosts.end();
    if (host == hosts.end()) {
      // A replaced base and its older adapters are two engines under one name.
      const std::string& label = adapts && !taken(model.parent) ? model.parent : row.label;
      if (taken(label)) continue;
      add(label, model);
      host = std::prev(hosts.end());
    }
    if (adapts)
      out[static_cast<std::size_t>(host - hosts.begin())].adapters.emplace_back(model.text->adapter(), model.id);
  }
  return out;
}

std::string ServerMetrics::text(MetricText::Format format) const {
  MetricText out(format);
  const std::vector<Row> models = rows();
  const std::vector<EngineRow> hosts = engines(models);
  write_server(out);
  write_http(out);
  write_models(out, models);
  write_engines(out, hosts);
  for (const auto& source : sources_) source(out);
  write_process_metrics(out);
  if (options_.vllm_names) write_vllm(out, models, hosts);
  return std::move(out).finish();
}

void ServerMetrics::write_server(MetricText& out) const {
  out.gauge("tailor_build_info", "1, with the version as a label.");
  out.sample({{"version", TAILOR_VERSION}}, std::uint64_t{1});
  out.gauge("tailor_loading", "Models that are being loaded now.");
  out.sample({}, static_cast<std::uint64_t>(models_.loading()));
  out.gauge("tailor_draining", "1 while the server shuts down and takes no new work.");
  out.sample({}, std::uint64_t{draining_ != nullptr && draining_->load() ? 1u : 0u});
  out.counter("tailor_http_requests_total",
              "Answers by route and class of status; 499: the client went first. No route: nothing has that path, or "
              "it was no request.");
  const auto& routes = api_routes();
  for (std::size_t r = 0; r < by_route_.size(); ++r) {
    const bool known = r < routes.size();
    for (std::size_t c = 0; c < kClasses.size(); ++c)
      out.sample(
          {{"method", known ? routes[r].method : ""}, {"route", known ? routes[r].path : ""}, {"status", kClasses[c]}},
          by_route_[r][c].load());
  }
  out.counter(
      "tailor_requests_refused_total",
      "Requests turned away: 401 no key, 403 not allowed, 429 over a quota, 503 a full queue or shutting down.");
  for (std::size_t i = 0; i < kRefusals.size(); ++i)
    out.sample({{"status", std::to_string(kRefusals[i])}}, refused_[i].load());
  out.counter("tailor_waiting_refused_total",
              "Requests turned away for what waits before them: of their own key, of all, or over the queue's bounds.");
  for (std::size_t i = 0; i < kWaitRefusals.size(); ++i)
    out.sample({{"reason", kWaitRefusals[i]}}, refused_to_wait_[i].load());
}

void ServerMetrics::write_http(MetricText& out) const {
  if (http_ == nullptr) return;
  const auto total = [&](const char* name, const char* help, const HttpMetrics::Counter& counter) {
    out.counter(name, help);
    out.sample({}, counter.load());
  };
  out.gauge("tailor_http_connections", "Connections open now.");
  out.sample({}, http_->open_connections.load());
  total("tailor_http_connections_accepted_total", "Connections taken.", http_->accepted);
  out.counter("tailor_http_connections_refused_total", "Connections over a limit.");
  out.sample({{"limit", "connections"}}, http_->refused_connections.load());
  out.sample({{"limit", "address"}}, http_->refused_addresses.load());
  total("tailor_http_accept_errors_total",
        "Connections the system could not give, mostly for want of file descriptors.", http_->accept_errors);
  total("tailor_http_bad_requests_total", "What was no good request: answered by the HTTP server itself.",
        http_->bad_requests);
  total("tailor_http_disconnects_total", "Clients that went before their answer was complete.", http_->disconnects);
  total("tailor_http_slow_readers_total", "Streams cut since too much waited for their reader.", http_->slow_readers);
  total("tailor_http_received_bytes_total", "Bytes from clients.", http_->bytes_in);
  total("tailor_http_sent_bytes_total", "Bytes to clients.", http_->bytes_out);
  total("tailor_http_handshake_errors_total", "TLS handshakes that failed.", http_->handshake_errors);
  out.counter("tailor_http_timeouts_total", "Connections that were too slow.");
  out.sample({{"phase", "handshake"}}, http_->handshake_timeouts.load());
  out.sample({{"phase", "header"}}, http_->header_timeouts.load());
  out.sample({{"phase", "idle"}}, http_->idle_timeouts.load());
  out.sample({{"phase", "body"}}, http_->body_timeouts.load());
  out.sample({{"phase", "write"}}, http_->write_timeouts.load());
}

}  // namespace tailor
