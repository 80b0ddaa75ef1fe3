#include <fmt/format.h>

#include "fit/trial.h"

namespace tailor {
namespace {

Interval interval_from(const Json& json) {
  return {json.at("value"), json.at("low"), json.at("high")};
}

}  // namespace

const char* to_string(TrialStatus status) {
  switch (status) {
    case TrialStatus::kOk:
      return "ok";
    case TrialStatus::kFailed:
      return "failed";
    case TrialStatus::kSkipped:
      return "skipped";
  }
  return "failed";
}

Json to_json(const TrialRecord& r) {
  Json json{{"id", r.id},
            {"method", r.method},
            {"base_model", r.base_model},
            {"status", to_string(r.status)},
            {"reason", r.reason},
            {"settings", r.settings},
            {"default_only", r.default_only},
            {"search", r.search},
            {"plan", r.plan},
            {"notes", r.notes},
            {"estimated_seconds", r.estimated_seconds},
            {"estimated_memory_bytes", r.estimated_memory_bytes},
            {"n_validation", r.n_validation},
            {"validation_score", r.validation_score},
            {"n_scored", r.n_scored}};
  if (r.n_scored > 0) {
    json["metrics"] = to_json(r.scores);
    json["test_score"] = r.test_score;
    json["vs_best"] = Json{{"p_value", r.p_value}, {"verdict", r.verdict}};
  } else {
    json["metrics"] = nullptr;
    json["vs_best"] = nullptr;
  }
  json["latency_ms"] =
      r.latency_p95_ms > 0 ? Json{{"p50", r.latency_p50_ms}, {"p95", r.latency_p95_ms}} : Json(nullptr);
  json["train_seconds"] = r.train_seconds;
  json["cpu_seconds"] = r.cpu_seconds;
  json["peak_memory_bytes"] = r.peak_memory_bytes;
  json["trained_bytes"] = r.trained_bytes;
  json["package_bytes"] = r.package_bytes;
  json["score_seconds"] = r.score_seconds;
  json["score_seconds_per_row"] = r.score_seconds_per_row;
  json["serve_memory_bytes"] = r.serve_memory_bytes;
  json["cost_per_thousand"] = r.cost_per_thousand;
  json["fitted_on"] = r.fitted_on;
  if (r.before_refit) json["before_refit"] = *r.before_refit;
  return json;
}

Result<TrialRecord> trial_record_from_json(const Json& json) {
  TrialRecord r;
  try {
    r.id = json.at("id");
    r.method = json.at("method");
    r.base_model = json.at("base_model");
    const std::string status = json.at("status");
    r.status = status == "ok" ? TrialStatus::kOk : status == "failed" ? TrialStatus::kFailed : TrialStatus::kSkipped;
    r.reason = json.at("reason");
    r.settings = json.at("settings");
    r.default_only = json.at("default_only");
    r.search = json.at("search");
    r.plan = json.at("plan");
    r.notes = json.at("notes").get<std::vector<std::string>>();
    r.estimated_seconds = json.at("estimated_seconds");
    r.estimated_memory_bytes = json.at("estimated_memory_bytes");
    r.n_validation = json.at("n_validation");
    r.validation_score = json.at("validation_score");
    r.n_scored = json.at("n_scored");
    if (r.n_scored > 0) {
      const Json& m = json.at("metrics");
      r.scores.accuracy = interval_from(m.at("accuracy"));
      r.scores.macro_precision = interval_from(m.at("macro_precision"));
      r.scores.macro_recall = interval_from(m.at("macro_recall"));
      r.scores.macro_f1 = interval_from(m.at("macro_f1"));
      r.test_score = json.at("test_score");
      r.p_value = json.at("vs_best").at("p_value");
      r.verdict = json.at("vs_best").at("verdict");
    }
    if (!json.at("latency_ms").is_null()) {
      r.latency_p50_ms = json.at("latency_ms").at("p50");
      r.latency_p95_ms = json.at("latency_ms").at("p95");
    }
    r.train_seconds = json.at("train_seconds");
    r.cpu_seconds = json.at("cpu_seconds");
    r.peak_memory_bytes = json.at("peak_memory_bytes");
    r.trained_bytes = json.at("trained_bytes");
    r.package_bytes = json.at("package_bytes");
    r.score_seconds = json.at("score_seconds");
    r.score_seconds_per_row = json.at("score_seconds_per_row");
    r.serve_memory_bytes = json.at("serve_memory_bytes");
    r.cost_per_thousand = json.at("cost_per_thousand");
    r.fitted_on = json.at("fitted_on");
    if (json.contains("before_refit")) r.before_refit = json.at("before_refit");
  } catch (const Json::exception& error) {
    return Error{ErrorCode::kCorruptData, std::string("a trial's record: ") + error.what(),
                 "the run directory was changed; start a new run"};
  }
  return r;
}

Json to_json(const TrialJob& job) {
  Json json{{"run", job.run.string()},
            {"id", job.id},
            {"method", job.method},
            {"model", job.model},
            {"phase", job.phase},
            {"seconds", job.seconds},
            {"speed", to_json(job.speed)},
            {"score_rows", job.score_rows},
            {"latency_requests", job.latency_requests},
            {"threads", job.threads}};
  if (job.plan) json["plan"] = *job.plan;
  if (job.settings) json["settings"] = *job.settings;
  return json;
}

Result<TrialJob> trial_job_from_json(const Json& json) {
  TrialJob job;
  try {
    job.run = json.at("run").get<std::string>();
    job.id = json.at("id");
    job.method = json.at("method");
    job.model = json.at("model");
    job.phase = json.at("phase");
    job.seconds = json.at("seconds");
    job.speed = machine_speed_from_json(json.at("speed"));
    job.score_rows = json.at("score_rows").get<std::vector<std::uint32_t>>();
    job.latency_requests = json.at("latency_requests");
    job.threads = json.at("threads");
    if (json.contains("plan")) job.plan = json.at("plan");
    if (json.contains("settings")) job.settings = json.at("settings");
  } catch (const Json::exception& error) {
    return Error{ErrorCode::kCorruptData, std::string("a trial's job: ") + error.what(), ""};
  }
  return job;
}

}  // namespace tailor
