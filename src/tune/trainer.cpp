#include "tune/trainer.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <optional>

#include "core/files.h"
#include "core/json.h"
#include "core/process.h"
#include "tune/checkpoint.h"
#include "tune/job.h"
#include "tune/profile.h"
#include "tune/trainer_state.h"

namespace tailor::tune {
namespace {

constexpr int kBadStepsToRollBack = 3;     // in a row, without a finite loss and gradient
constexpr int kMostRollbacks = 4;          // the rate is then a sixteenth of what was asked for
constexpr std::int64_t kLossWindow = 16;   // steps whose mean loss is compared with the first ones
constexpr double kExplosion = 2;           // that mean over the one at the start: diverged
constexpr std::size_t kPredictRows = 256;  // between two looks at the cancel token

double seconds_between(SteadyTime from, SteadyTime to) {
  return std::chrono::duration<double>(to - from).count();
}

std::int64_t steps_in_total(const Settings& s, std::int64_t steps_per_epoch) {
  if (s.max_steps > 0) return s.max_steps;
  if (s.epochs <= 0) return 0;  // nothing is trained: what is there answers
  return std::max<std::int64_t>(
      1, static_cast<std::int64_t>(std::ceil(s.epochs * static_cast<double>(steps_per_epoch) - 1e-9)));
}

std::int64_t interval(const Job& job, std::int64_t steps_per_epoch) {
  if (job.evaluate_every_steps > 0) return job.evaluate_every_steps;
  if (job.evaluate_every_epochs <= 0) return 0;
  return std::max<std::int64_t>(1, std::llround(job.evaluate_every_epochs * static_cast<double>(steps_per_epoch)));
}

double mean(const std::vector<double>& values, std::size_t first, std::size_t count) {
  double total = 0;
  for (std::size_t i = first; i < first + count; ++i) total += values[i];
  return total / static_cast<double>(count);
}

/// The CPU allocator's failure is a plain c10::Error whose text says so.
bool is_out_of_memory(const c10::Error& error) {
  return std::strstr(error.what_without_backtrace(), "DefaultCPUAllocator") != nullptr;
}

}  // namespace

Trainer::Trainer(const Job& job, const TokenFile& file, TrainableModel& model, std::string fingerprint,
                 EventSink events, const CancelToken& cancel, SteadyTime process_start)
    : job_(job),
      file_(file),
      model_(model),
      fingerprint_(std::move(fingerprint)),
      events_(std::move(events)),
      cancel_(cancel),
      process_start_(process_start),
      validation_rows_(rows_of(file, TokenPart::kValidation)),
      test_rows_(rows_of(file, TokenPart::kTest)),
      order_(rows_of(file, TokenPart::kTrain), job.settings.batch_size, job.seed),
      optimiser_(model.parameters(), job.settings),
      average_(model.parameters(), job.settings.ema_decay),
      total_steps_(steps_in_total(job.settings, order_.steps_per_epoch())),
      evaluation_interval_(interval(job, order_.steps_per_epoch())),
      rate_(job.settings.schedule, total_steps_, job.settings.warmup_ratio) {}

Result<TrainerResult> Trainer::run() {
  TAILOR_CHECK(begin());
  TrainerResult result;
  result.stopped = "finished";
  while (state_.step < total_steps_) {
    if (cancel_.cancelled()) {
      TAILOR_CHECK(checkpoint());
      return Error{ErrorCode::kCancelled,
                   fmt::format("training was interrupted after step {} of {}", state_.step, total_steps_),
                   "run the job with \"resume\": true to go on"};
    }
    if (job_.deadline_seconds > 0 &&
        seconds_between(process_start_, std::chrono::steady_clock::now()) > job_.deadline_seconds) {
      result.stopped = "deadline";
      break;
    }
    if (job_.pause_after_steps > 0 && state_.step >= job_.pause_after_steps) {
      result.stopped = "paused";
      break;
    }
    if (train_step() == StepOutcome::kDiverged) {
      TAILOR_CHECK(roll_back());
      continue;
    }
    estimate_time();
    if (evaluation_interval_ > 0 && (state_.step % evaluation_interval_ == 0 || state_.step == total_steps_)) {
      TAILOR_CHECK(evaluate());
      if (job_.early_stopping_patience > 0 && state_.without_gain >= job_.early_stopping_patience) {
        result.stopped = "early";
        break;
      }
    }
    const bool by_steps = job_.checkpoint_every_steps > 0 && state_.step % job_.checkpoint_every_steps == 0;
    const bool by_time =
        job_.checkpoint_every_seconds > 0 &&
        seconds_between(last_checkpoint_, std::chrono::steady_clock::now()) > job_.checkpoint_every_seconds;
    if (state_.step < total_steps_ && (by_steps || by_time)) TAILOR_CHECK(checkpoint());
  }
  if (result.stopped == "paused") {
    TAILOR_CHECK(checkpoint());
  } else {
    TAILOR_CHECK(finish(result));
  }
  result.state = state_;
  result.total_steps = total_steps_;
  result.resumed_from_step = resumed_from_;
  result.estimates = estimates_;
  return result;
}

Status Trainer::begin() {
  last_time_ = last_checkpoint_ = std::chrono::steady_clock::now();
  last_cpu_ = usage_so_far().cpu_seconds;
  const auto file = checkpoint_file(job_.out);
  std::error_code ignored;
  const bool resume = job_.resume && std::filesystem::exists(file, ignored);
  if (resume) {
    TAILOR_TRY(const Json state, read_checkpoint(file, model_.parameters(), optimiser_, average_, fingerprint_));
    TAILOR_CHECK(restore(state));
    model_.parameters_changed(optimiser_.decay());
    resumed_from_ = state_.step;
  }
  events_({{"event", "start"},
           {"version", 1},
           {"method", job_.method},
           {"epochs", job_.settings.epochs},
           {"batch_size", job_.settings.batch_size},
           {"learning_rate", job_.settings.learning_rate},
           {"train_rows", rows_of(file_, TokenPart::kTrain).size()},
           {"validation_rows", validation_rows_.size()},
           {"test_rows", test_rows_.size()},
           {"total_steps", total_steps_},
           {"steps_per_epoch", order_.steps_per_epoch()},
           {"trained_parameters", model_.parameters().element_count()},
           {"resumed_from_step", resumed_from_}});
  // The first checkpoint is what a roll-back of the first steps goes to, and it finds a full disk early.
  if (!resume) TAILOR_CHECK(checkpoint());
  TAILOR_CHECK(rehearse());
  last_time_ = std::chrono::steady_clock::now();
  last_cpu_ = usage_so_far().cpu_seconds;
  return {};
}

Trainer::StepOutcome Trainer::train_step() {
  const ProfileStep profiled;
  const RowSpan batch = order_.batch(state_.step);
  std::vector<std::int64_t> rows(batch.begin(), batch.end());
  std::erase_if(rows, [&](std::int64_t r) {
    return std::find(state_.excluded.begin(), state_.excluded.end(), r) != state_.excluded.end();
  });

  double loss_sum = 0, weight = 0;
  std::int64_t tokens = 0, computed = 0;
  std::optional<double> likeliest;
  bool finite = true;
  for (bool again = true; again && !rows.empty();) {
    again = false;
    loss_sum = weight = 0;
    tokens = computed = 0;
    likeliest.reset();
    StepContext context{.denominator = model_.weight(rows), .seed = job_.seed, .step = state_.step, .micro_batch = 0};
    if (context.denominator <= 0) break;
    std::vector<std::int64_t> bad;
    for (const RowSpan part : micro_batches(file_, rows, job_.settings.micro_batch_tokens)) {
      const LossSum loss = pass(part, context);
      ++context.micro_batch;
      loss_sum += loss.loss_sum;
      weight += loss.weight;
      tokens += loss.tokens;
      computed += loss.computed_tokens;
      if (loss.likeliest) likeliest = likeliest.value_or(0) + *loss.likeliest;
      bad.insert(bad.end(), loss.bad_rows.begin(), loss.bad_rows.end());
    }
    if (bad.empty()) break;
    model_.parameters().zero_grad();
    finite = 2 * bad.size() < rows.size();  // most rows bad: it is the model and not the data
    if (!finite) break;
    for (const std::int64_t r : bad) {
      warn(fmt::format("row {} gives a loss that is not a number and is left out from now on",
                       file_.row_ids[static_cast<std::size_t>(r)]));
      state_.excluded.push_back(r);
      std::erase(rows, r);
    }
    again = true;
  }

  const double norm = finite && weight > 0 ? optimiser_.gradient_norm() : 0;
  const double rate_factor = rate_.factor(state_.step) * state_.rate_scale;
  const double loss =
      finite && std::isfinite(norm) && weight > 0 ? loss_sum / weight : std::numeric_limits<double>::quiet_NaN();
  const bool good = std::isfinite(loss);
  if (good) {
    const double most = job_.settings.max_grad_norm;
    optimiser_.step(rate_factor, most > 0 && norm > most ? most / (norm + 1e-6) : 1);
    average_.update(optimiser_.decay());
    model_.parameters_changed(optimiser_.decay());
    state_.bad_in_a_row = 0;
  } else {
    model_.parameters().zero_grad();
    ++state_.skipped_steps;
    ++state_.bad_in_a_row;
    warn(fmt::format("step {} is skipped: its loss or gradient is not a finite number", state_.step + 1));
  }
  ++state_.step;
  state_.losses.push_back(loss);
  state_.tokens += tokens;
  state_.computed_tokens += computed;
  state_.examples += static_cast<std::int64_t>(rows.size());
  take_time(true);
  if (good && (state_.step % job_.log_every_steps == 0 || state_.step == total_steps_)) {
    Json event = {{"event", "step"},
                  {"step", state_.step},
                  {"epoch", epoch()},
                  {"loss", loss},
                  {"learning_rate", rate_factor * job_.settings.learning_rate},
                  {"gradient_norm", norm},
                  {"tokens", state_.tokens},
                  {"examples", state_.examples},
                  {"seconds", state_.seconds},
                  {"cpu_seconds", state_.cpu_seconds}};
    if (likeliest) event["token_accuracy"] = *likeliest / weight;
    events_(event);
  }
  if (state_.bad_in_a_row >= kBadStepsToRollBack || exploded()) return StepOutcome::kDiverged;
  return good ? StepOutcome::kDone : StepOutcome::kSkipped;
}

LossSum Trainer::pass(RowSpan part, const StepContext& context) {
  try {
    return model_.forward_backward(part, context);
  } catch (const std::bad_alloc&) {
  } catch (const c10::Error& error) {
    if (!is_out_of_memory(error)) throw;
  }
  throw Exception(what_would_fit(part, context));
}

Error Trainer::what_would_fit(RowSpan part, const StepContext& context) {
  Error error{ErrorCode::kOutOfMemory,
              fmt::format("out of memory while training: a pass of {} rows with {} tokens does not fit", part.size(),
                          tokens_of(part)),
              ""};
  for (RowSpan less = part; less.size() > 1;) {
    less = less.first(less.size() / 2);
    model_.parameters().zero_grad();
    try {
      model_.forward_backward(less, context);
    } catch (const std::bad_alloc&) {
      continue;
    } catch (const c10::Error& failed) {
      if (!is_out_of_memory(failed)) throw;
      continue;
    }
    error.hint = fmt::format(
        "{} of these rows with {} tokens fit: set settings.micro_batch_tokens to {} (now {}), which changes nothing "
        "but the memory; or settings.activation_checkpointing; or take method lora or head, which keep less",
        less.size(), tokens_of(less), tokens_of(less) - tokens_of(less) / 8, job_.settings.micro_batch_tokens);
    return error;
  }
  error.hint =
      "not one row of it fits: cut texts at fewer tokens, take method lora or head, of a decoder qlora, or close other "
      "programs";
  return error;
}

bool Trainer::exploded() const {
  const auto n = static_cast<std::int64_t>(state_.losses.size());
  if (n < 2 * kLossWindow) return false;
  const double chance = file_.n_labels > 1 ? std::log(static_cast<double>(file_.n_labels)) : 0;
  const double start = std::max(mean(state_.losses, 0, kLossWindow), chance);
  return mean(state_.losses, static_cast<std::size_t>(n - kLossWindow), kLossWindow) >
         kExplosion * start;  // false for NaN
}

Status Trainer::roll_back() {
  const int rollbacks = state_.rollbacks + 1;
  const double rate_scale = state_.rate_scale / 2;
  const std::int64_t skipped = state_.skipped_steps;
  const TrainerState before = state_;
  const std::int64_t at = state_.step;
  if (rollbacks > kMostRollbacks) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("training diverged at step {}, also at {:g} times the learning rate of {:g}", at,
                             state_.rate_scale, job_.settings.learning_rate),
                 "set a lower settings.learning_rate"};
  }
  TAILOR_TRY(const Json state,
             read_checkpoint(checkpoint_file(job_.out), model_.parameters(), optimiser_, average_, fingerprint_));
  TAILOR_CHECK(restore(state));
  model_.parameters().zero_grad();
  model_.parameters_changed(optimiser_.decay());
  state_.rollbacks = rollbacks;
  state_.rate_scale = rate_scale;
  state_.skipped_steps = skipped;
  state_.bad_in_a_row = 0;
  state_.seconds = before.seconds;
  state_.cpu_seconds = before.cpu_seconds;
  state_.evaluation_seconds = before.evaluation_seconds;
  state_.evaluation_cpu_seconds = before.evaluation_cpu_seconds;
  warn(fmt::format("training diverged at step {}: going back to step {} with {:g} times the learning rate", at,
                   state_.step, rate_scale));
  return checkpoint();
}

