/// Prompting: zero-shot, and few-shot with random or with retrieved demonstrations. Nothing is trained; the template,
/// the number of demonstrations and the calibration are chosen on validation rows. All labels are scored as a token
/// trie (infer/label_scorer.h).

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "core/files.h"
#include "core/rng.h"
#include "core/stopwatch.h"
#include "fit/method_support.h"
#include "fit/methods.h"
#include "fit/near_rows.h"
#include "fit/paths.h"
#include "fit/tuned_decoder.h"
#include "infer/label_scorer.h"
#include "learn/neighbours.h"
#include "prompt/demonstrations.h"
#include "prompt/prompt_classifier.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexFile = "neighbours.safetensors";
constexpr const char* kRetrieverFile = "retriever.gguf";
constexpr std::size_t kMostValidationRows = 300;
constexpr std::size_t kFewestValidationRows = 40;
constexpr double kLoadSeconds = 2;
constexpr std::size_t kMostNeighbours = 32;

enum class Kind { kZeroShot, kRandom, kRetrieved };

/// One setting of the search: what differs between prompts.
struct Choice {
  bool list_labels = false;
  int demonstrations = 0;
  int label_neighbours = 0;
};

Json to_json(const Choice& c, Kind kind) {
  Json json{{"list_labels", c.list_labels}};
  if (kind != Kind::kZeroShot) json["demonstrations"] = c.demonstrations;
  if (kind == Kind::kRetrieved) json["label_neighbours"] = c.label_neighbours;
  return json;
}

std::vector<Choice> choices_of(Kind kind) {
  if (kind == Kind::kZeroShot) return {{false, 0, 0}, {true, 0, 0}};
  if (kind == Kind::kRandom) return {{false, 8, 0}, {false, 16, 0}, {false, 4, 0}};
  return {{false, 4, 8}, {false, 8, 8}, {false, 16, 16}};
}

/// Seconds for one message at one choice: its prompt, and the tree of labels after it.
double row_seconds(const TrialContext& context, Kind kind, const Choice& c) {
  const double message = mean_tokens(context) + 6;
  const double labels = static_cast<double>(context.data.label_names().size());
  const double scored =
      kind == Kind::kRetrieved && c.label_neighbours > 0 ? std::min(labels, 0.6 * c.label_neighbours) : labels;
  const double tree = std::max(0.0, 1.6 * scored);
  const double prompt = kind == Kind::kRetrieved ? message * (c.demonstrations + 1) : message;
  return (prompt + tree) / prompting_tokens_per_second(context) + 0.002;
}

Json make_plan(const TrialContext& context, Kind kind, std::size_t available) {
  const auto all = choices_of(kind);
  // As many choices as leave each enough rows to tell them apart; then as many rows as the time gives.
  std::size_t n_choices = all.size();
  std::size_t rows = 0;
  for (;; --n_choices) {
    double per_row = 0;
    for (std::size_t i = 0; i < n_choices; ++i) per_row += row_seconds(context, kind, all[i]);
    const double n = (context.seconds - kLoadSeconds) / per_row;
    rows = static_cast<std::size_t>(
        std::clamp(n, static_cast<double>(kFewestValidationRows), static_cast<double>(kMostValidationRows)));
    if (n_choices == 1 || n >= 100) break;
  }
  return Json{{"choices", n_choices}, {"validation_rows", std::min(rows, available)}};
}

Estimate estimate(const TrialContext& context, Kind kind) {
  const auto all = choices_of(kind);
  double per_row = 0;
  for (const auto& c : all) per_row += row_seconds(context, kind, c);
  Estimate e;
  e.fit_seconds = kLoadSeconds + per_row * static_cast<double>(kMostValidationRows);
  e.min_fit_seconds =
      kLoadSeconds + row_seconds(context, kind, all[0]) * 1.5 * static_cast<double>(kFewestValidationRows);
  e.score_seconds_per_row = row_seconds(context, kind, all[0]);
  e.refit_seconds = 3;
  if (kind == Kind::kRetrieved) {
    const double texts = static_cast<double>(context.data.train_and_validation().size());
    const double encode = texts * mean_tokens(context) / context.speed.encoder_tokens_per_second;
    e.fit_seconds += encode;
    e.min_fit_seconds += encode;
  }
  e.memory_bytes = static_cast<std::uint64_t>(1.3 * static_cast<double>(context.model->info.parameters)) + 350'000'000;
  return e;
}

