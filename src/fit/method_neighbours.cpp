/// Nearest neighbours on embeddings: 1-NN and weighted k-NN. Prompts with retrieved demonstrations owe most of their
/// accuracy to them, so the table shows them beside each other.

#include <fmt/format.h>

#include "core/files.h"
#include "fit/method_support.h"
#include "fit/methods.h"
#include "fit/near_rows.h"
#include "learn/neighbours.h"
#include "prompt/demonstration_file.h"

namespace tailor {
namespace {

constexpr const char* kIndexFile = "neighbours.safetensors";
const std::vector<std::size_t> kNeighbours{1, 3, 5, 10, 20, 40};
const std::vector<double> kTemperatures{0.02, 0.05, 0.1};

class NeighboursClassifier final : public Classifier {
 public:
  NeighboursClassifier(Embedder embedder, NeighbourModel model, std::vector<Demonstration> rows, int threads)
      : embedder_(std::move(embedder)), model_(std::move(model)), rows_(std::move(rows)), threads_(threads) {}
  Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn& progress,
                               const CancelToken& cancel) override {
    TAILOR_TRY(const Matrix embeddings, embedder_.embed(texts, progress, cancel));
    return model_.probabilities(embeddings, threads_);
  }
  bool holds_rows() const override { return !rows_.empty(); }
  Result<std::vector<std::vector<NearRow>>> nearest(std::span<const std::string> texts, std::size_t count,
                                                    const CancelToken& cancel) override {
    if (rows_.empty()) return Classifier::nearest(texts, count, cancel);
    TAILOR_TRY(const Matrix embeddings, embedder_.embed(texts, {}, cancel));
    return near_rows(model_.index.top_k(embeddings, count, threads_), rows_);
  }

 private:
  Embedder embedder_;
  NeighbourModel model_;
  std::vector<Demonstration> rows_;  // of the index; empty: the package has no texts
  int threads_;
};

Json settings_of(const NeighbourOptions& o) {
  return Json{{"k", o.k}, {"weights", o.temperature > 0 ? "similarity" : "uniform"}, {"temperature", o.temperature}};
}

}  // namespace

Estimate estimate_neighbours(const TrialContext& context) {
  const double rows = static_cast<double>(context.data.train_and_validation().size());
  const double dim = static_cast<double>(context.model->info.embedding_length);
  const double per_row = mean_tokens(context) / embedding_tokens_per_second(context);
  Estimate e;
  // Embeddings are most of it where no other candidate has made them; the search reads one table of neighbours.
  e.fit_seconds = 1 + rows * per_row + 2 * rows * rows * dim / (0.5e9 * context.speed.gemm_gflops);
  e.min_fit_seconds = e.fit_seconds;
  e.score_seconds_per_row = per_row + 2 * rows * dim / (0.3e9 * context.speed.gemm_gflops);
  e.refit_seconds = 1;
  e.memory_bytes =
      static_cast<std::uint64_t>(2.2 * static_cast<double>(context.model->info.parameters) + rows * dim * 16) +
      120'000'000;
  return e;
}