Result<Predictions> Trainer::predict(RowSpan rows) {
  Predictions all;
  for (std::size_t first = 0; first < rows.size(); first += kPredictRows) {
    if (cancel_.cancelled())
      return Error{ErrorCode::kCancelled, "the evaluation was interrupted",
                   "run the job with \"resume\": true to go on"};
    const Predictions part = model_.predict(rows.subspan(first, std::min(kPredictRows, rows.size() - first)));
    all.loss_sum += part.loss_sum;
    all.weight += part.weight;
    all.labels = part.labels;
    all.probabilities.insert(all.probabilities.end(), part.probabilities.begin(), part.probabilities.end());
    all.values.insert(all.values.end(), part.values.begin(), part.values.end());
    if (part.likeliest) all.likeliest = all.likeliest.value_or(0) + *part.likeliest;
    all.row_losses.insert(all.row_losses.end(), part.row_losses.begin(), part.row_losses.end());
    all.row_weights.insert(all.row_weights.end(), part.row_weights.begin(), part.row_weights.end());
  }
  return all;
}

void Trainer::swap_average(bool in) {
  if (!average_.on() || average_.updates() == 0) return;
  average_.swap();
  model_.parameters_changed(in ? average_.untrained() : optimiser_.decay());
}

Status Trainer::evaluate() {
  if (validation_rows_.empty()) return {};
  swap_average(true);
  const Status done = evaluate_values();
  swap_average(false);
  return done;
}

