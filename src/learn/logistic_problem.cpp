#include "learn/logistic_problem.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "core/fast_math.h"
#include "learn/parallel.h"

namespace tailor {
namespace {

constexpr std::size_t kRowBlock = 2048;  // rows of one product; its f32 sum is added to an f64 one
constexpr std::size_t kPieces = 8;       // of rows, independent of the thread count
constexpr std::size_t kLanes = 8;

struct RowRange {
  std::size_t begin;
  std::size_t end;
};

RowRange piece_of(std::size_t rows, std::size_t piece, std::size_t pieces) {
  return {rows * piece / pieces, rows * (piece + 1) / pieces};
}

std::size_t pieces_for(std::size_t rows) {
  return std::clamp<std::size_t>(rows / 256, 1, kPieces);
}

/// softmax of t[0, padded); t holds very small values in the padding. Returns the sum of exp(t - max) and the max.
struct ExpSum {
  double sum;
  float max;
};
ExpSum exp_row(float* t, std::size_t padded) {
  float lane_max[kLanes];
  std::copy_n(t, kLanes, lane_max);
  for (std::size_t k = kLanes; k < padded; k += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) lane_max[l] = t[k + l] > lane_max[l] ? t[k + l] : lane_max[l];
  }
  const float max = *std::max_element(lane_max, lane_max + kLanes);
  for (std::size_t k = 0; k < padded; ++k) t[k] = exp_nonpositive(t[k] - max);
  double lane_sum[kLanes] = {};
  for (std::size_t k = 0; k < padded; k += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) lane_sum[l] += static_cast<double>(t[k + l]);
  }
  double sum = 0;
  for (const double s : lane_sum) sum += s;
  return {sum, max};
}

std::size_t padded_to_lanes(std::size_t n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

}  // namespace

float fast_exp(float x) {
  return x < -87.0f ? 0.0f : exp_nonpositive(x);
}

LogisticProblem::LogisticProblem(Features x, std::vector<int> targets, std::vector<float> row_weights,
                                 std::size_t outputs, int threads)
    : x_(x),
      targets_(std::move(targets)),
      row_weights_(std::move(row_weights)),
      outputs_(outputs),
      threads_(threads),
      partial_(pieces_for(x.rows())) {
  for (const float w : row_weights_) weight_sum_ += w;
  if (x_.sparse()) by_feature_ = transpose(*x_.sparse());
}

void LogisticProblem::logits(std::span<const double> parameters, std::span<float> out) {
  logistic_logits(x_, parameters, outputs_, out, threads_);
}

void logistic_logits(const Features& x, std::span<const double> parameters, std::size_t outputs, std::span<float> out,
                     int threads) {
  const std::vector<float> w(parameters.begin(), parameters.end());
  const std::size_t d = x.cols();
  const float* intercepts = w.data() + d * outputs;
  const std::size_t pieces = pieces_for(x.rows());
  for_pieces(threads, pieces, [&](std::size_t piece) {
    const auto [begin, end] = piece_of(x.rows(), piece, pieces);
    for (std::size_t i = begin; i < end; ++i) std::copy_n(intercepts, outputs, out.data() + i * outputs);
    if (const Matrix* m = x.dense()) {
      if (d == 0) return;
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(end - begin), static_cast<int>(outputs),
                  static_cast<int>(d), 1.0f, m->data.data() + begin * d, static_cast<int>(d), w.data(),
                  static_cast<int>(outputs), 1.0f, out.data() + begin * outputs, static_cast<int>(outputs));
      return;
    }
    const CsrMatrix& s = *x.sparse();
    for (std::size_t i = begin; i < end; ++i) {
      float* z = out.data() + i * outputs;
      for (std::size_t e = s.starts[i]; e < s.starts[i + 1]; ++e) {
        const float v = s.values[e];
        const float* row = w.data() + s.columns[e] * outputs;
        for (std::size_t k = 0; k < outputs; ++k) z[k] = std::fma(v, row[k], z[k]);  // the same bits however many rows
      }
    }
  });
}

