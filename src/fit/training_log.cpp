#include "fit/training_log.h"

#include <algorithm>
#include <cmath>

#include "core/files.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

std::string kind_of(const Json& event) {
  return event.is_object() && event.contains("event") && event["event"].is_string() ? event["event"].get<std::string>()
                                                                                    : std::string();
}
std::int64_t step_of(const Json& event) {
  return event.contains("step") && event["step"].is_number() ? event["step"].get<std::int64_t>() : -1;
}

/// Keeps lines up to a step. `start`, `paused` and the like have none and stay.
Status take_back(const fs::path& file, std::int64_t last_step) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return {};
  TAILOR_TRY(const std::vector<Json> lines, read_jsonl(file, /*drop_partial_last=*/true));
  std::string kept;
  for (const Json& line : lines) {
    if (step_of(line) <= last_step) kept += dump_json(line) + "\n";
  }
  return write_file_atomic(file, kept);
}

}  // namespace

TrainingLog::TrainingLog(fs::path run, bool labels, std::function<double()> clock)
    : run_(std::move(run)), labels_(labels), clock_(std::move(clock)) {}

Status TrainingLog::start(const Json& event, double now) {
  const auto from = event.value("resumed_from_step", std::int64_t{0});
  TAILOR_CHECK(take_back(run_ / kTrainLogFile, from));
  last_step_.clear();
  if (from > 0) {
    for (const Json& line : read_training_log(run_)) {
      std::int64_t& last = last_step_[kind_of(line)];
      last = std::max(last, step_of(line));
    }
  }
  tokens_ = seconds_ = -1;
  TAILOR_TRY(EventFileWriter writer, EventFileWriter::open(run_ / kTensorboardDirectory, from, now));
  writer_.emplace(std::move(writer));
  return {};
}

Status TrainingLog::add(const Json& event) {
  const std::string kind = kind_of(event);
  if (kind.empty()) return {};
  const double now = clock_();
  if (kind == "start") TAILOR_CHECK(start(event, now));
  if (!writer_) return {};
  const std::int64_t step = step_of(event);
  if (step >= 0 && (kind == "step" || kind == "evaluation" || kind == "best")) {
    const auto last = last_step_.try_emplace(kind, -1).first;
    if (kind != "step" && step == last->second) return {};  // repeated at the end of a resumed training
    if (kind == "step" && step <= last->second) {           // a roll-back: what came after was left behind
      TAILOR_CHECK(writer_->restart(now, step));
      for (auto& [other, at] : last_step_) at = std::min(at, step - 1);
      tokens_ = seconds_ = -1;
    }
    last->second = step;
    if (kind != "best") TAILOR_CHECK(to_tensorboard(event, now));
  }
  Json line{{"time", now}};
  line.update(event);
  return append_line(run_ / kTrainLogFile, dump_json(line));
}

Status TrainingLog::to_tensorboard(const Json& event, double now) {
  std::vector<Scalar> scalars;
  const auto add = [&](std::string_view tag, const char* key) {
    if (!event.contains(key) || !event[key].is_number()) return;
    if (const double value = event[key].get<double>(); std::isfinite(value)) scalars.push_back({tag, value});
  };
  if (kind_of(event) == "step") {  // the names that Transformers gives them
    add("train/loss", "loss");
    add("train/learning_rate", "learning_rate");
    add("train/grad_norm", "gradient_norm");
    const double tokens = event.value("tokens", 0.0), seconds = event.value("seconds", 0.0);
    if (seconds_ >= 0 && seconds > seconds_)
      scalars.push_back({"train/tokens_per_second", (tokens - tokens_) / (seconds - seconds_)});
    tokens_ = tokens;
    seconds_ = seconds;
  } else {
    add("eval/loss", "loss");
    if (labels_) {
      add("eval/accuracy", "accuracy");
      add("eval/macro_f1", "macro_f1");
    }
  }
  return writer_->scalars(now, step_of(event), scalars);
}

std::vector<Json> read_training_log(const fs::path& run) {
  std::error_code ignored;
  if (!fs::exists(run / kTrainLogFile, ignored)) return {};
  auto lines = read_jsonl(run / kTrainLogFile, /*drop_partial_last=*/true);
  if (!lines) return {};
  std::vector<Json> out;
  for (Json& line : *lines) {
    if (kind_of(line) == "step") {
      const std::int64_t step = step_of(line);
      std::erase_if(out, [&](const Json& before) {
        return (kind_of(before) == "step" && step_of(before) >= step) ||
               (kind_of(before) == "evaluation" && step_of(before) >= step);
      });
    }
    out.push_back(std::move(line));
  }
  return out;
}

}  // namespace tailor
