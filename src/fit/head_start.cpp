#include "fit/head_start.h"

#include <algorithm>
#include <cmath>

#include "core/files.h"
#include "core/head_file.h"
#include "core/safetensors.h"

namespace tailor {
namespace {

const std::vector<double> kGrid{1, 3, 10, 30, 100};

double mean_square_length(const Matrix& x) {
  double sum = 0;
  for (const float v : x.data) sum += static_cast<double>(v) * v;
  return x.rows == 0 ? 1 : std::max(1e-12, sum / static_cast<double>(x.rows));
}

/// [labels, dim] and [labels] from a model whose outputs may be fewer: two classes share one output, and classes
/// without a row have none.
void spread(const LogisticModel& model, int classes, std::vector<float>& weight, std::vector<float>& bias) {
  const std::size_t dim = model.features;
  weight.assign(static_cast<std::size_t>(classes) * dim, 0.0f);
  bias.assign(static_cast<std::size_t>(classes), -20.0f);  // of classes without a row
  const auto put = [&](int label, std::size_t output, float sign) {
    const auto row = model.weights.row(output);
    const auto at = static_cast<std::size_t>(label);
    for (std::size_t i = 0; i < dim; ++i) weight[at * dim + i] = sign * row[i];
    bias[at] = sign * model.intercepts[output];
  };
  if (model.weights.rows == 1 && model.output_class.size() == 2) {
    put(model.output_class[0], 0, -0.5f);
    put(model.output_class[1], 0, 0.5f);
    return;
  }
  for (std::size_t o = 0; o < model.weights.rows; ++o) put(model.output_class[o], o, 1.0f);
}

}  // namespace

Status write_head_file(const std::filesystem::path& to, std::span<const SafeTensor> tensors, bool unit_vectors) {
  std::map<std::string, std::string> metadata{{"format", kHeadFormat}, {"version", "1"}};
  if (unit_vectors) metadata[kUnitVectors] = "true";
  return write_safetensors(to, tensors, metadata);
}

Result<HeadStart> write_head_start(const LabelledVectors& train, const LabelledVectors& held_out, int classes, double c,
                                   int threads, const ProgressFn& progress, const CancelToken& cancel,
                                   bool unit_vectors, const std::filesystem::path& to) {
  const double square = mean_square_length(train.x);
  HeadStart out{.c = c, .predicted = {}};
  const LogisticOptions options{.c = c / square, .threads = threads};
  LogisticModel chosen;
  if (c > 0) {
    TAILOR_TRY(chosen, fit_logistic(train.x, train.labels, classes, options, {}, nullptr, &cancel, progress));
  } else {
    std::vector<double> grid;
    for (const double g : kGrid) grid.push_back(g / square);
    TAILOR_TRY(std::vector<LogisticModel> models,
               fit_logistic_grid(train.x, train.labels, classes, grid, options, &cancel, progress));
    // By log loss, not by the metric: a head that is too sure of itself has no gradient left to train the encoder with.
    std::size_t best = 0;
    double best_loss = 0;
    for (std::size_t g = 0; g < grid.size(); ++g) {
      const double loss = log_loss(held_out.labels, models[g].probabilities(held_out.x, threads));
      if (g > 0 && loss >= best_loss) continue;
      best = g;
      best_loss = loss;
    }
    out.c = kGrid[best];
    out.predicted = models[best].predict(held_out.x, threads);
    chosen = std::move(models[best]);
  }
  std::vector<float> weight, bias;
  spread(chosen, classes, weight, bias);
  const std::vector<SafeTensor> tensors{
      safe_tensor<float>(kHeadWeight, "F32", {classes, static_cast<std::int64_t>(chosen.features)}, weight),
      safe_tensor<float>(kHeadBias, "F32", {classes}, bias)};
  TAILOR_CHECK(write_head_file(to, tensors, unit_vectors));
  return out;
}

}  // namespace tailor
