#pragma once
/// What the methods share: validation splits, cached embeddings, and base models made ready.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "eval/metric.h"
#include "fit/candidates.h"
#include "fit/ready_model.h"
#include "infer/embedder.h"
#include "learn/logistic_regression.h"

namespace tailor {

/// The rows a trial may look at, as positions 0 … n-1: first the rows to fit on, then the validation rows.
struct TrialRows {
  std::vector<std::uint32_t> ids;
  std::vector<std::string> texts;
  std::vector<int> labels;
  std::vector<std::size_t> fit;  // positions to fit the packaged artefact on
  std::vector<RowSplit> splits;  // for choices: one (holdout), k (k-fold), none (refit)

  std::vector<int> labels_at(const std::vector<std::size_t>& positions) const;
};
/// `max_folds` limits the folds that are used (networks are dear); 0: all.
TrialRows trial_rows(const TrialContext& context, int max_folds = 0);

/// Predictions on the rows of all splits' validation parts, pooled in the order of the splits.
Predictions pooled_predictions(const TrialRows& rows, Matrix pooled);

/// The trial's base model, ready to run.
Result<ReadyModel> ready_model(const TrialContext& context, ModelUse use = ModelUse::kServing);

/// Final runs of a network's training: with k-fold one to be measured on a fold and one on all rows, else one.
double final_runs(const TrialContext& context);

/// The sizes of a trial that depend on time: those given with the context (replay, refit), else those that an
/// interrupted trial left in its directory, else `made`, which is kept there.
Result<Json> begin_plan(const TrialContext& context, const std::function<Json()>& made);
/// Keeps what was added to the plan, so that the trial goes on in the same way after an interruption.
Status keep_plan(const TrialContext& context, const Json& plan);
/// The plan stands in the trial's record from here on.
Status end_plan(const TrialContext& context);

/// Embeddings of `rows`, from the run's cache where another trial has made them. `seconds` is what they took when they
/// were made, so that every trial that uses them is charged as if it were alone. The cache keeps them as pooled; they
/// are divided by their lengths when they are asked for so.
struct EmbeddingKind {
  Pooling pooling = Pooling::kModel;
  bool normalise = true;
};
struct CachedEmbeddings {
  Matrix matrix;       // [rows, dim]
  double seconds = 0;  // spent now
  double shared = 0;   // spent by another trial
};
Result<CachedEmbeddings> cached_embeddings(const TrialContext& context, const ReadyModel& model, const TrialRows& rows,
                                           const EmbeddingKind& kind = {});
Result<Embedder> load_embedder(const std::filesystem::path& gguf, int threads);

/// Logistic regression over a grid of C: scored on the splits, then fitted on `rows.fit`. With `fixed_c` > 0 no search.
struct LinearFit {
  LogisticModel model;
  double c = 0;
  std::vector<SearchPoint> search;
  Predictions validation;
};
Result<LinearFit> fit_linear(const TrialContext& context, const TrialRows& rows, const Features& features,
                             const std::vector<double>& grid, double fixed_c, const Json& base_settings);
Features take_rows(const Features& features, const std::vector<std::size_t>& positions, Matrix& dense,
                   CsrMatrix& sparse);

/// The user's metric for this run's labels; options were checked when the run began.
Metric metric_of(const TrialContext& context);
int classes_of(const TrialContext& context);

}  // namespace tailor
