#include "fit/head_start.h"

#include <algorithm>
#include <cmath>

#include "core/files.h"
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

Result<HeadStart> write_head_start(const TrialContext& context, const ReadyModel& model, const TrialRows& rows,
                                   const std::vector<std::size_t>& train, const std::vector<std::size_t>& validation,
                                   double c, const std::filesystem::path& to) {
  TAILOR_TRY(const CachedEmbeddings vectors,
             cached_embeddings(context, model, rows, {.pooling = Pooling::kMean, .normalise = false}));
  const int classes = classes_of(context);
  const Matrix x = gather_rows(vectors.matrix, train);
  const auto labels = rows.labels_at(train);
  const double square = mean_square_length(x);
  HeadStart out{.c = c};
  const LogisticOptions options{.c = c / square, .threads = context.threads};
  LogisticModel chosen;
  if (c > 0) {
    TAILOR_TRY(chosen, fit_logistic(x, labels, classes, options, {}, nullptr, &context.cancel, context.progress));
  } else {
    std::vector<double> grid;
    for (const double g : kGrid) grid.push_back(g / square);
    TAILOR_TRY(std::vector<LogisticModel> models,
               fit_logistic_grid(x, labels, classes, grid, options, &context.cancel, context.progress));
    const Matrix held_out = gather_rows(vectors.matrix, validation);
    const auto truth = rows.labels_at(validation);
    // By log loss, not by the metric: a head that is too sure of itself has no gradient left to train the encoder with.
    std::size_t best = 0;
    double best_loss = 0;
    for (std::size_t g = 0; g < grid.size(); ++g) {
      const Matrix p = models[g].probabilities(held_out, context.threads);
      const double loss = log_loss(truth, p);
      if (g > 0 && loss >= best_loss) continue;
      best = g;
      best_loss = loss;
    }
    out.c = kGrid[best];
    out.score = metric_of(context).score(truth, models[best].predict(held_out, context.threads), classes);
    chosen = std::move(models[best]);
  }
  std::vector<float> weight, bias;
  spread(chosen, classes, weight, bias);
  const std::vector<SafeTensor> tensors{
      safe_tensor<float>("head.weight", "F32", {classes, static_cast<std::int64_t>(chosen.features)}, weight),
      safe_tensor<float>("head.bias", "F32", {classes}, bias)};
  TAILOR_CHECK(write_safetensors(to, tensors, {{"format", "tailor-head"}, {"version", "1"}}));
  out.shared = vectors.shared;
  return out;
}

}  // namespace tailor