LogisticProblem::Point LogisticProblem::evaluate(std::span<const float> z, std::span<const float> dz, double step,
                                                 std::span<float> residuals) {
  const std::size_t o = outputs_;
  const std::size_t padded = padded_to_lanes(o);
  const std::size_t pieces = partial_.size();
  const auto a = static_cast<float>(step);
  std::vector<Point> points(pieces);
  for_pieces(threads_, pieces, [&](std::size_t piece) {
    const auto [begin, end] = piece_of(rows(), piece, pieces);
    std::vector<float> t(padded, -1e30f);
    Point sum;
    for (std::size_t i = begin; i < end; ++i) {
      const float* zi = z.data() + i * o;
      const float* di = dz.data() + i * o;
      float* r = residuals.data() + i * o;
      const double w = row_weights_[i];
      const auto y = static_cast<std::size_t>(targets_[i]);
      if (o == 1) {
        const double m = static_cast<double>(zi[0]) + step * static_cast<double>(di[0]);
        const double p = 1.0 / (1.0 + std::exp(-m));
        const double error = p - static_cast<double>(y);
        sum.loss += w * (std::max(m, 0.0) + std::log1p(std::exp(-std::abs(m))) - m * static_cast<double>(y));
        sum.slope += w * error * static_cast<double>(di[0]);
        sum.curvature += w * p * (1 - p);
        r[0] = static_cast<float>(w * error);
        continue;
      }
      for (std::size_t k = 0; k < o; ++k) t[k] = zi[k] + a * di[k];
      const float of_truth = t[y];
      const ExpSum e = exp_row(t.data(), padded);
      const auto scale = static_cast<float>(1.0 / e.sum);
      double slope = 0;
      double squares = 0;
      for (std::size_t k = 0; k < o; ++k) {
        const float p = t[k] * scale;
        t[k] = p;
        r[k] = static_cast<float>(w) * p;
      }
      float lane_slope[kLanes] = {};
      float lane_squares[kLanes] = {};
      std::size_t k = 0;
      for (; k + kLanes <= o; k += kLanes) {
        for (std::size_t l = 0; l < kLanes; ++l) {
          lane_slope[l] += t[k + l] * di[k + l];
          lane_squares[l] += t[k + l] * t[k + l];
        }
      }
      for (; k < o; ++k) {
        lane_slope[0] += t[k] * di[k];
        lane_squares[0] += t[k] * t[k];
      }
      for (std::size_t l = 0; l < kLanes; ++l) {
        slope += static_cast<double>(lane_slope[l]);
        squares += static_cast<double>(lane_squares[l]);
      }
      std::fill(t.begin() + static_cast<std::ptrdiff_t>(o), t.end(), -1e30f);
      r[y] -= static_cast<float>(w);
      sum.loss += w * (std::log(e.sum) + static_cast<double>(e.max - of_truth));
      sum.slope += w * (slope - static_cast<double>(di[y]));
      sum.curvature += w * (1.0 - squares);
    }
    points[piece] = sum;
  });
  Point total;
  for (const Point& p : points) {
    total.loss += p.loss;
    total.slope += p.slope;
    total.curvature += p.curvature;
  }
  return total;
}

