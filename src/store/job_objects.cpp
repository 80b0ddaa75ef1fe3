#include <array>
#include <utility>

#include "store/job_store.h"

namespace tailor {
namespace {

constexpr std::array<std::pair<JobStatus, std::string_view>, 7> kWords = {{
    {JobStatus::kValidatingFiles, "validating_files"},
    {JobStatus::kQueued, "queued"},
    {JobStatus::kRunning, "running"},
    {JobStatus::kPaused, "paused"},
    {JobStatus::kSucceeded, "succeeded"},
    {JobStatus::kFailed, "failed"},
    {JobStatus::kCancelled, "cancelled"},
}};

Json field(const Json& object, const char* name, Json otherwise = nullptr) {
  const auto found = object.find(name);
  return found == object.end() ? otherwise : *found;
}

Json optional(const std::optional<std::int64_t>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

std::string_view to_string(JobStatus status) {
  for (const auto& [s, word] : kWords) {
    if (s == status) return word;
  }
  return "";
}

std::optional<JobStatus> job_status(std::string_view word) {
  for (const auto& [status, w] : kWords) {
    if (w == word) return status;
  }
  return std::nullopt;
}

bool is_final(JobStatus status) {
  return status == JobStatus::kSucceeded || status == JobStatus::kFailed || status == JobStatus::kCancelled;
}

bool can_follow(JobStatus from, JobStatus to) {
  if (is_final(from) || from == to) return false;
  switch (to) {
    case JobStatus::kValidatingFiles:
      return false;
    case JobStatus::kQueued:
      return true;
    case JobStatus::kRunning:
      return from == JobStatus::kQueued;
    case JobStatus::kPaused:
      return from == JobStatus::kQueued || from == JobStatus::kRunning;
    case JobStatus::kSucceeded:
      return from == JobStatus::kRunning;
    case JobStatus::kFailed:
    case JobStatus::kCancelled:
      return true;
  }
  return false;
}

Json asked_hyperparameters(const Json& request) {
  const auto inside = [](const Json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_object() ? *found : Json::object();
  };
  Json out = {{"n_epochs", "auto"}, {"batch_size", "auto"}, {"learning_rate_multiplier", "auto"}};
  for (const Json& given : {inside(request, "hyperparameters"),
                            inside(inside(inside(request, "method"), "supervised"), "hyperparameters")}) {
    for (const auto& [name, value] : given.items()) {
      if (value.is_number()) out[name] = value;
    }
  }
  return out;
}

std::uint64_t job_seed(const Job& job) {
  const auto found = job.request.find("seed");
  return found != job.request.end() && found->is_number() ? found->get<std::uint64_t>() : kUsualJobSeed;
}

Json job_object(const Job& job) {
  Json error;
  if (job.error) {
    error = {{"code", job.error->code},
             {"message", job.error->message},
             {"param", job.error->param.empty() ? Json() : Json(job.error->param)}};
  }
  Json hyperparameters = asked_hyperparameters(job.request);
  hyperparameters.update(field(job.result, "hyperparameters", Json::object()));
  Json method = field(job.request, "method", Json{{"type", "supervised"}});
  method["supervised"]["hyperparameters"] = hyperparameters;
  const bool runs = job.status == JobStatus::kRunning;
  Json object = {{"object", "fine_tuning.job"},
                 {"id", job.id},
                 {"model", field(job.request, "model")},
                 {"created_at", job.created_at},
                 {"finished_at", optional(job.finished_at)},
                 {"fine_tuned_model", field(job.result, "fine_tuned_model")},
                 {"organization_id", "tailor"},
                 {"result_files", field(job.result, "result_files", Json::array())},
                 {"status", to_string(job.status)},
                 {"validation_file", field(job.request, "validation_file")},
                 {"training_file", field(job.request, "training_file")},
                 {"hyperparameters", std::move(hyperparameters)},
                 {"trained_tokens", field(job.result, "trained_tokens")},
                 {"error", std::move(error)},
                 {"seed", job_seed(job)},
                 {"estimated_finish", runs ? field(job.result, "estimated_finish") : Json()},
                 {"method", std::move(method)}};
  for (const char* name : {"metadata", "integrations", "suffix"}) {
    if (const auto found = job.request.find(name); found != job.request.end()) object[name] = *found;
  }
  return object;
}

Json job_event_object(const JobEvent& event) {
  return {{"object", "fine_tuning.job.event"},
          {"id", event.id},
          {"created_at", event.created_at},
          {"level", event.level},
          {"message", event.message},
          {"type", event.type},
          {"data", event.data}};
}

Json job_checkpoint_object(const JobCheckpoint& checkpoint) {
  Json metrics = {{"step", checkpoint.step}};
  metrics.update(checkpoint.metrics);
  return {{"object", "fine_tuning.job.checkpoint"}, {"id", checkpoint.id},
          {"created_at", checkpoint.created_at},    {"fine_tuned_model_checkpoint", checkpoint.model},
          {"fine_tuning_job_id", checkpoint.job},   {"metrics", std::move(metrics)},
          {"step_number", checkpoint.step}};
}

}  // namespace tailor