Status Trainer::evaluate_values() {
  auto predictions = predict(validation_rows_);
  if (!predictions) {
    // The evaluation is repeated after resuming: the checkpoint is of the step before it.
    if (predictions.error().code == ErrorCode::kCancelled) {
      swap_average(false);
      const Status written = checkpoint();
      swap_average(true);
      TAILOR_CHECK(written);
    }
    return predictions.error();
  }
  const Scores scores = score(*predictions, file_, validation_rows_);
  state_.evaluations.push_back({state_.step, scores});
  const bool better = [&] {
    if (state_.best < 0) return true;
    const Scores& best = state_.evaluations[static_cast<std::size_t>(state_.best)].scores;
    const double gain = scores.value(job_.metric) - best.value(job_.metric);
    return gain > 0 || (gain == 0 && scores.loss < best.loss);
  }();
  take_time(false);
  Json event = {{"event", "evaluation"}, {"step", state_.step}, {"epoch", epoch()}};
  event.update(to_json(state_.evaluations.back()));
  event["seconds"] = state_.evaluation_seconds;
  event["cpu_seconds"] = state_.evaluation_cpu_seconds;
  events_(event);
  if (!better) {
    ++state_.without_gain;
    return {};
  }
  state_.best = static_cast<std::int64_t>(state_.evaluations.size()) - 1;
  state_.without_gain = 0;
  best_predictions_ = std::move(*predictions);
  best_predictions_step_ = state_.step;
  const double decay = average_.updates() > 0 ? average_.untrained() : optimiser_.decay();
  TAILOR_CHECK(write_values(best_file(job_.out, state_.step), model_.parameters(), decay));
  events_({{"event", "best"},
           {"step", state_.step},
           {"metric", to_string(job_.metric)},
           {"value", scores.value(job_.metric)}});
  return {};
}

