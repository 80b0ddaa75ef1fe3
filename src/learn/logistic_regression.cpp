#include "learn/logistic_regression.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>
#include <optional>

#include "learn/logistic_problem.h"

namespace tailor {
namespace {

// Above this width the Cholesky factor costs more than the steps it saves; the diagonal is used.
constexpr std::size_t kWidestFactor = 1536;
constexpr int kRefresh = 15;  // steps between new scales of the starting matrix
constexpr std::size_t kHistoryBytes = std::size_t{512} << 20;

Error invalid(std::string message, std::string hint = "") {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(hint)};
}

// Eight sums side by side: one alone would wait for each addition to finish. Pairs are stored as f32: they only shape
// the direction, and it halves the memory.
template <typename A, typename B>
double dot(std::span<const A> a, std::span<const B> b) {
  constexpr std::size_t kLanes = 8;
  double lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= a.size(); i += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) lanes[l] += static_cast<double>(a[i + l]) * static_cast<double>(b[i + l]);
  }
  for (; i < a.size(); ++i) lanes[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return std::accumulate(lanes, lanes + kLanes, 0.0);
}

void add(std::span<double> to, double factor, std::span<const float> v) {
  for (std::size_t i = 0; i < v.size(); ++i) to[i] += factor * static_cast<double>(v[i]);
}

struct StepPair {
  std::vector<float> s;
  std::vector<float> y;
  double rho;  // 1 / (s . y)
};

/// One problem, solved for one C after another from where the last search ended.
class Solver {
 public:
  Solver(Features x, std::vector<int> targets, std::vector<float> weights, std::size_t outputs,
         const LogisticOptions& options)
      : problem_(x, std::move(targets), std::move(weights), outputs, options.threads),
        start_matrix_(make_start_matrix(x)),
        options_(options),
        parameters(problem_.parameters()) {
    const std::size_t pair_bytes = 2 * sizeof(float) * problem_.parameters();
    history_ = std::clamp<std::size_t>(kHistoryBytes / pair_bytes, 3, static_cast<std::size_t>(options.history));
  }

  Status minimise(double c, const CancelToken* cancel, const ProgressFn& progress);

 private:
  Preconditioner make_start_matrix(Features x) {
    const bool full = x.dense() && x.cols() <= kWidestFactor;
    return {full ? problem_.weighted_gram() : problem_.weighted_squares(), !full};
  }
  double objective(double loss, double ridge) const { return loss + 0.5 * ridge * penalty(parameters, parameters); }
  double penalty(std::span<const double> a, std::span<const double> b) const {
    const std::size_t penalised = problem_.features() * problem_.outputs();
    return dot(a.subspan(0, penalised), b.subspan(0, penalised));
  }
  void full_gradient(double ridge, std::span<const float> residuals, std::vector<double>& g);
  void direction(const std::vector<double>& g, std::vector<double>& p);

  LogisticProblem problem_;
  Preconditioner start_matrix_;
  LogisticOptions options_;
  std::size_t history_;
  std::deque<StepPair> pairs_;

 public:
  std::vector<double> parameters;
  int iterations = 0;
  bool converged = false;
};

void Solver::full_gradient(double ridge, std::span<const float> residuals, std::vector<double>& g) {
  problem_.gradient(residuals, g);
  const std::size_t penalised = problem_.features() * problem_.outputs();
  for (std::size_t j = 0; j < penalised; ++j) g[j] += ridge * parameters[j];
}

void Solver::direction(const std::vector<double>& g, std::vector<double>& p) {
  p = g;
  std::vector<double> alpha(pairs_.size());
  for (std::size_t i = pairs_.size(); i-- > 0;) {
    alpha[i] = pairs_[i].rho * dot<float, double>(pairs_[i].s, p);
    add(p, -alpha[i], pairs_[i].y);
  }
  start_matrix_.apply(p, problem_.outputs());
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    const double beta = pairs_[i].rho * dot<float, double>(pairs_[i].y, p);
    add(p, alpha[i] - beta, pairs_[i].s);
  }
  for (double& v : p) v = -v;
}