/// The encoder that finds demonstrations: the first one the user named, else the default one.
Result<TrialModel> retriever_of(const TrialContext& context) {
  for (const auto& name : context.options.models) {
    TAILOR_TRY(ModelInfo info, resolve_model(name, default_models_directory()));
    if (info.kind == ModelKind::kEncoder) return TrialModel{std::move(info), name};
  }
  TAILOR_TRY(ModelInfo info, resolve_model("all-minilm-l6-v2", default_models_directory()));
  return TrialModel{std::move(info), "all-minilm-l6-v2"};
}

Neighbours lists_of(const TopK& top) {
  Neighbours lists(top.queries);
  for (std::size_t q = 0; q < top.queries; ++q) {
    lists[q].assign(top.rows.begin() + static_cast<std::ptrdiff_t>(q * top.k),
                    top.rows.begin() + static_cast<std::ptrdiff_t>((q + 1) * top.k));
  }
  return lists;
}

PromptSettings settings_for(const Choice& c, Kind kind) {
  PromptSettings s;
  s.prompt.list_labels = c.list_labels;
  s.demonstrations = c.demonstrations;
  s.label_neighbours = c.label_neighbours;
  s.choice = kind == Kind::kZeroShot ? DemonstrationChoice::kNone
             : kind == Kind::kRandom ? DemonstrationChoice::kFixed
                                     : DemonstrationChoice::kRetrieved;
  return s;
}

/// Ids of the rows of the pool for this choice, from the rows at `positions`.
std::vector<std::uint32_t> pool_of(std::uint64_t seed, const TrialRows& rows, const std::vector<std::size_t>& positions,
                                   const Choice& c, Kind kind) {
  if (kind == Kind::kZeroShot) return {};
  std::vector<std::size_t> chosen(positions.size());
  std::iota(chosen.begin(), chosen.end(), std::size_t{0});
  if (kind == Kind::kRandom) {
    const auto labels = rows.labels_at(positions);
    Rng rng(seed, 0xDE30);
    chosen = random_demonstrations(labels, static_cast<std::size_t>(c.demonstrations), rng);
  }
  std::vector<std::uint32_t> ids;
  for (const std::size_t i : chosen) ids.push_back(rows.ids[positions[i]]);
  return ids;
}

std::vector<Demonstration> demonstrations_of(const TrialContext& context, const std::vector<std::uint32_t>& ids) {
  std::vector<Demonstration> pool;
  for (const auto id : ids) pool.push_back({context.data.dataset.texts[id], context.data.dataset.labels[id]});
  return pool;
}

struct Tried {
  Choice choice;
  Calibration calibration;
  Predictions predictions;
  std::vector<std::uint32_t> shown;  // random demonstrations: the calibration belongs to these very rows
  double score = -1e30;
};