Result<TrialOutcome> run_neighbours(TrialContext& context) {
  TrialOutcome out;
  TAILOR_TRY(const ReadyModel model, ready_model(context));
  const TrialRows rows = trial_rows(context);
  TAILOR_TRY(const CachedEmbeddings embeddings, cached_embeddings(context, model, rows));
  const int classes = classes_of(context);
  NeighbourOptions chosen{.smoothing = 0.01};
  if (context.settings) {
    chosen.k = context.settings->at("k");
    chosen.temperature = context.settings->at("temperature");
  } else {
    // Neighbours of every validation row among its split's training rows; pooled, so that one search sees all folds.
    const std::size_t most = kNeighbours.back();
    TopK pooled;
    std::vector<int> truth;
    for (const auto& split : rows.splits) {
      TAILOR_TRY(const NeighbourIndex index, NeighbourIndex::make(gather_rows(embeddings.matrix, split.train)));
      TopK top = index.top_k(gather_rows(embeddings.matrix, split.validation), most, context.threads);
      for (auto& row : top.rows) row = static_cast<std::uint32_t>(split.train[row]);
      if (pooled.queries == 0) pooled.k = top.k;
      if (top.k != pooled.k) {  // folds smaller than the largest k: cut to the smallest
        const std::size_t k = std::min(top.k, pooled.k);
        const auto cut = [&](TopK& t) {
          TopK shorter{t.queries, k, {}, {}};
          for (std::size_t q = 0; q < t.queries; ++q) {
            shorter.rows.insert(shorter.rows.end(), t.rows.begin() + static_cast<std::ptrdiff_t>(q * t.k),
                                t.rows.begin() + static_cast<std::ptrdiff_t>(q * t.k + k));
            shorter.similarities.insert(shorter.similarities.end(),
                                        t.similarities.begin() + static_cast<std::ptrdiff_t>(q * t.k),
                                        t.similarities.begin() + static_cast<std::ptrdiff_t>(q * t.k + k));
          }
          t = std::move(shorter);
        };
        cut(top);
        cut(pooled);
      }
      pooled.queries += top.queries;
      pooled.rows.insert(pooled.rows.end(), top.rows.begin(), top.rows.end());
      pooled.similarities.insert(pooled.similarities.end(), top.similarities.begin(), top.similarities.end());
      const auto labels = rows.labels_at(split.validation);
      truth.insert(truth.end(), labels.begin(), labels.end());
    }
    const Metric metric = metric_of(context);
    std::vector<std::size_t> ks;
    for (const std::size_t k : kNeighbours) {
      if (k <= pooled.k) ks.push_back(k);
    }
    TAILOR_TRY(
        const NeighbourSelection selection,
        select_neighbours(pooled, rows.labels, truth, classes, ks, kTemperatures,
                          [&](std::span<const int> t, std::span<const int> p) { return metric.score(t, p, classes); }));
    for (const auto& point : selection.curve)
      out.search.push_back({settings_of(point.options), point.score, 0, truth.size()});
    chosen.k = selection.best.k;
    chosen.temperature = selection.best.temperature;
    out.validation = pooled_predictions(rows, neighbour_probabilities(pooled, rows.labels, classes, chosen));
  }
  TAILOR_TRY(NeighbourIndex index, NeighbourIndex::make(gather_rows(embeddings.matrix, rows.fit)));
  const NeighbourModel fitted{std::move(index), rows.labels_at(rows.fit), classes, chosen};
  TAILOR_CHECK(fitted.save(context.package / kIndexFile));
  if (!context.options.no_texts) {
    std::vector<Demonstration> texts;
    for (const std::size_t p : rows.fit) texts.push_back({rows.texts[p], rows.labels[p]});
    TAILOR_CHECK(save_demonstrations(context.package / kRowsFile, texts, context.data.label_names()));
  }
  out.settings = settings_of(chosen);
  out.base = model.base;
  out.trained_bytes = tree_bytes(context.package / kIndexFile);
  out.shared_seconds = embeddings.shared;
  return out;
}

Result<std::unique_ptr<Classifier>> load_neighbours(const std::filesystem::path& package,
                                                    const PackageManifest& manifest, const PredictOptions& options) {
  TAILOR_TRY(NeighbourModel model, NeighbourModel::load(package / kIndexFile));
  TAILOR_TRY(Embedder embedder, load_embedder(base_model_path(package, manifest.base), options.threads));
  if (model.classes != static_cast<int>(manifest.labels.size()) ||
      model.index.width() != static_cast<std::size_t>(embedder.dim())) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: the neighbours do not belong to this base model and these labels", package.string()),
                 ""};
  }
  std::vector<Demonstration> rows;
  std::error_code ignored;
  if (std::filesystem::exists(package / kRowsFile, ignored)) {
    TAILOR_TRY(rows, load_demonstrations(package / kRowsFile, manifest.labels));
    if (rows.size() != model.index.size()) {
      return Error{
          ErrorCode::kCorruptData,
          fmt::format("{}: {} rows, {} vectors", (package / kRowsFile).string(), rows.size(), model.index.size()),
          "make the package again"};
    }
  }
  return std::unique_ptr<Classifier>(
      std::make_unique<NeighboursClassifier>(std::move(embedder), std::move(model), std::move(rows), options.threads));
}

}  // namespace tailor
