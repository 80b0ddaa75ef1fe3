#pragma once
/// The training loop: batches, loss and gradient, clipping, AdamW, evaluation, best values, checkpoints, divergence. It
/// knows models only as TrainableModel.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/result.h"
#include "core/token_file.h"
#include "tune/adamw.h"
#include "tune/data_order.h"
#include "tune/events.h"
#include "tune/metric.h"
#include "tune/schedule.h"
#include "tune/settings.h"
#include "tune/trainable_model.h"
#include "tune/weight_average.h"

namespace tailor::tune {

/// What a checkpoint keeps of the loop.
struct TrainerState {
  std::int64_t step = 0;       // optimiser steps tried (skipped ones count)
  std::vector<double> losses;  // mean loss of each step; NaN where the step was skipped
  struct Evaluation {
    std::int64_t step = 0;
    Scores scores;
  };
  std::vector<Evaluation> evaluations;
  std::int64_t best = -1;              // index into evaluations
  int without_gain = 0;                // evaluations since the best
  std::vector<std::int64_t> excluded;  // rows of the file whose own loss was not finite
  std::int64_t skipped_steps = 0;
  int bad_in_a_row = 0;
  int rollbacks = 0;
  double rate_scale = 1;  // halved by every roll-back
  std::int64_t tokens = 0, computed_tokens = 0, examples = 0;
  double seconds = 0, cpu_seconds = 0;                        // of training, earlier runs included
  double evaluation_seconds = 0, evaluation_cpu_seconds = 0;  // of predicting validation and test rows
};

/// What was said in advance; 0: nothing was.
struct Estimates {
  std::uint64_t peak_memory_bytes = 0;  // of the process: after a rehearsal of the largest pass
  double training_seconds = 0;          // of the whole training, evaluations left out: after ten steps
};

struct TrainerResult {
  TrainerState state;
  std::int64_t total_steps = 0, resumed_from_step = 0;
  std::string stopped;           // "finished", "early", "deadline", "paused"
  Predictions validation, test;  // by the values that were kept; rows in the file's order
  Estimates estimates;
};

class Trainer {
 public:
  /// Borrows all. `fingerprint` must be equal for a checkpoint to be taken up.
  Trainer(const Job& job, const TokenFile& file, TrainableModel& model, std::string fingerprint, EventSink events,
          const CancelToken& cancel, SteadyTime process_start);

  /// Trains to the end; the model then holds the best values (by the metric on the validation rows; the last ones where
  /// there are none), of the moving average where settings.ema_decay asks for it. Errors: kCancelled after a
  /// checkpoint; kIo when a checkpoint cannot be written (the one before stays whole); kInvalidArgument when training
  /// diverges for good. Throws Exception{kOutOfMemory} where a pass does not fit, with the largest part of it that
  /// does.
  Result<TrainerResult> run();

 private:
  enum class StepOutcome { kDone, kSkipped, kDiverged };

  Status begin();
  /// The largest passes of the run and saving, once, before the first step: memory or disk that will not do show now,
  /// not hours later, and what the run needs is known. Changes nothing.
  Status rehearse();
  Status rehearse_saving();
  std::vector<std::vector<std::int64_t>> largest_passes();  // the largest first
  std::vector<std::int64_t> longest_predicted() const;      // rows that fill a pass
  /// After a first pass over the rows, which took so many seconds of the processors.
  void compare_visits(RowSpan rows, const StepContext& context, double seconds);
  void estimate_time();               // after a step
  double cost_of(std::int64_t step);  // in tokens of a first visit
  std::int64_t tokens_of(RowSpan rows) const;
  StepOutcome train_step();
  LossSum pass(RowSpan part, const StepContext& context);          // throws Exception{kOutOfMemory}
  Error what_would_fit(RowSpan part, const StepContext& context);  // after a pass for which the memory did not do
  bool exploded() const;
  Status roll_back();
  Status evaluate();
  Status evaluate_values();  // those that the model holds
  Status finish(TrainerResult& result);
  Result<Predictions> predict(RowSpan rows);
  void swap_average(bool in);  // where there is one: the model holds it, or the values that are trained
  Status checkpoint();
  Status restore(const nlohmann::ordered_json& state);
  void warn(const std::string& message) const;
  void take_time(bool training);
  double epoch() const { return static_cast<double>(state_.step) / static_cast<double>(order_.steps_per_epoch()); }

  const Job& job_;
  const TokenFile& file_;
  TrainableModel& model_;
  const std::string fingerprint_;
  const EventSink events_;
  const CancelToken& cancel_;
  const SteadyTime process_start_;
  const std::vector<std::int64_t> validation_rows_, test_rows_;
  DataOrder order_;
  AdamW optimiser_;
  WeightAverage average_;
  std::int64_t total_steps_, evaluation_interval_;
  LearningRate rate_;
  TrainerState state_;
  std::int64_t resumed_from_ = 0;
  Predictions best_predictions_;             // of the validation rows at best_predictions_step_
  std::int64_t best_predictions_step_ = -1;  // -1: not made by this process
  SteadyTime last_time_, last_checkpoint_;
  double last_cpu_ = 0;
  Estimates estimates_;
  double probe_seconds_ = 0;  // when the steps began that the time is estimated by
  double later_visit_ = 1;    // time of a row's second visit over that of its first
  double epoch_seconds_ = 0;  // that an epoch begins with, beside its steps
};

}  // namespace tailor::tune
