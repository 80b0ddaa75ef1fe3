#include "tune/run_job.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "core/files.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/process.h"
#include "core/safetensors.h"
#include "core/system.h"
#include "tune/data_order.h"
#include "tune/job.h"
#include "tune/kernels.h"
#include "tune/methods.h"
#include "tune/objective.h"
#include "tune/profile.h"
#include "tune/trainer.h"
#include "tune/trainer_state.h"

namespace tailor::tune {
namespace {

constexpr const char* kProfileVariable = "TAILOR_TUNE_PROFILE";  // 1: result.json tells where the time went

Result<TokenFile> read_rows(const Job& job) {
  TAILOR_TRY(TokenFile file, read_token_file(job.tokens));
  TAILOR_CHECK(check_targets(job, file));
  if (rows_of(file, TokenPart::kTrain).empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: it has no rows to train on", job.tokens.string()), ""};
  }
  return file;
}

/// What must be equal for a checkpoint to be taken up; not the number of threads, the deadline, how often we save, or
/// how a batch is cut (but where the texts of a pass are compared with one another).
Result<std::string> fingerprint(const Job& job, const BaseWeights& weights) {
  TAILOR_TRY(const std::string tokens, sha256_file(job.tokens));
  std::string head;
  if (!job.head.empty()) {
    TAILOR_TRY(head, sha256_file(job.head));
  }
  std::string adapter;
  if (!job.adapter.empty()) {
    std::error_code ignored;
    const bool directory = std::filesystem::is_directory(job.adapter, ignored);
    TAILOR_TRY(adapter, sha256_file(directory ? job.adapter / "adapter_model.safetensors" : job.adapter));
  }
  std::uint64_t base = 0;
  for (const std::string& name : weights.names()) {
    // The ends of every tensor: enough to tell models of one shape apart without reading gigabytes.
    constexpr std::size_t kSample = 4096;
    const std::string_view bytes = weights.stored(name).bytes;
    base = hash64(name, base ^ bytes.size());
    base = hash64(bytes.substr(0, kSample), base);
    base = hash64(bytes.substr(bytes.size() - std::min(kSample, bytes.size())), base);
  }
  Json settings = settings_json(job);
  settings.erase("activation_checkpointing");
  if (job.method != "contrastive") settings.erase("micro_batch_tokens");
  return sha256_hex(dump_json({{"task", to_string(job.task)},
                               {"method", job.method},
                               {"settings", settings},
                               {"seed", job.seed},
                               {"tokens", tokens},
                               {"base", base},
                               {"head", head},
                               {"adapter", adapter},
                               {"evaluate_every_epochs", job.evaluate_every_epochs},
                               {"evaluate_every_steps", job.evaluate_every_steps},
                               {"patience", job.early_stopping_patience},
                               {"metric", to_string(job.metric)}}));
}

/// probabilities F32 [rows, labels], labels I32 [rows] (-1: none), row_ids I64 [rows]; token-classification: the first
/// two of answered tokens, those of row i at offsets[i] to offsets[i + 1] (I64); regression: values F32 [rows];
/// span-extraction: scores F32 [tokens, 2], of row i at offsets;
/// texts: losses F64 [rows] and learnt_tokens F64 [rows].
Status write_predictions(const std::filesystem::path& path, const Predictions& p, const TokenFile& file, RowSpan rows) {
  std::vector<std::int32_t> labels;
  std::vector<std::int64_t> ids;
  for (const std::int64_t r : rows) {
    labels.push_back(file.labels[static_cast<std::size_t>(r)]);
    ids.push_back(file.row_ids[static_cast<std::size_t>(r)]);
  }
  const auto n = static_cast<std::int64_t>(rows.size());
  std::vector<SafeTensor> tensors{safe_tensor<std::int64_t>("row_ids", "I64", {n}, ids)};
  std::vector<std::int64_t> offsets{0};
  if (!file.token_labels.empty()) {
    labels.clear();
    for (const std::int64_t r : rows) {
      for (const std::int32_t label : file.token_labels_of(static_cast<std::size_t>(r))) {
        if (label != kNotAnswered) labels.push_back(label);
      }
      offsets.push_back(static_cast<std::int64_t>(labels.size()));
    }
    tensors.push_back(safe_tensor<std::int64_t>("offsets", "I64", {n + 1}, offsets));
  }
  if (p.labels > 0) {
    const auto units = static_cast<std::int64_t>(labels.size());
    tensors.push_back(safe_tensor<float>("probabilities", "F32", {units, p.labels}, p.probabilities));
    tensors.push_back(safe_tensor<std::int32_t>("labels", "I32", {units}, labels));
  } else if (!file.spans.empty()) {
    for (const std::int64_t r : rows)
      offsets.push_back(offsets.back() + static_cast<std::int64_t>(file.row(static_cast<std::size_t>(r)).size()));
    tensors.push_back(safe_tensor<std::int64_t>("offsets", "I64", {n + 1}, offsets));
    tensors.push_back(safe_tensor<float>("scores", "F32", {offsets.back(), 2}, p.values));
  } else if (!p.values.empty()) {
    tensors.push_back(safe_tensor<float>("values", "F32", {n}, p.values));
  } else {
    tensors.push_back(safe_tensor<double>("losses", "F64", {n}, p.row_losses));
    tensors.push_back(safe_tensor<double>("learnt_tokens", "F64", {n}, p.row_weights));
  }
  return write_safetensors(path, tensors, {{"format", "tailor-predictions"}, {"version", "1"}});
}

}  // namespace

Result<Json> run_job(const Job& job, const EventSink& events, const CancelToken& cancel, SteadyTime process_start) {
  at::set_num_threads(job.threads > 0 ? job.threads : system_info().cores);
  TAILOR_TRY(const at::Device device, open_device(job.device));
  TAILOR_TRY(const TokenFile file, read_rows(job));
  TAILOR_TRY(const BaseWeights weights, BaseWeights::open(job.base));
  TAILOR_CHECK(make_directories(job.out / "checkpoint"));
  TAILOR_TRY(const std::string print, fingerprint(job, weights));

  const auto preparing = [&](std::int64_t rows) {
    events({{"event", "preparing"}, {"rows", rows}, {"of", file.rows()}});
  };
  const KernelsGuard formulation(job.kernels);
  TAILOR_TRY(const auto model, make_model({job, weights, file, preparing, device}));
  std::optional<Profile> profile;
  if (const char* on = std::getenv(kProfileVariable); on != nullptr && std::string_view(on) == "1") profile.emplace();
  Trainer trainer(job, file, *model, print, events, cancel, process_start);
  TAILOR_TRY(const TrainerResult trained, trainer.run());

  const TrainerState& state = trained.state;
  Json result = {{"format", "tailor-tune-result"},
                 {"version", 1},
                 {"method", job.method},
                 {"task", to_string(job.task)},
                 {"base", job.base.filename().string()},
                 {"model", model->describe()},
                 {"settings", settings_json(job)},
                 {"seed", job.seed},
                 {"threads", at::get_num_threads()},
                 {"device", to_string(job.device)},
                 {"stopped", trained.stopped},
                 {"steps", state.step},
                 {"total_steps", trained.total_steps},
                 {"resumed_from_step", trained.resumed_from_step}};
  Json progress = to_json(state);
  for (const char* key :
       {"examples", "tokens", "computed_tokens", "skipped_steps", "rollbacks", "rate_scale", "losses", "evaluations"}) {
    result[key] = progress[key];
  }
  Json excluded = Json::array();
  for (const std::int64_t r : state.excluded) excluded.push_back(file.row_ids[static_cast<std::size_t>(r)]);
  result["excluded_rows"] = excluded;
  result["best"] = state.best < 0 ? Json(nullptr) : to_json(state.evaluations[static_cast<std::size_t>(state.best)]);
  result["metric"] = to_string(job.metric);
  result["trained_parameters"] = model->parameters().element_count();

  Json files = Json::array();
  if (trained.stopped != "paused") {
    release_free_memory();
    TAILOR_TRY(const auto saved, model->save(job.out));
    for (const std::string& name : saved) files.push_back(name);
    for (const auto& [name, part, predictions] : {std::tuple{"validation", TokenPart::kValidation, &trained.validation},
                                                  {"test", TokenPart::kTest, &trained.test}}) {
      const auto rows = rows_of(file, part);
      if (rows.empty()) continue;
      const std::string to = fmt::format("{}_predictions.safetensors", name);
      TAILOR_CHECK(write_predictions(job.out / to, *predictions, file, rows));
      files.push_back(to);
    }
  }
  result["files"] = files;
  result["wall_seconds"] = state.seconds;
  result["cpu_seconds"] = state.cpu_seconds;
  result["evaluation_seconds"] = state.evaluation_seconds;
  result["evaluation_cpu_seconds"] = state.evaluation_cpu_seconds;
  result["process_seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - process_start).count();
  const Usage usage = usage_so_far();
  result["process_cpu_seconds"] = usage.cpu_seconds;
  result["peak_memory_bytes"] = usage.peak_memory_bytes;
  const Estimates& estimates = trained.estimates;
  result["estimates"] = {
      {"peak_memory_bytes", estimates.peak_memory_bytes > 0 ? Json(estimates.peak_memory_bytes) : Json()},
      {"training_seconds", estimates.training_seconds > 0 ? Json(estimates.training_seconds) : Json()}};
  if (profile) result["profile"] = profile->json();
  TAILOR_CHECK(write_json_atomic(job.out / "result.json", result));
  // A finished run needs no checkpoint; a paused one lives by it.
  if (trained.stopped != "paused") TAILOR_CHECK(remove_tree(job.out / "checkpoint"));
  return result;
}

}  // namespace tailor::tune
