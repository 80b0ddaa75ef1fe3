// Families of models and engines, under our names and vLLM's.

#include <algorithm>
#include <chrono>
#include <functional>
#include <type_traits>

#include "serve/server_metrics.h"

namespace tailor {
namespace {

using U64 = std::uint64_t;

double used_share(const EngineStats& stats) {
  return stats.cells > 0 ? static_cast<double>(stats.cells_used) / static_cast<double>(stats.cells) : 0;
}

/// What a model's or engine's series are told apart by. vLLM's have its `engine` as well: it has one a process, we one
/// a decoder.
enum class Names { kOurs, kVllm };
MetricLabels labels_of(Names names, std::string_view name) {
  if (names == Names::kOurs) return {{"model", name}};
  return {{"model_name", name}, {"engine", "0"}};
}

/// Families with a sample an engine.
struct EngineFamilies {
  MetricText& out;
  Names names;
  std::vector<std::pair<std::string_view, const EngineStats*>> rows;

  /// `value`: a member of EngineStats, or a function of it.
  template <typename Value>
  void gauge(const char* name, const char* help, Value value) const {
    out.gauge(name, help);
    samples(value);
  }
  template <typename Value>
  void counter(const char* name, const char* help, Value value) const {
    out.counter(name, help);
    samples(value);
  }
  void step_tokens(const char* name, const char* help) const {
    out.family(name, MetricText::Kind::kHistogram, help);
    for (const auto& [label, stats] : rows) {
      const auto tokens = static_cast<double>(stats->computed_tokens);
      out.histogram(labels_of(names, label), BucketCounts(kStepTokens, stats->computing_steps, tokens));
    }
  }

 private:
  template <typename Value>
  void samples(Value value) const {
    for (const auto& [name, stats] : rows) {
      const auto number = std::invoke(value, *stats);
      if constexpr (std::is_floating_point_v<decltype(number)>)
        out.sample(labels_of(names, name), number);
      else
        out.sample(labels_of(names, name), static_cast<U64>(number));
    }
  }
};

/// Families with a sample a model.
struct ModelFamilies {
  MetricText& out;
  const std::vector<std::pair<std::string, const ModelMetrics*>>& rows;
  Names names;