Status Solver::minimise(double c, const CancelToken* cancel, const ProgressFn& progress) {
  const double ridge = 1.0 / c;
  const double rows_weight = problem_.weight_sum();
  const std::size_t o = problem_.outputs();
  std::vector<float> z(problem_.rows() * o);
  std::vector<float> dz(z.size());
  std::vector<float> residuals(z.size());
  std::vector<double> g(parameters.size());
  std::vector<double> g_next(parameters.size());
  std::vector<double> p(parameters.size());
  pairs_.clear();  // made with another penalty
  iterations = 0;
  converged = false;

  problem_.logits(parameters, z);
  auto at = problem_.evaluate(z, z, 0.0, residuals);
  double value = objective(at.loss, ridge);
  full_gradient(ridge, residuals, g);
  std::vector<double> values = {value};
  bool fresh = true;  // no pairs since the last reset

  while (iterations < options_.max_iterations) {
    if (cancel && cancel->cancelled())
      return Error{ErrorCode::kCancelled, "the linear model's fit was interrupted", ""};
    if (progress) {
      progress({"fitting the linear model", static_cast<double>(iterations),
                static_cast<double>(options_.max_iterations), value / rows_weight});
    }
    const double largest =
        std::abs(*std::max_element(g.begin(), g.end(), [](double a, double b) { return std::abs(a) < std::abs(b); }));
    if (largest <= options_.tolerance * rows_weight) converged = true;
    if (values.size() > 10 && values[values.size() - 11] - value <= options_.loss_tolerance * std::abs(value))
      converged = true;
    if (converged) break;

    if (iterations % kRefresh == 0) {
      const double per_output = at.curvature / (rows_weight * static_cast<double>(o));
      start_matrix_.prepare(std::max(per_output, 1e-6), ridge);
    }
    direction(g, p);
    double slope0 = dot<double, double>(g, p);
    if (!(slope0 < 0)) {
      if (fresh) break;
      pairs_.clear();
      fresh = true;
      continue;
    }
    problem_.logits(p, dz);
    const double wp = penalty(parameters, p);
    const double pp = penalty(p, p);
    const double ww = penalty(parameters, parameters);

    // Along the line the objective is convex and its slope cheap: bracket the slope's zero, then false position,
    // with the slope at the end that stays halved (Illinois), for a slope that is steep at one end only.
    // Values decide only beyond their own rounding, so that the last steps are not lost in it.
    const double noise = 1e-8 * std::abs(value);
    double low = 0, low_slope = slope0, high = -1, high_slope = 0, step = 1, reached = value;
    bool found = false;
    int side = 0;  // the end that moved last
    for (int trial = 0; trial < 40; ++trial) {
      at = problem_.evaluate(z, dz, step, residuals);
      const double slope = at.slope + ridge * (wp + step * pp);
      reached = at.loss + 0.5 * ridge * (ww + 2 * step * wp + step * step * pp);
      if (std::abs(slope) <= 0.3 * std::abs(slope0) && reached <= value + noise) {
        found = true;
        break;
      }
      if (slope < 0) {
        const double ahead = step + (step - low) * slope / (low_slope - slope);
        if (side < 0) high_slope /= 2;
        side = -1;
        low = step;
        low_slope = slope;
        step = high < 0 ? (low_slope > -1e300 && std::isfinite(ahead) ? std::clamp(ahead, 1.5 * low, 8 * low) : 2 * low)
                        : step;
      } else {
        if (side > 0) low_slope /= 2;
        side = 1;
        high = step;
        high_slope = slope;
      }
      if (high > 0) {
        const double between = low + (high - low) * low_slope / (low_slope - high_slope);
        step = std::clamp(between, low + 0.1 * (high - low), high - 0.1 * (high - low));
      }
    }
    if (!found) {
      if (fresh) {  // steepest direction and still no descent: the limit of f32
        if (std::all_of(parameters.begin(), parameters.end(), [](double v) { return v == 0; }))
          return Error{ErrorCode::kInternal, "the linear model could not be fitted: no step lowers its loss", ""};
        converged = true;
        break;
      }
      pairs_.clear();
      fresh = true;
      problem_.logits(parameters, z);
      at = problem_.evaluate(z, z, 0.0, residuals);
      value = objective(at.loss, ridge);
      full_gradient(ridge, residuals, g);
      continue;
    }

    ++iterations;
    StepPair pair{std::vector<float>(p.size()), std::vector<float>(p.size()), 0};
    for (std::size_t j = 0; j < p.size(); ++j) {
      parameters[j] += step * p[j];
      pair.s[j] = static_cast<float>(step * p[j]);
    }
    if (iterations % 32 == 0) {
      problem_.logits(parameters, z);  // sheds the rounding of many small additions
    } else {
      const auto a = static_cast<float>(step);
      for (std::size_t j = 0; j < z.size(); ++j) z[j] += a * dz[j];
    }
    full_gradient(ridge, residuals, g_next);
    for (std::size_t j = 0; j < g.size(); ++j) {
      pair.y[j] = static_cast<float>(g_next[j] - g[j]);
    }
    const double sy = dot<float, float>(pair.s, pair.y);
    g.swap(g_next);
    value = reached;
    values.push_back(value);
    fresh = false;
    if (sy > 0 && std::isfinite(1.0 / sy)) {
      pair.rho = 1.0 / sy;
      if (pairs_.size() == history_) pairs_.pop_front();
      pairs_.push_back(std::move(pair));
    }
  }
  return {};
}