Result<TrialOutcome> run(TrialContext& context, Kind kind) {
  TrialOutcome out;
  TAILOR_TRY(const ReadyModel model, ready_model(context, ModelUse::kPrompting));
  const TrialRows rows = trial_rows(context, /*max_folds=*/1);
  const int classes = classes_of(context);
  const Metric metric = metric_of(context);
  std::optional<CachedEmbeddings> embeddings;
  std::optional<ReadyModel> retriever;
  if (kind == Kind::kRetrieved) {
    TAILOR_TRY(TrialModel encoder, retriever_of(context));
    TrialContext with_encoder{context.candidate,
                              context.data,
                              context.options,
                              encoder,
                              context.speed,
                              context.seconds,
                              {},
                              context.settings,
                              context.fit_rows,
                              context.validation_rows,
                              context.directory,
                              context.package,
                              context.cache,
                              context.threads,
                              context.progress,
                              context.cancel,
                              context.log};
    TAILOR_TRY(ReadyModel ready, ready_model(with_encoder));
    // All rows that may be shown or asked, whichever folds are used.
    const TrialRows all = trial_rows(with_encoder);
    TAILOR_TRY(CachedEmbeddings cached, cached_embeddings(with_encoder, ready, all));
    out.shared_seconds = cached.shared;
    embeddings = std::move(cached);
    retriever = std::move(ready);
  }
  const auto load_scorer = [&] { return LabelScorer::load(model.gguf, {.threads = context.threads}); };

  Tried best;
  if (!context.settings) {
    // Rows asked: a stratified sample of the validation rows (k-fold: of the first fold, shown rows from the others).
    const RowSplit& split = rows.splits[0];
    RowSet validation;
    for (const std::size_t p : split.validation) validation.ids.push_back(rows.ids[p]);
    out.plan = context.plan ? *context.plan : make_plan(context, kind, validation.size());
    const RowSet asked =
        stratified_sample(context.data, validation, out.plan.at("validation_rows"), context.options.seed + 2);
    const std::vector<std::string> texts = context.data.texts_of(asked);
    const std::vector<int> truth = context.data.labels_of(asked);
    Neighbours neighbours;
    if (kind == Kind::kRetrieved) {
      std::vector<std::size_t> positions;
      std::vector<std::size_t> position_of(context.data.dataset.texts.size());
      for (std::size_t p = 0; p < rows.ids.size(); ++p) position_of[rows.ids[p]] = p;
      for (const auto id : asked.ids) positions.push_back(position_of[id]);
      TAILOR_TRY(const NeighbourIndex index, NeighbourIndex::make(gather_rows(embeddings->matrix, split.train)));
      neighbours = lists_of(index.top_k(gather_rows(embeddings->matrix, positions), kMostNeighbours, context.threads));
    }
    auto choices = choices_of(kind);
    choices.resize(out.plan.at("choices"));
    for (const Choice& choice : choices) {
      const Stopwatch watch;
      TAILOR_TRY(LabelScorer scorer, load_scorer());
      const std::vector<std::uint32_t> pool = pool_of(context.options.seed, rows, split.train, choice, kind);
      TAILOR_TRY(PromptClassifier classifier,
                 PromptClassifier::make(std::move(scorer), settings_for(choice, kind), context.data.label_names(),
                                        demonstrations_of(context, pool)));
      TAILOR_TRY(const std::vector<LabelScores> raw,
                 classifier.score(texts, neighbours, context.progress, context.cancel));
      std::vector<CalibrationTrial> trials;
      TAILOR_CHECK(classifier.calibrate_on(
          raw, [&](std::span<const std::int32_t> predicted) { return metric.score(truth, predicted, classes); },
          context.cancel, &trials));
      const double seconds = watch.seconds();
      for (const auto& t : trials) {
        Json settings = to_json(choice, kind);
        settings["calibration"] = name_of(t.kind);
        settings["length_normalised"] = t.length_normalised;
        out.search.push_back({settings, t.value, seconds / static_cast<double>(trials.size()), truth.size()});
      }
      Matrix p(texts.size(), static_cast<std::size_t>(classes));
      for (std::size_t i = 0; i < texts.size(); ++i) {
        const auto row = softmax(classifier.settings().calibration.apply(raw[i]));
        std::copy(row.begin(), row.end(), p.row(i).begin());
      }
      Predictions predictions = make_predictions(asked.ids, truth, std::move(p));
      const double score = metric.score(predictions.truth, predictions.predicted, classes);
      if (score > best.score + 1e-12)
        best = {choice, classifier.settings().calibration, std::move(predictions), pool, score};
    }
    out.validation = std::move(best.predictions);
  } else {
    best.choice.list_labels = context.settings->at("list_labels");
    best.choice.demonstrations = context.settings->value("demonstrations", 0);
    best.choice.label_neighbours = context.settings->value("label_neighbours", 0);
    TAILOR_TRY(best.calibration, Calibration::from_json(context.settings->at("calibration")));
    if (kind == Kind::kRandom)
      best.shown = context.settings->at("demonstration_rows").get<std::vector<std::uint32_t>>();
    out.plan = context.plan.value_or(Json::object());
  }
  // The package: the chosen prompt with all rows to show. Random demonstrations stay those that were chosen.
  const std::vector<std::uint32_t> pool =
      kind == Kind::kRandom ? best.shown : pool_of(context.options.seed, rows, rows.fit, best.choice, kind);
  TAILOR_TRY(LabelScorer scorer, load_scorer());
  TAILOR_TRY(PromptClassifier classifier,
             PromptClassifier::make(std::move(scorer), settings_for(best.choice, kind), context.data.label_names(),
                                    demonstrations_of(context, pool)));
  classifier.set_calibration(best.calibration);
  TAILOR_CHECK(classifier.save(context.package));
  if (kind == Kind::kRetrieved) {
    TAILOR_TRY(NeighbourIndex index, NeighbourIndex::make(gather_rows(embeddings->matrix, rows.fit)));
    TAILOR_CHECK(
        (NeighbourModel{std::move(index), rows.labels_at(rows.fit), classes, {}}.save(context.package / kIndexFile)));
    std::error_code linked;
    fs::create_hard_link(retriever->gguf, context.package / kRetrieverFile, linked);
    if (linked) TAILOR_CHECK(tailor::copy_file(retriever->gguf, context.package / kRetrieverFile));
  }
  out.settings = to_json(best.choice, kind);
  out.settings["calibration"] = best.calibration.to_json();
  if (kind == Kind::kRandom) out.settings["demonstration_rows"] = best.shown;
  out.base = model.base;
  for (const auto& entry : fs::directory_iterator(context.package)) {
    if (entry.path().filename() != kRetrieverFile) out.trained_bytes += tree_bytes(entry.path());
  }
  return out;
}

