#pragma once
/// Exact nearest neighbours by cosine similarity, and the classifier that votes with them.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "core/matrix.h"
#include "core/result.h"

namespace tailor {

/// For query q, entries q * k … q * k + k - 1, most similar first; equal similarities: lower row first.
struct TopK {
  std::size_t queries = 0;
  std::size_t k = 0;                // at most what was asked and what there is
  std::vector<std::uint32_t> rows;  // of the index
  std::vector<float> similarities;  // cosine, -1 … 1
};

/// Rows scaled to length 1 (a zero row stays zero and is similar to nothing). Immutable; safe from several threads.
class NeighbourIndex {
 public:
  /// Errors: no rows, or a value that is not finite (row named). Copies the embeddings.
  static Result<NeighbourIndex> make(const Matrix& embeddings);

  /// The k nearest of every query row, by blocked matrix products; the last few candidates are compared by sums in a
  /// fixed order, so that one query alone and one in a batch give the same answer. `leave_out` is empty or names, per
  /// query, an index row to pass over (-1: none). Throws Exception{kInvalidArgument} for a wrong width or k = 0.
  TopK top_k(const Matrix& queries, std::size_t k, int threads = 1, std::span<const std::int64_t> leave_out = {}) const;
  /// The neighbours of the indexed rows themselves, each without itself.
  TopK top_k_of_own_rows(std::size_t k, int threads = 1) const;

  std::size_t size() const { return rows_.rows; }
  std::size_t width() const { return rows_.cols; }
  const Matrix& rows() const { return rows_; }

 private:
  friend struct NeighbourModel;  // loads rows that are scaled already
  explicit NeighbourIndex(Matrix rows) : rows_(std::move(rows)) {}
  Matrix rows_;
};

struct NeighbourOptions {
  std::size_t k = 1;  // >= 1; more than there are rows: all
  double temperature =
      0;  // 0: every neighbour has one vote; > 0: votes exp(similarity / temperature), often 0.02 … 0.2
  double smoothing = 0;  // in [0, 1): share of probability spread evenly over all classes
};

/// [queries, classes], rows sum to 1: votes of the first options.k neighbours. A neighbour's vote carries a millionth
/// more the nearer it is, so that even votes go to the nearer class.
Matrix neighbour_probabilities(const TopK& neighbours, std::span<const int> row_labels, int classes,
                               const NeighbourOptions& options);

struct NeighbourPoint {
  NeighbourOptions options;
  double score = 0;
  double log_loss = 0;  // with probabilities of at least 1e-4
};

struct NeighbourSelection {
  NeighbourOptions best;
  std::vector<NeighbourPoint> curve;
};

/// Tries every k with one-vote weights and with every temperature (> 0); best: highest score, equal within 1e-12: lower
/// log loss. Validation rows: neighbours = index.top_k(validation, largest k). Folds: top_k_of_own_rows, which leaves
/// each row itself out. Larger scores are better. Errors: empty grids or rows that do not belong together.
Result<NeighbourSelection> select_neighbours(
    const TopK& neighbours, std::span<const int> row_labels, std::span<const int> truth, int classes,
    std::span<const std::size_t> ks, std::span<const double> temperatures,
    const std::function<double(std::span<const int> truth, std::span<const int> predicted)>& score);

/// What a package holds. Safe from several threads.
struct NeighbourModel {
  NeighbourIndex index;
  std::vector<int> labels;  // [index rows]
  int classes = 0;
  NeighbourOptions options;

  Matrix probabilities(const Matrix& queries, int threads = 1) const;
  /// One safetensors file: embeddings [rows, width], labels [rows], options as metadata.
  Status save(const std::filesystem::path& file) const;
  static Result<NeighbourModel> load(const std::filesystem::path& file);
};

}  // namespace tailor