/// What the caller gave, checked and reduced to the classes that occur.
struct Prepared {
  std::vector<int> output_class;
  std::vector<int> targets;
  std::vector<float> weights;
  std::size_t outputs = 0;
};

Status check_finite(const Features& x) {
  const auto refuse = [](std::size_t row) {
    return invalid(fmt::format("row {} of the features has a value that is not a finite number", row));
  };
  if (const Matrix* m = x.dense()) {
    for (std::size_t i = 0; i < m->data.size(); ++i) {
      if (!std::isfinite(m->data[i])) return refuse(i / m->cols);
    }
  } else {
    const CsrMatrix& s = *x.sparse();
    for (std::size_t r = 0; r < s.rows; ++r) {
      for (std::size_t e = s.starts[r]; e < s.starts[r + 1]; ++e) {
        if (!std::isfinite(s.values[e])) return refuse(r);
      }
    }
  }
  return {};
}

Result<Prepared> prepare(const Features& x, std::span<const int> labels, int classes, const LogisticOptions& options,
                         std::span<const float> row_weights) {
  if (labels.size() != x.rows() || (!row_weights.empty() && row_weights.size() != labels.size())) {
    return invalid(fmt::format("{} rows of features, {} labels and {} row weights do not belong together", x.rows(),
                               labels.size(), row_weights.size()));
  }
  if (labels.empty()) return invalid("there are no rows to fit a linear model on");
  if (options.max_iterations < 1 || options.history < 1)
    return invalid("max_iterations and history must be at least 1");
  TAILOR_CHECK(check_finite(x));
  std::vector<double> class_weight(static_cast<std::size_t>(std::max(classes, 0)));
  double total = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= classes) {
      return invalid(fmt::format("row {}: label {} must be a class number below {}", i, labels[i], classes));
    }
    const float w = row_weights.empty() ? 1.0f : row_weights[i];
    if (!(w >= 0) || !std::isfinite(w)) return invalid(fmt::format("row {}: weight {} must be a number >= 0", i, w));
    class_weight[static_cast<std::size_t>(labels[i])] += static_cast<double>(w);
    total += static_cast<double>(w);
  }
  Prepared out;
  std::vector<int> compact(class_weight.size(), -1);
  for (std::size_t c = 0; c < class_weight.size(); ++c) {
    if (class_weight[c] <= 0) continue;
    compact[c] = static_cast<int>(out.output_class.size());
    out.output_class.push_back(static_cast<int>(c));
  }
  if (out.output_class.size() < 2) {
    return invalid("a linear model needs rows of at least two classes, and these have one", "check the label column");
  }
  out.outputs = out.output_class.size() == 2 ? 1 : out.output_class.size();
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto c = static_cast<std::size_t>(labels[i]);
    double w = row_weights.empty() ? 1.0 : static_cast<double>(row_weights[i]);
    if (options.balanced && w > 0) w *= total / (static_cast<double>(out.output_class.size()) * class_weight[c]);
    out.targets.push_back(std::max(compact[c], 0));  // a class without weight: its rows weigh nothing
    out.weights.push_back(static_cast<float>(w));
  }
  return out;
}

