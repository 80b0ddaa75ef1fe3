#pragma once
/// Multinomial logistic regression with an L2 penalty; the linear head on frozen features and on TF-IDF.
///
///   minimise  sum_i w_i * -log softmax(W x_i + b)[y_i]  +  1/(2 C) ||W||^2,   b not penalised
///
/// which is scikit-learn's LogisticRegression. Two classes use one weight vector and the sigmoid, as there (the penalty
/// of two free vectors would be a different problem). Classes without a training row keep probability 0.
///
/// Method: L-BFGS (Nocedal and Wright, algorithm 7.4) whose starting matrix is the inverse of s X^T X + I/C, with s the
/// mean of p (1 - p): embeddings are far from round, and this takes several times fewer steps than a multiple of the
/// identity. Sparse or very wide features use the diagonal of that matrix. Logits are linear along the search line, so
/// a step costs two matrix products however many points the line search tries. Products are f32, sums and steps f64.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "core/cancel.h"
#include "core/matrix.h"
#include "core/progress.h"
#include "core/result.h"
#include "learn/sparse.h"

namespace tailor {

struct LogisticOptions {
  double c = 1.0;                // > 0; inverse strength of the penalty
  bool balanced = false;         // weigh class k by rows / (classes * rows of k), as class_weight="balanced"
  double tolerance = 1e-6;       // stop when max |gradient| / (sum of row weights) is below; scikit-learn's tol
  double loss_tolerance = 1e-6;  // stop when ten steps together lower the objective by less than this share; 0: never
  int max_iterations = 1000;     // >= 1; reaching it is not an error, see LogisticModel::converged
  int history = 10;              // >= 1; pairs kept; memory 8 * parameters * history bytes, capped at 512 MB
  int threads = 1;               // the result does not depend on it
};

/// Safe to use from several threads once made.
struct LogisticModel {
  int classes = 0;
  std::size_t features = 0;
  Matrix weights;                 // [outputs, features]; outputs = classes, or 1 where only two classes have rows
  std::vector<float> intercepts;  // [outputs]
  std::vector<int> output_class;  // class of each output; for the binary case {negative class, positive class}
  double c = 0;
  int iterations = 0;
  bool converged = false;

  /// [rows, classes]; rows sum to 1. A wrong number of columns throws Exception{kInvalidArgument}.
  Matrix probabilities(const Features& x, int threads = 1) const;
  std::vector<int> predict(const Features& x, int threads = 1) const;

  /// One safetensors file: weight [outputs, features], bias [outputs], and the rest as metadata.
  Status save(const std::filesystem::path& file) const;
  static Result<LogisticModel> load(const std::filesystem::path& file);
};

/// labels [rows] in [0, classes); row_weights empty or [rows], >= 0. `start` (same shapes) is where the search begins.
/// Errors: no rows, fewer than two classes with rows, C not positive, a feature that is not finite (row named);
/// kCancelled when `cancel` fires. Progress: done = iterations, loss = mean objective.
Result<LogisticModel> fit_logistic(const Features& x, std::span<const int> labels, int classes,
                                   const LogisticOptions& options = {}, std::span<const float> row_weights = {},
                                   const LogisticModel* start = nullptr, const CancelToken* cancel = nullptr,
                                   const ProgressFn& progress = {});

/// Models for every C in `grid`, in its order; each search starts from the neighbour before it (ascending C).
Result<std::vector<LogisticModel>> fit_logistic_grid(const Features& x, std::span<const int> labels, int classes,
                                                     std::span<const double> grid, const LogisticOptions& options = {},
                                                     const CancelToken* cancel = nullptr,
                                                     const ProgressFn& progress = {});

/// One way to divide rows; several are folds whose validation rows are scored together.
struct RowSplit {
  std::vector<std::size_t> train;
  std::vector<std::size_t> validation;
};

/// Larger is better; truth and predictions are class numbers.
using LabelScore = std::function<double(std::span<const int> truth, std::span<const int> predicted)>;

struct CPoint {
  double c = 0;
  double score = 0;
  double log_loss = 0;
  int iterations = 0;
};

struct CSelection {
  double best_c = 0;
  std::vector<CPoint> curve;  // in the order of the grid
};

/// Scores every C on the validation rows (pooled over the splits). Best: highest score; equal within 1e-12: lower log
/// loss.
Result<CSelection> select_c(const Features& x, std::span<const int> labels, int classes,
                            std::span<const RowSplit> splits, std::span<const double> grid, const LabelScore& score,
                            const LogisticOptions& options = {}, const CancelToken* cancel = nullptr,
                            const ProgressFn& progress = {});

}  // namespace tailor
