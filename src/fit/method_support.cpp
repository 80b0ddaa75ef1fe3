#include "fit/method_support.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>

#include "core/files.h"
#include "core/hash.h"
#include "core/safetensors.h"
#include "core/stopwatch.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr const char* kPlanFile = "plan.json";

}  // namespace

std::vector<int> TrialRows::labels_at(const std::vector<std::size_t>& positions) const {
  std::vector<int> out;
  out.reserve(positions.size());
  for (const std::size_t p : positions) out.push_back(labels[p]);
  return out;
}

TrialRows trial_rows(const TrialContext& context, int max_folds) {
  TrialRows rows;
  rows.ids = context.fit_rows.ids;
  rows.fit.resize(rows.ids.size());
  std::iota(rows.fit.begin(), rows.fit.end(), std::size_t{0});
  const bool searching = !context.settings.has_value();
  if (searching && !context.data.kfold()) {
    RowSplit split{rows.fit, {}};
    for (const auto id : context.validation_rows.ids) {
      split.validation.push_back(rows.ids.size());
      rows.ids.push_back(id);
    }
    rows.splits.push_back(std::move(split));
  } else if (searching) {
    const int folds = context.data.split.folds;
    const int used = max_folds > 0 ? std::min(max_folds, folds) : folds;
    for (int f = 0; f < used; ++f) {
      RowSplit split;
      for (std::size_t p = 0; p < rows.ids.size(); ++p) {
        (context.data.split.fold[rows.ids[p]] == f ? split.validation : split.train).push_back(p);
      }
      rows.splits.push_back(std::move(split));
    }
  }
  const RowSet all{rows.ids};
  rows.texts = context.data.texts_of(all);
  rows.labels = context.data.labels_of(all);
  return rows;
}

Predictions pooled_predictions(const TrialRows& rows, Matrix pooled) {
  std::vector<std::uint32_t> ids;
  std::vector<int> truth;
  for (const auto& split : rows.splits) {
    for (const std::size_t p : split.validation) {
      ids.push_back(rows.ids[p]);
      truth.push_back(rows.labels[p]);
    }
  }
  return make_predictions(ids, std::move(truth), std::move(pooled));
}

Result<ReadyModel> ready_model(const TrialContext& context, ModelUse use) {
  if (!context.model) return Error{ErrorCode::kInternal, "a method without a model asked for one", ""};
  return ready_model(context.model->info, use, context.progress);
}

Result<Embedder> load_embedder(const fs::path& gguf, int threads) {
  return Embedder::load(gguf, {.threads = threads});
}

namespace {

/// As Embedder does where it is asked for normalised vectors.
void normalise_rows(Matrix& m) {
  for (std::size_t i = 0; i < m.rows; ++i) {
    double square = 0;
    for (const float v : m.row(i)) square += static_cast<double>(v) * v;
    if (square <= 0) continue;
    const float scale = static_cast<float>(1.0 / std::sqrt(square));
    for (float& v : m.row(i)) v *= scale;
  }
}

/// The rows of `stored` that belong to `ids`; an empty matrix where one is missing.
Result<Matrix> stored_rows(const SafetensorsFile& stored, const std::vector<std::uint32_t>& ids, std::size_t texts) {
  TAILOR_TRY(const SafeTensor values, stored.get("embeddings", "F32", 2));
  TAILOR_TRY(const SafeTensor id_tensor, stored.get("ids", "I64", 1));
  const auto dim = static_cast<std::size_t>(values.shape[1]);
  std::vector<std::int64_t> known(static_cast<std::size_t>(id_tensor.shape[0]));
  std::memcpy(known.data(), id_tensor.bytes.data(), id_tensor.bytes.size());
  std::vector<std::size_t> where(texts, known.size());
  for (std::size_t i = 0; i < known.size(); ++i) where[static_cast<std::size_t>(known[i])] = i;
  if (std::any_of(ids.begin(), ids.end(), [&](std::uint32_t id) { return where[id] >= known.size(); })) return Matrix{};
  Matrix out(ids.size(), dim);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::memcpy(out.row(i).data(), values.bytes.data() + where[ids[i]] * dim * sizeof(float), dim * sizeof(float));
  }
  return out;
}

}  // namespace

Result<CachedEmbeddings> cached_embeddings(const TrialContext& context, const ReadyModel& model, const TrialRows& rows,
                                           const EmbeddingKind& kind) {
  Pooling pooling = kind.pooling;
  if (pooling == Pooling::kModel) {
    TAILOR_TRY(pooling, model_pooling(model.gguf));
  }
  const fs::path file = context.cache / fmt::format("embeddings-{}-{}.safetensors", model.base.sha256.substr(0, 16),
                                                    static_cast<int>(pooling));
  CachedEmbeddings out;
  std::error_code ignored;
  if (fs::exists(file, ignored)) {
    TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(file));
    TAILOR_TRY(out.matrix, stored_rows(stored, rows.ids, context.data.dataset.texts.size()));
    out.shared = std::atof(stored.metadata().at("seconds").c_str());
  }
  if (out.matrix.rows != rows.ids.size()) {
    const Stopwatch watch;
    TAILOR_TRY(Embedder embedder,
               Embedder::load(model.gguf, {.threads = context.threads, .pooling = pooling, .normalise = false}));
    TAILOR_TRY(out.matrix, embedder.embed(rows.texts, context.progress, context.cancel));
    out.seconds = watch.seconds();
    out.shared = 0;
    const std::vector<std::int64_t> ids(rows.ids.begin(), rows.ids.end());
    const std::vector<SafeTensor> tensors{
        safe_tensor<float>("embeddings", "F32",
                           {static_cast<std::int64_t>(out.matrix.rows), static_cast<std::int64_t>(out.matrix.cols)},
                           out.matrix.data),
        safe_tensor<std::int64_t>("ids", "I64", {static_cast<std::int64_t>(ids.size())}, ids)};
    TAILOR_CHECK(write_safetensors(file, tensors, {{"seconds", fmt::format("{}", out.seconds)}}));
  }
  if (kind.normalise) normalise_rows(out.matrix);
  return out;
}