void LogisticProblem::gradient(std::span<const float> residuals, std::span<double> out) {
  const std::size_t d = features();
  const std::size_t o = outputs_;
  const std::size_t pieces = partial_.size();
  const bool dense = x_.dense() != nullptr;
  const std::size_t kept = dense ? (d + 1) * o : o;  // sparse: only the intercepts are summed by piece of rows
  for_pieces(threads_, pieces, [&](std::size_t piece) {
    const auto [begin, end] = piece_of(rows(), piece, pieces);
    auto& sum = partial_[piece];
    sum.assign(kept, 0.0);
    double* intercepts = sum.data() + (kept - o);
    for (std::size_t i = begin; i < end; ++i) {
      for (std::size_t k = 0; k < o; ++k) intercepts[k] += static_cast<double>(residuals[i * o + k]);
    }
    if (!dense) return;
    std::vector<float> block(d * o);
    for (std::size_t i = begin; i < end; i += kRowBlock) {
      const std::size_t n = std::min(kRowBlock, end - i);
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, static_cast<int>(d), static_cast<int>(o),
                  static_cast<int>(n), 1.0f, x_.dense()->data.data() + i * d, static_cast<int>(d),
                  residuals.data() + i * o, static_cast<int>(o), 0.0f, block.data(), static_cast<int>(o));
      for (std::size_t j = 0; j < block.size(); ++j) sum[j] += static_cast<double>(block[j]);
    }
  });
  if (!dense) {
    constexpr std::size_t kColumnPieces = 64;
    for_pieces(threads_, kColumnPieces, [&](std::size_t piece) {
      const auto [begin, end] = piece_of(d, piece, kColumnPieces);
      std::vector<float> sum(o);
      for (std::size_t j = begin; j < end; ++j) {
        double* g = out.data() + j * o;
        std::fill_n(g, o, 0.0);
        for (std::size_t e = by_feature_.starts[j]; e < by_feature_.starts[j + 1];) {
          const std::size_t stop = std::min(e + kRowBlock, by_feature_.starts[j + 1]);
          std::fill(sum.begin(), sum.end(), 0.0f);
          for (; e < stop; ++e) {
            const float v = by_feature_.values[e];
            const float* r = residuals.data() + by_feature_.columns[e] * o;
            for (std::size_t k = 0; k < o; ++k) sum[k] += v * r[k];
          }
          for (std::size_t k = 0; k < o; ++k) g[k] += static_cast<double>(sum[k]);
        }
      }
    });
  }
  const std::span<double> summed = out.subspan(out.size() - kept);
  std::fill(summed.begin(), summed.end(), 0.0);
  for (const auto& part : partial_) {
    for (std::size_t j = 0; j < kept; ++j) summed[j] += part[j];
  }
}

std::vector<double> LogisticProblem::weighted_gram() {
  const std::size_t d = features();
  const std::size_t n = d + 1;
  std::vector<double> gram(n * n);
  const Matrix& x = *x_.dense();
  std::vector<float> scaled(std::min(kRowBlock, rows()) * n);
  std::vector<float> block(n * n);
  for (std::size_t begin = 0; begin < rows(); begin += kRowBlock) {
    const std::size_t count = std::min(kRowBlock, rows() - begin);
    for_pieces(threads_, pieces_for(count), [&](std::size_t piece) {
      const auto [from, to] = piece_of(count, piece, pieces_for(count));
      for (std::size_t i = from; i < to; ++i) {
        const float root = std::sqrt(row_weights_[begin + i]);
        const auto row = x.row(begin + i);
        for (std::size_t j = 0; j < d; ++j) scaled[i * n + j] = root * row[j];
        scaled[i * n + d] = root;
      }
    });
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, static_cast<int>(n), static_cast<int>(count), 1.0f,
                scaled.data(), static_cast<int>(n), 0.0f, block.data(), static_cast<int>(n));
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j <= i; ++j) gram[i * n + j] += static_cast<double>(block[i * n + j]);
    }
  }
  return gram;
}

std::vector<double> LogisticProblem::weighted_squares() {
  std::vector<double> out(features() + 1);
  out.back() = weight_sum_;
  for (std::size_t i = 0; i < rows(); ++i) {
    const double w = row_weights_[i];
    if (const Matrix* x = x_.dense()) {
      const auto row = x->row(i);
      for (std::size_t j = 0; j < row.size(); ++j)
        out[j] += w * static_cast<double>(row[j]) * static_cast<double>(row[j]);
    } else {
      const CsrMatrix& s = *x_.sparse();
      for (std::size_t e = s.starts[i]; e < s.starts[i + 1]; ++e) {
        out[s.columns[e]] += w * static_cast<double>(s.values[e]) * static_cast<double>(s.values[e]);
      }
    }
  }
  return out;
}

