// Choosing C by what it does on rows that the fit has not seen.
#include <fmt/format.h>

#include <cmath>

#include "learn/logistic_regression.h"

namespace tailor {
namespace {

template <typename M>
struct Part {
  M x;
  std::vector<int> labels;
};

std::vector<int> gather(std::span<const int> labels, std::span<const std::size_t> rows) {
  std::vector<int> out;
  out.reserve(rows.size());
  for (const std::size_t r : rows) out.push_back(labels[r]);
  return out;
}

/// Per C, over all validation rows: what was true, what was predicted, summed log loss.
struct Pooled {
  std::vector<int> truth;
  std::vector<int> predicted;
  double loss = 0;
  int iterations = 0;
};

template <typename M>
Status run_split(const M& x, std::span<const int> labels, int classes, const RowSplit& split,
                 std::span<const double> grid, const LogisticOptions& options, const CancelToken* cancel,
                 const ProgressFn& progress, std::vector<Pooled>& pooled) {
  const M train = gather_rows(x, split.train);
  const M validation = gather_rows(x, split.validation);
  TAILOR_TRY(const auto models,
             fit_logistic_grid(train, gather(labels, split.train), classes, grid, options, cancel, progress));
  const auto truth = gather(labels, split.validation);
  for (std::size_t c = 0; c < grid.size(); ++c) {
    const Matrix p = models[c].probabilities(validation, options.threads);
    Pooled& pool = pooled[c];
    pool.iterations += models[c].iterations;
    for (std::size_t i = 0; i < truth.size(); ++i) {
      const auto row = p.row(i);
      pool.predicted.push_back(static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin()));
      // A class that the training part lacks has probability 0; the bound keeps the curve finite.
      pool.loss -= std::log(std::max(static_cast<double>(row[static_cast<std::size_t>(truth[i])]), 1e-12));
    }
    pool.truth.insert(pool.truth.end(), truth.begin(), truth.end());
  }
  return {};
}

}  // namespace

Result<CSelection> select_c(const Features& x, std::span<const int> labels, int classes,
                            std::span<const RowSplit> splits, std::span<const double> grid, const LabelScore& score,
                            const LogisticOptions& options, const CancelToken* cancel, const ProgressFn& progress) {
  const auto invalid = [](std::string message) { return Error{ErrorCode::kInvalidArgument, std::move(message), ""}; };
  if (grid.empty() || splits.empty()) return invalid("choosing C needs at least one value and one split");
  if (labels.size() != x.rows())
    return invalid(fmt::format("{} rows of features, but {} labels", x.rows(), labels.size()));
  for (const RowSplit& split : splits) {
    if (split.validation.empty()) return invalid("a split has no validation rows");
    for (const auto* part : {&split.train, &split.validation}) {
      for (const std::size_t row : *part) {
        if (row >= x.rows()) return invalid(fmt::format("a split names row {}, but there are {} rows", row, x.rows()));
      }
    }
  }
  std::vector<Pooled> pooled(grid.size());
  for (const RowSplit& split : splits) {
    TAILOR_CHECK(x.dense() ? run_split(*x.dense(), labels, classes, split, grid, options, cancel, progress, pooled)
                           : run_split(*x.sparse(), labels, classes, split, grid, options, cancel, progress, pooled));
  }
  CSelection out;
  std::size_t best = 0;
  for (std::size_t c = 0; c < grid.size(); ++c) {
    const Pooled& pool = pooled[c];
    out.curve.push_back({grid[c], score(pool.truth, pool.predicted), pool.loss / static_cast<double>(pool.truth.size()),
                         pool.iterations});
    const CPoint& here = out.curve[c];
    const CPoint& leader = out.curve[best];
    const double lead = here.score - leader.score;
    if (lead > 1e-12 || (std::abs(lead) <= 1e-12 && here.log_loss < leader.log_loss)) best = c;
  }
  out.best_c = grid[best];
  return out;
}

}  // namespace tailor
