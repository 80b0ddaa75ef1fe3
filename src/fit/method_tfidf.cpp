/// The second floor: TF-IDF of words and of characters with multinomial logistic regression. No language model; a
/// candidate that does not beat it is not worth its cost.

#include <fmt/format.h>

#include "core/files.h"
#include "fit/method_support.h"
#include "fit/methods.h"
#include "learn/tfidf.h"

namespace tailor {
namespace {

constexpr const char* kHeadFile = "head.safetensors";
constexpr const char* kWordsFile = "words.json";
constexpr const char* kCharactersFile = "characters.json";
const std::vector<double> kGrid{3, 30, 300};

struct Vectorizers {
  std::optional<Tfidf> words, characters;
  CsrMatrix transform(std::span<const std::string> texts) const {
    if (!characters) return words->transform(texts);
    return join_columns(words->transform(texts), characters->transform(texts));
  }
};

Result<Vectorizers> fit_vectorizers(std::span<const std::string> texts, bool with_characters) {
  Vectorizers v;
  TfidfOptions words{.terms = {.kind = TermOptions::Kind::kWordsAndMarks, .min_n = 1, .max_n = 2},
                     .sublinear_tf = true};
  TAILOR_TRY(v.words, Tfidf::fit(texts, words));
  if (with_characters) {
    TfidfOptions characters{.terms = {.kind = TermOptions::Kind::kCharacters, .min_n = 2, .max_n = 5},
                            .min_df = 2,
                            .max_features = 50'000,
                            .sublinear_tf = true};
    auto fitted = Tfidf::fit(texts, characters);
    if (fitted) v.characters = std::move(*fitted);  // too few texts for a repeated term: words alone
  }
  return v;
}

class TfidfClassifier final : public Classifier {
 public:
  TfidfClassifier(Vectorizers vectorizers, LogisticModel head, int threads)
      : vectorizers_(std::move(vectorizers)), head_(std::move(head)), threads_(threads) {}
  Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn&, const CancelToken&) override {
    return head_.probabilities(vectorizers_.transform(texts), threads_);
  }

 private:
  Vectorizers vectorizers_;
  LogisticModel head_;
  int threads_;
};

}  // namespace

Estimate estimate_tfidf(const TrialContext& context) {
  const double rows = static_cast<double>(context.data.train_and_validation().size());
  const double classes = static_cast<double>(classes_of(context));
  const double folds = context.data.kfold() ? context.data.split.folds + 1 : 2;
  // About 120 terms a row (characters included), 40 passes a value of C, both kinds of terms.
  Estimate e;
  e.fit_seconds = 1 + folds * static_cast<double>(kGrid.size()) * 40 * 4 * rows * (120 + 20) * classes / 2.4e9;
  e.min_fit_seconds = e.fit_seconds;
  e.score_seconds_per_row = 5e-5;
  e.refit_seconds = e.fit_seconds / (2 * folds);
  e.memory_bytes = static_cast<std::uint64_t>(100e6 + 12 * 150 * rows + 8 * 12 * 50'000 * classes);
  return e;
}

Result<TrialOutcome> run_tfidf(TrialContext& context) {
  TrialOutcome out;
  const TrialRows rows = trial_rows(context);
  std::vector<std::string> fit_texts;
  for (const std::size_t p : rows.fit) fit_texts.push_back(rows.texts[p]);
  // The vocabulary comes from the rows that are fitted on, which holds no label; folds share it.
  std::vector<bool> kinds{false, true};
  double fixed = 0;
  if (context.settings) {
    kinds = {context.settings->at("terms").get<std::string>() != "words"};
    fixed = context.settings->at("c");
  }
  std::optional<LinearFit> best;
  std::optional<Vectorizers> chosen;
  double best_score = 0;
  for (const bool characters : kinds) {
    TAILOR_TRY(Vectorizers vectorizers, fit_vectorizers(fit_texts, characters));
    const CsrMatrix features = vectorizers.transform(rows.texts);
    const Json settings{{"terms", characters ? "words 1-2 and characters 2-5" : "words"}};
    TAILOR_TRY(LinearFit fit, fit_linear(context, rows, features, kGrid, fixed, settings));
    double score = 0;
    for (const auto& point : fit.search) score = std::max(score, point.score);
    out.search.insert(out.search.end(), fit.search.begin(), fit.search.end());
    if (!best || score > best_score + 1e-12) {
      out.settings = settings;
      out.settings["c"] = fit.c;
      best = std::move(fit);
      chosen = std::move(vectorizers);
      best_score = score;
    }
  }
  TAILOR_CHECK(best->model.save(context.package / kHeadFile));
  TAILOR_CHECK(chosen->words->save(context.package / kWordsFile));
  if (chosen->characters) TAILOR_CHECK(chosen->characters->save(context.package / kCharactersFile));
  out.validation = std::move(best->validation);
  out.trained_bytes = tree_bytes(context.package);
  return out;
}

Result<std::unique_ptr<Classifier>> load_tfidf(const std::filesystem::path& package, const PackageManifest& manifest,
                                               const PredictOptions& options) {
  Vectorizers v;
  TAILOR_TRY(v.words, Tfidf::load(package / kWordsFile));
  std::error_code ignored;
  if (std::filesystem::exists(package / kCharactersFile, ignored)) {
    TAILOR_TRY(v.characters, Tfidf::load(package / kCharactersFile));
  }
  TAILOR_TRY(LogisticModel head, LogisticModel::load(package / kHeadFile));
  const std::size_t terms = v.words->size() + (v.characters ? v.characters->size() : 0);
  if (head.classes != static_cast<int>(manifest.labels.size()) || head.features != terms) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: the linear model has {} labels and {} terms, the package {} and {}", package.string(),
                             head.classes, head.features, manifest.labels.size(), terms),
                 ""};
  }
  return std::unique_ptr<Classifier>(std::make_unique<TfidfClassifier>(std::move(v), std::move(head), options.threads));
}

}  // namespace tailor