Preconditioner::Preconditioner(std::vector<double> a, bool diagonal_only)
    : n_(diagonal_only ? a.size() : static_cast<std::size_t>(std::llround(std::sqrt(static_cast<double>(a.size()))))),
      diagonal_(diagonal_only),
      a_(std::move(a)) {}

void Preconditioner::prepare(double scale, double ridge) {
  factor_.resize(a_.size());
  const auto entry = [&](std::size_t i, double value) {
    // The small share keeps the factor positive where a feature is constant or the penalty tiny.
    return scale * value * (1 + 1e-7) + (i + 1 < n_ ? ridge : 0.0) + 1e-30;
  };
  if (diagonal_) {
    for (std::size_t i = 0; i < n_; ++i) factor_[i] = 1.0 / entry(i, a_[i]);
    return;
  }
  for (std::size_t i = 0; i < n_; ++i) {
    for (std::size_t j = 0; j < i; ++j) factor_[i * n_ + j] = scale * a_[i * n_ + j];
    factor_[i * n_ + i] = entry(i, a_[i * n_ + i]);
  }
  // Blocked Cholesky, lower triangle, right-looking.
  constexpr std::size_t kBlock = 48;
  double* l = factor_.data();
  for (std::size_t k = 0; k < n_; k += kBlock) {
    const std::size_t end = std::min(k + kBlock, n_);
    for (std::size_t j = k; j < end; ++j) {
      double pivot = l[j * n_ + j];
      for (std::size_t m = k; m < j; ++m) pivot -= l[j * n_ + m] * l[j * n_ + m];
      // Rounding in the f32 Gram matrix may cost a dependent feature its pivot; it is then scaled as if alone.
      if (!(pivot > 1e-9 * entry(j, a_[j * n_ + j]))) pivot = entry(j, a_[j * n_ + j]);
      l[j * n_ + j] = std::sqrt(pivot);
      for (std::size_t i = j + 1; i < end; ++i) {
        double v = l[i * n_ + j];
        for (std::size_t m = k; m < j; ++m) v -= l[i * n_ + m] * l[j * n_ + m];
        l[i * n_ + j] = v / l[j * n_ + j];
      }
    }
    const int width = static_cast<int>(end - k);
    const int below = static_cast<int>(n_ - end);
    const int stride = static_cast<int>(n_);
    if (below == 0) break;
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, below, width, 1.0, l + k * n_ + k,
                stride, l + end * n_ + k, stride);
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, below, width, -1.0, l + end * n_ + k, stride, 1.0,
                l + end * n_ + end, stride);
  }
}

void Preconditioner::apply(std::span<double> v, std::size_t columns) const {
  if (diagonal_) {
    for (std::size_t i = 0; i < n_; ++i) {
      for (std::size_t k = 0; k < columns; ++k) v[i * columns + k] *= factor_[i];
    }
    return;
  }
  const int n = static_cast<int>(n_);
  const int m = static_cast<int>(columns);
  for (const auto transposed : {CblasNoTrans, CblasTrans}) {
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, transposed, CblasNonUnit, n, m, 1.0, factor_.data(), n, v.data(),
                m);
  }
}

void softmax_rows(Matrix& logits, int threads) {
  const std::size_t pieces = pieces_for(logits.rows);
  for_pieces(threads, pieces, [&](std::size_t piece) {
    const auto [begin, end] = piece_of(logits.rows, piece, pieces);
    const std::size_t o = logits.cols;
    std::vector<float> t(padded_to_lanes(o), -1e30f);
    for (std::size_t i = begin; i < end; ++i) {
      const auto row = logits.row(i);
      if (o == 1) {
        row[0] = static_cast<float>(1.0 / (1.0 + std::exp(-static_cast<double>(row[0]))));
        continue;
      }
      std::ranges::copy(row, t.begin());
      const double scale = 1.0 / exp_row(t.data(), t.size()).sum;
      for (std::size_t k = 0; k < o; ++k) row[k] = static_cast<float>(static_cast<double>(t[k]) * scale);
      std::fill(t.begin() + static_cast<std::ptrdiff_t>(o), t.end(), -1e30f);
    }
  });
}

}  // namespace tailor