Features take_rows(const Features& features, const std::vector<std::size_t>& positions, Matrix& dense,
                   CsrMatrix& sparse) {
  if (features.dense() != nullptr) {
    dense = gather_rows(*features.dense(), positions);
    return dense;
  }
  sparse = gather_rows(*features.sparse(), positions);
  return sparse;
}

namespace {

/// Of a share of n rows; 0 for scores that are none (costs).
double standard_error(double share, std::size_t n) {
  if (share <= 0 || share >= 1 || n == 0) return 0;
  return std::sqrt(share * (1 - share) / static_cast<double>(n));
}

}  // namespace

Result<LinearFit> fit_linear(const TrialContext& context, const TrialRows& rows, const Features& features,
                             const std::vector<double>& grid, double fixed_c, const Json& base_settings) {
  const int classes = classes_of(context);
  const LogisticOptions options{.threads = context.threads};
  LinearFit out;
  out.c = fixed_c;
  Matrix dense;
  CsrMatrix sparse;
  if (fixed_c <= 0) {
    std::size_t validation_rows = 0;
    for (const auto& split : rows.splits) validation_rows += split.validation.size();
    std::vector<Matrix> pooled(grid.size(), Matrix(validation_rows, static_cast<std::size_t>(classes)));
    const Stopwatch watch;
    std::size_t at = 0;
    std::vector<LogisticModel> models;
    for (const auto& split : rows.splits) {
      const Features train = take_rows(features, split.train, dense, sparse);
      const auto labels = rows.labels_at(split.train);
      TAILOR_TRY(models, fit_logistic_grid(train, labels, classes, grid, options, &context.cancel, context.progress));
      const Features held_out = take_rows(features, split.validation, dense, sparse);
      for (std::size_t g = 0; g < grid.size(); ++g) {
        const Matrix p = models[g].probabilities(held_out, context.threads);
        std::copy(p.data.begin(), p.data.end(),
                  pooled[g].data.begin() + static_cast<std::ptrdiff_t>(at * static_cast<std::size_t>(classes)));
      }
      at += split.validation.size();
    }
    const double seconds = watch.seconds() / static_cast<double>(grid.size());
    const Metric metric = metric_of(context);
    std::vector<Predictions> tried;
    std::vector<double> losses;
    std::size_t highest = 0;
    for (std::size_t g = 0; g < grid.size(); ++g) {
      tried.push_back(pooled_predictions(rows, std::move(pooled[g])));
      const Predictions& p = tried.back();
      Json settings = base_settings;
      settings["c"] = grid[g];
      out.search.push_back({settings, metric.score(p.truth, p.predicted, classes), seconds, p.size()});
      losses.push_back(log_loss(p.truth, p.probabilities));
      if (out.search[g].score > out.search[highest].score) highest = g;
    }
    // Scores within a standard error of the highest say nothing about each other; the log loss, which uses every
    // probability, decides among them.
    const double slack = standard_error(out.search[highest].score, tried[highest].size());
    std::size_t best = highest;
    for (std::size_t g = 0; g < grid.size(); ++g) {
      if (out.search[g].score >= out.search[highest].score - slack && losses[g] < losses[best]) best = g;
    }
    out.c = grid[best];
    out.validation = std::move(tried[best]);
    const bool same_rows = rows.splits.size() == 1 && rows.splits[0].train == rows.fit;
    if (same_rows) {  // one division: the model that was chosen is the model on all rows to fit
      out.model = std::move(models[best]);
      return out;
    }
  }
  LogisticOptions last = options;
  last.c = out.c;
  const Features all = take_rows(features, rows.fit, dense, sparse);
  TAILOR_TRY(out.model, fit_logistic(all, rows.labels_at(rows.fit), classes, last, {}, nullptr, &context.cancel,
                                     context.progress));
  return out;
}

double final_runs(const TrialContext& context) {
  return context.data.kfold() ? 2 : 1;
}

Result<Json> begin_plan(const TrialContext& context, const std::function<Json()>& made) {
  if (context.plan) return *context.plan;
  const auto file = context.directory / kPlanFile;
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) return read_json(file);
  Json plan = made();
  TAILOR_CHECK(keep_plan(context, plan));
  return plan;
}

Status keep_plan(const TrialContext& context, const Json& plan) {
  return write_json_atomic(context.directory / kPlanFile, plan);
}

Status end_plan(const TrialContext& context) {
  return remove_tree(context.directory / kPlanFile);
}

Metric metric_of(const TrialContext& context) {
  return Metric::parse(context.options.metric, context.data.label_names()).value();
}
int classes_of(const TrialContext& context) {
  return static_cast<int>(context.data.label_names().size());
}

}  // namespace tailor