class PromptedClassifier final : public Classifier {
 public:
  PromptedClassifier(PromptClassifier prompt, std::optional<Embedder> retriever, std::optional<NeighbourIndex> index,
                     int threads)
      : prompt_(std::move(prompt)), retriever_(std::move(retriever)), index_(std::move(index)), threads_(threads) {}
  Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn& progress,
                               const CancelToken& cancel) override {
    TAILOR_TRY(const Neighbours neighbours, demonstrations(texts, cancel));
    return prompt_.classify(texts, neighbours, progress, cancel);
  }
  Result<std::vector<std::int32_t>> best(std::span<const std::string> texts, const CancelToken& cancel) override {
    TAILOR_TRY(const Neighbours neighbours, demonstrations(texts, cancel));
    TAILOR_TRY(const std::vector<BestLabel> found, prompt_.best(texts, neighbours, {}, cancel));
    std::vector<std::int32_t> out;
    for (const BestLabel& best : found) out.push_back(best.label);
    return out;
  }
  bool holds_rows() const override { return retriever_.has_value(); }
  Result<std::vector<std::vector<NearRow>>> nearest(std::span<const std::string> texts, std::size_t count,
                                                    const CancelToken& cancel) override {
    if (!retriever_) return Classifier::nearest(texts, count, cancel);
    TAILOR_TRY(const Matrix embeddings, retriever_->embed(texts, {}, cancel));
    return near_rows(index_->top_k(embeddings, count, threads_), prompt_.pool());
  }

 private:
  /// Rows that stand near each text; none where prompts show none.
  Result<Neighbours> demonstrations(std::span<const std::string> texts, const CancelToken& cancel) {
    if (!retriever_) return Neighbours();
    TAILOR_TRY(const Matrix embeddings, retriever_->embed(texts, {}, cancel));
    return lists_of(index_->top_k(embeddings, kMostNeighbours, threads_));
  }

  PromptClassifier prompt_;
  std::optional<Embedder> retriever_;
  std::optional<NeighbourIndex> index_;
  int threads_;
};

}  // namespace

Estimate estimate_zero_shot(const TrialContext& context) {
  return estimate(context, Kind::kZeroShot);
}
Estimate estimate_few_shot(const TrialContext& context) {
  return estimate(context, Kind::kRandom);
}
Estimate estimate_few_shot_retrieved(const TrialContext& context) {
  return estimate(context, Kind::kRetrieved);
}
Result<TrialOutcome> run_zero_shot(TrialContext& context) {
  return run(context, Kind::kZeroShot);
}
Result<TrialOutcome> run_few_shot(TrialContext& context) {
  return run(context, Kind::kRandom);
}
Result<TrialOutcome> run_few_shot_retrieved(TrialContext& context) {
  return run(context, Kind::kRetrieved);
}

Result<std::unique_ptr<Classifier>> load_prompted(const fs::path& package, const PackageManifest& manifest,
                                                  const PredictOptions& options) {
  std::error_code ignored;
  const DecoderFiles files = decoder_files_of(package, base_model_path(package, manifest.base));
  TAILOR_TRY(LabelScorer scorer, LabelScorer::load(files.gguf, {.threads = options.threads,
                                                                .soft_prompt = files.soft_prompt,
                                                                .worker = worker_files(files)}));
  TAILOR_TRY(PromptClassifier prompt, PromptClassifier::load(package, std::move(scorer)));
  if (prompt.labels() != manifest.labels)
    return Error{ErrorCode::kCorruptData, package.string() + ": the prompt's labels are not the package's", ""};
  std::optional<Embedder> retriever;
  std::optional<NeighbourIndex> index;
  if (fs::exists(package / kRetrieverFile, ignored)) {
    TAILOR_TRY(retriever, load_embedder(package / kRetrieverFile, options.threads));
    TAILOR_TRY(NeighbourModel stored, NeighbourModel::load(package / kIndexFile));
    index = std::move(stored.index);
    if (index->size() != prompt.pool().size() || index->width() != static_cast<std::size_t>(retriever->dim()))
      return Error{ErrorCode::kCorruptData, package.string() + ": the neighbours do not belong to its rows and encoder",
                   ""};
  }
  return std::unique_ptr<Classifier>(
      std::make_unique<PromptedClassifier>(std::move(prompt), std::move(retriever), std::move(index), options.threads));
}

}  // namespace tailor