LogisticModel make_model(const Solver& solver, const Prepared& prepared, int classes, std::size_t features, double c) {
  LogisticModel model;
  model.classes = classes;
  model.features = features;
  model.output_class = prepared.output_class;
  model.c = c;
  model.iterations = solver.iterations;
  model.converged = solver.converged;
  const std::size_t o = prepared.outputs;
  model.weights = Matrix(o, features);
  for (std::size_t j = 0; j < features; ++j) {
    for (std::size_t k = 0; k < o; ++k) model.weights.row(k)[j] = static_cast<float>(solver.parameters[j * o + k]);
  }
  for (std::size_t k = 0; k < o; ++k)
    model.intercepts.push_back(static_cast<float>(solver.parameters[features * o + k]));
  return model;
}

Status check_c(double c) {
  if (!(c > 0) || !std::isfinite(c)) return invalid(fmt::format("C must be a number above 0, not {}", c));
  return {};
}

}  // namespace

Result<LogisticModel> fit_logistic(const Features& x, std::span<const int> labels, int classes,
                                   const LogisticOptions& options, std::span<const float> row_weights,
                                   const LogisticModel* start, const CancelToken* cancel, const ProgressFn& progress) {
  TAILOR_CHECK(check_c(options.c));
  TAILOR_TRY(Prepared prepared, prepare(x, labels, classes, options, row_weights));
  Solver solver(x, prepared.targets, prepared.weights, prepared.outputs, options);
  if (start && start->features == x.cols() && start->output_class == prepared.output_class) {
    const std::size_t o = prepared.outputs;
    for (std::size_t k = 0; k < o; ++k) {
      for (std::size_t j = 0; j < x.cols(); ++j)
        solver.parameters[j * o + k] = static_cast<double>(start->weights.row(k)[j]);
      solver.parameters[x.cols() * o + k] = static_cast<double>(start->intercepts[k]);
    }
  }
  TAILOR_CHECK(solver.minimise(options.c, cancel, progress));
  return make_model(solver, prepared, classes, x.cols(), options.c);
}

Result<std::vector<LogisticModel>> fit_logistic_grid(const Features& x, std::span<const int> labels, int classes,
                                                     std::span<const double> grid, const LogisticOptions& options,
                                                     const CancelToken* cancel, const ProgressFn& progress) {
  for (const double c : grid) TAILOR_CHECK(check_c(c));
  TAILOR_TRY(Prepared prepared, prepare(x, labels, classes, options, {}));
  std::vector<std::size_t> ascending(grid.size());
  std::iota(ascending.begin(), ascending.end(), std::size_t{0});
  std::stable_sort(ascending.begin(), ascending.end(), [&](std::size_t a, std::size_t b) { return grid[a] < grid[b]; });
  Solver solver(x, prepared.targets, prepared.weights, prepared.outputs, options);
  std::vector<LogisticModel> models(grid.size());
  for (const std::size_t i : ascending) {
    TAILOR_CHECK(solver.minimise(grid[i], cancel, progress));
    models[i] = make_model(solver, prepared, classes, x.cols(), grid[i]);
  }
  return models;
}

}  // namespace tailor
