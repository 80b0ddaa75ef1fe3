#pragma once
/// The objective of logistic_regression.h as products and row sums; used by its optimiser only.

#include <cstddef>
#include <span>
#include <vector>

#include "learn/sparse.h"

namespace tailor {

/// Parameters are [features + 1, outputs] row-major, the last row the intercepts; logits and residuals [rows, outputs].
/// Borrows the features. Not safe to share between threads; uses `threads` inside.
class LogisticProblem {
 public:
  /// outputs = number of classes for the softmax, or 1 for the sigmoid (targets 0 and 1).
  LogisticProblem(Features x, std::vector<int> targets, std::vector<float> row_weights, std::size_t outputs,
                  int threads);

  std::size_t rows() const { return x_.rows(); }
  std::size_t features() const { return x_.cols(); }
  std::size_t outputs() const { return outputs_; }
  std::size_t parameters() const { return (x_.cols() + 1) * outputs_; }
  double weight_sum() const { return weight_sum_; }

  void logits(std::span<const double> parameters, std::span<float> out);

  struct Point {
    double loss = 0;       // weighted sum of -log p_true
    double slope = 0;      // its derivative by step
    double curvature = 0;  // weighted sum over rows and outputs of p (1 - p)
  };
  /// At logits z + step * dz; writes the weighted residuals p - [true].
  Point evaluate(std::span<const float> z, std::span<const float> dz, double step, std::span<float> residuals);

  void gradient(std::span<const float> residuals, std::span<double> out);  // of the loss, without the penalty

  std::vector<double> weighted_gram();     // dense only: [(features + 1)^2], lower triangle of [X 1]^T D [X 1]
  std::vector<double> weighted_squares();  // [features + 1], its diagonal

 private:
  Features x_;
  CsrMatrix by_feature_;  // transpose of sparse features
  std::vector<int> targets_;
  std::vector<float> row_weights_;
  std::size_t outputs_;
  int threads_;
  double weight_sum_ = 0;
  std::vector<std::vector<double>> partial_;  // per piece of rows
};

/// Solves (scale * A + ridge * I') v = b in place for [n, columns] right-hand sides, I' without the last row (the
/// intercepts carry no penalty). A is a full lower triangle or only its diagonal.
class Preconditioner {
 public:
  Preconditioner(std::vector<double> a, bool diagonal_only);
  void prepare(double scale, double ridge);
  void apply(std::span<double> v, std::size_t columns) const;

 private:
  std::size_t n_;
  bool diagonal_;
  std::vector<double> a_;
  std::vector<double> factor_;  // Cholesky, or reciprocals
};

/// out[i] = W^T x_i + b for parameters [features + 1, outputs]; out [rows, outputs].
void logistic_logits(const Features& x, std::span<const double> parameters, std::size_t outputs, std::span<float> out,
                     int threads);

/// Rows of logits become probabilities in place. With one column (sigmoid) the column becomes p of class 1.
void softmax_rows(Matrix& logits, int threads);

}  // namespace tailor