  MetricLabels labels(const std::string& name) const { return labels_of(names, name); }
  void histogram(const char* name, const char* help, Histogram ModelMetrics::*member) const {
    out.family(name, MetricText::Kind::kHistogram, help);
    for (const auto& [id, metrics] : rows) out.histogram(labels(id), metrics->*member);
  }
  void counter(const char* name, const char* help, ModelMetrics::Counter ModelMetrics::*member) const {
    out.counter(name, help);
    for (const auto& [id, metrics] : rows) out.sample(labels(id), (metrics->*member).load());
  }
  template <std::size_t kCount>
  void counters(const char* name, const char* help, std::string_view key, const std::array<const char*, kCount>& values,
                std::array<ModelMetrics::Counter, kCount> ModelMetrics::*member) const {
    out.counter(name, help);
    for (const auto& [id, metrics] : rows) {
      for (std::size_t i = 0; i < kCount; ++i) {
        MetricLabels all = labels(id);
        all.emplace_back(key, values[i]);
        out.sample(all, (metrics->*member)[i].load());
      }
    }
  }
};

std::string joined(const std::vector<AdapterId>& ids, const std::vector<std::pair<AdapterId, std::string>>& names,
                   std::string out) {
  for (const auto& [id, name] : names) {
    if (std::find(ids.begin(), ids.end(), id) != ids.end()) out += (out.empty() ? "" : ",") + name;
  }
  return out;
}

}  // namespace

void ServerMetrics::write_models(MetricText& out, const std::vector<Row>& rows) {
  out.gauge("tailor_models", "Models that are served.");
  out.sample({}, U64{rows.size()});
  out.gauge("tailor_model_info", "1 for each model; parent: the base of an adapter.");
  for (const Row& row : rows) {
    const char* answers = row.model->text     ? "text"
                          : row.model->labels ? "labels"
                          : row.model->tags   ? "tags"
                          : row.model->spans  ? "spans"
                                              : "vectors";
    out.sample({{"model", row.label}, {"parent", row.model->parent}, {"answers", answers}}, U64{1});
  }
  std::vector<std::pair<std::string, const ModelMetrics*>> list;
  for (const Row& row : rows) list.emplace_back(row.label, row.metrics.get());
  const ModelFamilies families{out, list, Names::kOurs};
  families.counters("tailor_requests_total", "Answered requests by model and class of status.", "status",
                    ModelMetrics::kStatuses, &ModelMetrics::requests);
  families.counters("tailor_answers_total",
                    "Answers of models that write text, by what ended them; abort: the client went.", "finish_reason",
                    ModelMetrics::kReasons, &ModelMetrics::answers);
  families.counter("tailor_model_prompt_tokens_total", "Tokens of prompts and texts, of requests that ended.",
                   &ModelMetrics::prompt_tokens);
  families.counter("tailor_model_cached_tokens_total", "Of these, not computed.", &ModelMetrics::cached_tokens);
  families.counter("tailor_model_answer_tokens_total", "Tokens of answers, of requests that ended.",
                   &ModelMetrics::answer_tokens);
  families.histogram("tailor_time_to_first_token_seconds", "From a request's coming to its first token.",
                     &ModelMetrics::first_token);
  families.histogram("tailor_time_per_output_token_seconds", "Between tokens of one answer.", &ModelMetrics::token);
  families.histogram("tailor_request_seconds", "From a request's coming to the end of its text.",
                     &ModelMetrics::request);
  families.histogram("tailor_request_queue_seconds", "Waiting for the engine.", &ModelMetrics::queue);
  families.histogram("tailor_request_prefill_seconds", "Computing the prompt.", &ModelMetrics::prefill);
  families.histogram("tailor_request_decode_seconds", "From the first token to the last.", &ModelMetrics::decode);
  families.histogram("tailor_request_prompt_tokens", "Tokens of a request's prompts.", &ModelMetrics::prompt_size);
  families.histogram("tailor_request_answer_tokens", "Tokens of a request's answers.", &ModelMetrics::answer_size);
  families.histogram("tailor_batched_request_seconds",
                     "Whole requests for labels, tags, answers from texts, vectors and ranks.", &ModelMetrics::batched);
  out.gauge("tailor_texts_waiting", "Texts that wait to become labels, tags, answers from texts, or vectors.");
  for (const Row& row : rows) out.sample({{"model", row.label}}, U64{row.model->batcher_load().items});
}

void ServerMetrics::write_engines(MetricText& out, const std::vector<EngineRow>& engines) {
  EngineFamilies families{out, Names::kOurs, {}};
  for (const EngineRow& engine : engines) families.rows.emplace_back(engine.label, &engine.stats);
  families.gauge(
      "tailor_requests_running",
      "Answers being computed, and requests for labels, tags, answers from texts and vectors; adapters count "
      "to their base.",
      &EngineStats::running);
  families.gauge("tailor_requests_waiting", "Answers and requests that wait to be computed.", &EngineStats::waiting);
  families.gauge("tailor_waiting_tokens", "Tokens of what waits, estimated.", &EngineStats::waiting_tokens);
  families.gauge("tailor_waiting_seconds", "What waits takes, estimated; 0: there is room, or nobody knows yet.",
                 &EngineStats::waiting_seconds);
  families.gauge("tailor_drain_tokens_per_second",
                 "How fast what waits is worked off, in estimated tokens; 0: nobody knows yet.",
                 &EngineStats::drain_tokens_per_second);
  families.gauge("tailor_kv_cache_usage_ratio", "Keys and values in use, 1: all.", used_share);
  families.gauge("tailor_kv_cache_tokens", "Tokens whose keys and values fit.", &EngineStats::cells);
  families.gauge("tailor_kv_cache_bytes", "Memory of keys and values; it grows by doubling, up to the budget.",
                 &EngineStats::cache_bytes);
  families.gauge("tailor_kept_prefix_bytes", "Beginnings of prompts kept outside the lanes.", &EngineStats::kept_bytes);
  families.gauge("tailor_engine_lanes", "Contexts that compute side by side.", &EngineStats::lanes);
  families.counter("tailor_prefix_cache_queries_total", "Tokens of prompts looked up among kept beginnings.",
                   &EngineStats::prompt_tokens);
  families.counter("tailor_prefix_cache_hits_total", "Of these, found.", &EngineStats::cached_tokens);
  families.counter("tailor_prompt_tokens_total", "Tokens of prompts that began.", &EngineStats::prompt_tokens);
  families.counter("tailor_generation_tokens_total", "Tokens of answers, as they are written.",
                   &EngineStats::answer_tokens);
  families.counter("tailor_computed_tokens_total", "Tokens of prompts and answers that were computed.",
                   &EngineStats::computed_tokens);
  families.counter("tailor_engine_steps_total", "Steps of all lanes.", &EngineStats::steps);
  families.step_tokens("tailor_engine_step_tokens", "Tokens that a step computed, of prompts and answers.");
  families.counter("tailor_preemptions_total", "Answers put back in the queue for want of memory.",
                   &EngineStats::preempted);
}

void ServerMetrics::write_vllm(MetricText& out, const std::vector<Row>& rows, const std::vector<EngineRow>& engines) {
  EngineFamilies of_engines{out, Names::kVllm, {}};
  for (const EngineRow& engine : engines) of_engines.rows.emplace_back(engine.label, &engine.stats);
  of_engines.gauge("vllm:num_requests_running", "As tailor_requests_running.", &EngineStats::running);
  of_engines.gauge("vllm:num_requests_waiting", "As tailor_requests_waiting.", &EngineStats::waiting);
  of_engines.gauge("vllm:kv_cache_usage_perc", "As tailor_kv_cache_usage_ratio.", used_share);
  of_engines.gauge("vllm:gpu_cache_usage_perc", "As tailor_kv_cache_usage_ratio; the older name.", used_share);
  out.gauge("vllm:cache_config_info", "1, with the cache's size as labels.");
  for (const EngineRow& engine : engines)
    out.sample({{"model_name", engine.label},
                {"engine", "0"},
                {"block_size", "1"},
                {"num_gpu_blocks", std::to_string(engine.stats.cells)}},
               U64{1});
  std::string running, waiting;
  int lanes = 0;
  for (const EngineRow& engine : engines) {
    running = joined(engine.stats.running_adapters, engine.adapters, running);
    waiting = joined(engine.stats.waiting_adapters, engine.adapters, waiting);
    lanes += engine.stats.lanes;
  }
  out.gauge("vllm:lora_requests_info", "The time, with adapters as labels; max_lora: as many as are computed at once.");
  out.sample(
      {{"max_lora", std::to_string(lanes)}, {"running_lora_adapters", running}, {"waiting_lora_adapters", waiting}},
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  of_engines.counter("vllm:prompt_tokens_total", "As tailor_prompt_tokens_total.", &EngineStats::prompt_tokens);
  of_engines.counter("vllm:generation_tokens_total", "As tailor_generation_tokens_total.", &EngineStats::answer_tokens);
  of_engines.step_tokens("vllm:iteration_tokens_total", "As tailor_engine_step_tokens.");
  of_engines.counter("vllm:num_preemptions_total", "As tailor_preemptions_total.", &EngineStats::preempted);
  of_engines.counter("vllm:prefix_cache_queries_total", "As tailor_prefix_cache_queries_total.",
                     &EngineStats::prompt_tokens);
  of_engines.counter("vllm:prefix_cache_hits_total", "As tailor_prefix_cache_hits_total.", &EngineStats::cached_tokens);
  std::vector<std::pair<std::string, const ModelMetrics*>> list;
  for (const Row& row : rows) list.emplace_back(row.label, row.metrics.get());
  const ModelFamilies families{out, list, Names::kVllm};
  families.counters("vllm:request_success_total", "As tailor_answers_total.", "finished_reason", ModelMetrics::kReasons,
                    &ModelMetrics::answers);
  families.histogram("vllm:time_to_first_token_seconds", "As tailor_time_to_first_token_seconds.",
                     &ModelMetrics::first_token);
  families.histogram("vllm:time_per_output_token_seconds", "As tailor_time_per_output_token_seconds.",
                     &ModelMetrics::token);
  families.histogram("vllm:inter_token_latency_seconds", "As tailor_time_per_output_token_seconds; the newer name.",
                     &ModelMetrics::token);
  families.histogram("vllm:e2e_request_latency_seconds", "As tailor_request_seconds.", &ModelMetrics::request);
  families.histogram("vllm:request_queue_time_seconds", "As tailor_request_queue_seconds.", &ModelMetrics::queue);
  families.histogram("vllm:request_inference_time_seconds", "Prompt and answer together.", &ModelMetrics::inference);
  families.histogram("vllm:request_prefill_time_seconds", "As tailor_request_prefill_seconds.", &ModelMetrics::prefill);
  families.histogram("vllm:request_decode_time_seconds", "As tailor_request_decode_seconds.", &ModelMetrics::decode);
  families.histogram("vllm:request_prompt_tokens", "As tailor_request_prompt_tokens.", &ModelMetrics::prompt_size);
  families.histogram("vllm:request_generation_tokens", "As tailor_request_answer_tokens.", &ModelMetrics::answer_size);
  families.histogram("vllm:request_max_num_generation_tokens", "Of a request's longest answer.",
                     &ModelMetrics::longest_answer);
  families.histogram("vllm:request_params_n", "Answers asked for.", &ModelMetrics::choices);
  families.histogram("vllm:request_params_max_tokens", "Tokens asked for.", &ModelMetrics::max_tokens);
}

}  // namespace tailor
