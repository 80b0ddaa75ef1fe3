#include "serve/fine_tuning_notes.h"

#include <fmt/format.h>

#include <utility>

#include "serve/api_context.h"
#include "serve/fine_tuning.h"
#include "serve/fine_tuning_figures.h"

namespace tailor {

bool may_pass(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kIo;
}

void JobNotes::add(JobEvent event) {
  event.created_at = unix_seconds();
  events_.push_back(std::move(event));
  try_to_write();
}

void JobNotes::set(const Json& fields) {
  fields_.update(fields);
  try_to_write();
}

void JobNotes::try_to_write() {
  const Status written = write();
  if (!written.has_value() && !std::exchange(warned_, true))
    log_.warning(fmt::format("{}: what it tells waits for the store: {}", id_, to_string(written.error())));
  else if (written.has_value())
    warned_ = false;
}

Status JobNotes::write() {
  for (; !events_.empty(); events_.pop_front()) {
    const auto written = jobs_.add_event(id_, events_.front());
    if (!written.has_value() && may_pass(written.error())) return written.error();
    if (!written.has_value()) log_.debug(fmt::format("{}: not told: {}", id_, to_string(written.error())));
  }
  if (fields_.empty()) return {};
  const Status written = jobs_.update_result(id_, fields_);
  if (!written.has_value() && may_pass(written.error())) return written;
  fields_ = Json::object();
  return {};
}

FineTuneProgress progress_into(JobNotes& notes) {
  FineTuneProgress progress;
  progress.say = [&notes](const std::string& level, const std::string& message) {
    notes.add({.level = level, .message = without_directories(message).substr(0, 8000)});
  };
  progress.begun = [&notes](const Json& hyperparameters) { notes.set({{"hyperparameters", hyperparameters}}); };
  progress.step = [&notes](std::int64_t step, const Json& metrics) {
    Json data = with_other_names(metrics);
    data["step"] = step;
    const bool evaluated = metrics.contains("valid_loss");
    const std::string message =
        evaluated ? fmt::format("Step {}: validation loss={:.4f}", step, metrics["valid_loss"].get<double>())
                  : fmt::format("Step {}: training loss={:.4f}", step, metrics.value("train_loss", 0.0));
    notes.add({.message = message, .type = "metrics", .data = std::move(data)});
  };
  progress.estimate = [&notes](double left) {
    notes.set({{"estimated_finish", unix_seconds() + static_cast<std::int64_t>(left)}});
  };
  return progress;
}

}  // namespace tailor