Status Trainer::finish(TrainerResult& result) {
  const bool fresh = !state_.evaluations.empty() && state_.evaluations.back().step == state_.step;
  if (!fresh && state_.step > 0) TAILOR_CHECK(evaluate());
  const std::int64_t best_step = state_.best < 0 ? -1 : state_.evaluations[static_cast<std::size_t>(state_.best)].step;
  if (average_.updates() > 0) swap_average(true);  // for good
  if (best_step >= 0 && best_step != state_.step) {
    TAILOR_TRY(const double decay, read_values(best_file(job_.out, best_step), model_.parameters()));
    model_.parameters_changed(decay);
  }
  if (best_step >= 0 && best_step == best_predictions_step_) {
    result.validation = std::move(best_predictions_);
  } else {
    TAILOR_TRY(result.validation, predict(validation_rows_));
  }
  TAILOR_TRY(result.test, predict(test_rows_));
  take_time(false);
  return {};
}

Status Trainer::checkpoint() {
  take_time(true);
  TAILOR_CHECK(write_checkpoint(checkpoint_file(job_.out), model_.parameters(), optimiser_, average_, to_json(state_),
                                fingerprint_));
  // Best values that this checkpoint does not name are stale now.
  const std::int64_t best_step = state_.best < 0 ? -1 : state_.evaluations[static_cast<std::size_t>(state_.best)].step;
  TAILOR_CHECK(remove_other_best_files(job_.out, best_step));
  last_checkpoint_ = std::chrono::steady_clock::now();
  events_({{"event", "checkpoint"}, {"step", state_.step}});
  return {};
}

Status Trainer::restore(const Json& state) {
  TAILOR_TRY(state_, state_from_json(state, checkpoint_file(job_.out).string()));
  return {};
}

void Trainer::warn(const std::string& message) const {
  events_({{"event", "warning"}, {"step", state_.step}, {"message", message}});
}

void Trainer::take_time(bool training) {
  const auto now = std::chrono::steady_clock::now();
  const double cpu = usage_so_far().cpu_seconds;
  (training ? state_.seconds : state_.evaluation_seconds) += seconds_between(last_time_, now);
  (training ? state_.cpu_seconds : state_.evaluation_cpu_seconds) += cpu - last_cpu_;
  last_time_ = now;
  last_cpu_ = cpu;
}

}  // namespace tailor::tune
