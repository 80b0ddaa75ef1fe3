/// Feature-based tuning: the base model stays as it is, a multinomial logistic regression is fitted on its embeddings
/// (Devlin et al., arXiv:1810.04805, section 5.3; the linear probe of SetFit and MTEB).

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/files.h"
#include "fit/label_names.h"
#include "fit/method_support.h"
#include "fit/methods.h"
#include "fit/tuned_encoder.h"

namespace tailor {
namespace {

constexpr const char* kHeadFile = "head.safetensors";
const std::vector<double> kGrid{1, 3, 10, 30, 100, 300};

class FeaturesClassifier final : public Classifier {
 public:
  FeaturesClassifier(Embedder embedder, LogisticModel head, int threads)
      : embedder_(std::move(embedder)), head_(std::move(head)), threads_(threads) {}
  Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn& progress,
                               const CancelToken& cancel) override {
    TAILOR_TRY(const Matrix embeddings, embedder_.embed(texts, progress, cancel));
    return head_.probabilities(embeddings, threads_);
  }

 private:
  Embedder embedder_;
  LogisticModel head_;
  int threads_;
};

}  // namespace

Estimate estimate_features(const TrialContext& context) {
  const double rows = static_cast<double>(context.data.train_and_validation().size());
  const double tokens = mean_tokens(context);
  const double per_row = tokens / embedding_tokens_per_second(context);
  const double classes = static_cast<double>(classes_of(context));
  const double dim = static_cast<double>(context.model->info.embedding_length);
  // L-BFGS: about 60 passes a value of C, two products each, at half the speed of a large product.
  const double folds = context.data.kfold() ? context.data.split.folds + 1 : 2;
  const bool few = rows <= static_cast<double>(kMostRowsForNames) * classes;  // then names are tried too
  const double linear = (few ? 2 : 1) * folds * static_cast<double>(kGrid.size()) * 60 * 4 * rows * dim * classes /
                        (0.3e9 * context.speed.gemm_gflops);
  Estimate e;
  e.fit_seconds = 1 + rows * per_row + linear;
  e.min_fit_seconds = e.fit_seconds;
  e.score_seconds_per_row = per_row;
  e.refit_seconds = 1 + linear / static_cast<double>(kGrid.size());
  e.memory_bytes =
      static_cast<std::uint64_t>(2.2 * static_cast<double>(context.model->info.parameters) + rows * dim * 24) +
      120'000'000;
  return e;
}

namespace {

/// The rows with the labels' names as further texts of their labels, in every part to fit on; nothing where the names
/// are no texts, or rows are so many that names would not count.
struct NamedRows {
  TrialRows rows;
  Matrix vectors;
};
Result<std::optional<NamedRows>> with_label_names(const TrialContext& context, const ReadyModel& model,
                                                  const TrialRows& rows, const Matrix& vectors) {
  const std::vector<std::string> names = label_words(context.data.label_names());
  if (names.empty() || rows.fit.size() > kMostRowsForNames * names.size() || makes_pairs(context.options.text_template))
    return std::optional<NamedRows>();
  TAILOR_TRY(Embedder embedder, load_embedder(model.gguf, context.threads));
  TAILOR_TRY(const Matrix of_names, embedder.embed(names, {}, context.cancel));
  NamedRows out{rows, vectors};
  out.vectors.data.insert(out.vectors.data.end(), of_names.data.begin(), of_names.data.end());
  out.vectors.rows += of_names.rows;
  for (std::size_t l = 0; l < names.size(); ++l) {
    const std::size_t position = vectors.rows + l;
    out.rows.labels.push_back(static_cast<int>(l));
    out.rows.fit.push_back(position);
    for (RowSplit& split : out.rows.splits) split.train.push_back(position);
  }
  return std::optional<NamedRows>(std::move(out));
}

/// By the same rule as C: a score that is no more than chance better does not count, then the log loss decides.
bool better(const LinearFit& a, const LinearFit& b, const Metric& metric, int classes) {
  const auto score = [&](const Predictions& p) { return metric.score(p.truth, p.predicted, classes); };
  const double gain = score(a.validation) - score(b.validation);
  const double n = static_cast<double>(std::max<std::size_t>(1, a.validation.size()));
  const double share = std::clamp(score(b.validation), 0.0, 1.0);
  const double chance = std::sqrt(share * (1 - share) / n);
  if (std::abs(gain) > chance) return gain > 0;
  return log_loss(a.validation.truth, a.validation.probabilities) <
         log_loss(b.validation.truth, b.validation.probabilities);
}

}  // namespace

Result<TrialOutcome> run_features(TrialContext& context) {
  TrialOutcome out;
  TAILOR_TRY(const ReadyModel model, ready_model(context));
  const TrialRows rows = trial_rows(context);
  TAILOR_TRY(const CachedEmbeddings embeddings, cached_embeddings(context, model, rows));
  Json base_settings{{"features", "frozen"}};
  const bool searching = !context.settings;
  const double fixed = searching ? 0 : context.settings->at("c").get<double>();
  const bool named_before = !searching && context.settings->value("label_names", false);
  LinearFit fit;
  if (searching || !named_before) {
    TAILOR_TRY(fit, fit_linear(context, rows, embeddings.matrix, kGrid, fixed, base_settings));
  }
  if (searching || named_before) {
    TAILOR_TRY(const std::optional<NamedRows> named, with_label_names(context, model, rows, embeddings.matrix));
    if (named) {
      Json settings = base_settings;
      settings["label_names"] = true;
      TAILOR_TRY(LinearFit other, fit_linear(context, named->rows, named->vectors, kGrid, fixed, settings));
      std::vector<SearchPoint> search = std::move(fit.search);
      search.insert(search.end(), other.search.begin(), other.search.end());
      if (!searching || better(other, fit, metric_of(context), classes_of(context))) {
        base_settings = std::move(settings);
        fit = std::move(other);
      }
      fit.search = std::move(search);
    } else if (!searching) {
      TAILOR_TRY(fit, fit_linear(context, rows, embeddings.matrix, kGrid, fixed, base_settings));
    }
  }
  TAILOR_CHECK(fit.model.save(context.package / kHeadFile));
  out.settings = base_settings;
  out.settings["c"] = fit.c;
  out.search = std::move(fit.search);
  out.validation = std::move(fit.validation);
  out.base = model.base;
  out.trained_bytes = tree_bytes(context.package / kHeadFile);
  out.shared_seconds = embeddings.shared;
  return out;
}

Result<std::unique_ptr<Classifier>> load_features(const std::filesystem::path& package, const PackageManifest& manifest,
                                                  const PredictOptions& options) {
  TAILOR_TRY(LogisticModel head, LogisticModel::load(package / kHeadFile));
  if (head.classes != static_cast<int>(manifest.labels.size())) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: the head has {} classes, the manifest {} labels", package.string(), head.classes,
                             manifest.labels.size()),
                 ""};
  }
  TAILOR_TRY(Embedder embedder, load_embedder(base_model_path(package, manifest.base), options.threads));
  if (static_cast<std::size_t>(embedder.dim()) != head.features) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: the head takes {} features, the base model gives {}", package.string(), head.features,
                             embedder.dim()),
                 ""};
  }
  return std::unique_ptr<Classifier>(
      std::make_unique<FeaturesClassifier>(std::move(embedder), std::move(head), options.threads));
}

}  // namespace tailor
