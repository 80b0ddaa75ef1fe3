#include "prompt/prompt_classifier.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "core/json.h"
#include "prompt/demonstration_file.h"
#include "prompt/demonstrations.h"

namespace tailor {
namespace {

constexpr const char* kDemonstrationsFile = "demonstrations.jsonl";
constexpr int kFormat = 1;                                               // of prompt.json
constexpr std::string_view kChoices[] = {"none", "fixed", "retrieved"};  // by DemonstrationChoice

}  // namespace

struct PromptClassifier::Impl {
  LabelScorer scorer;
  PromptSettings settings;
  std::vector<std::string> labels;
  std::vector<Demonstration> pool;
  std::vector<std::int32_t> pool_labels;
  std::optional<PromptBuilder> builder;  // reads the scorer's tokenizer
  TokenList prefix;                      // common to all prompts, found once

  /// Tokens of each text's prompt and, where labels are limited, its labels.
  struct Prepared {
    std::vector<TokenList> prompts;
    std::vector<std::vector<std::int32_t>> subsets;
  };
  Status check(std::span<const std::string> texts, const Neighbours& neighbours) const;
  std::vector<Demonstration> demonstrations(std::span<const std::size_t> neighbours) const;
  Result<Prepared> prepare(std::span<const std::string> texts, const Neighbours& neighbours);
};

PromptClassifier::PromptClassifier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PromptClassifier::PromptClassifier(PromptClassifier&&) noexcept = default;
PromptClassifier& PromptClassifier::operator=(PromptClassifier&&) noexcept = default;
PromptClassifier::~PromptClassifier() = default;
const PromptSettings& PromptClassifier::settings() const {
  return impl_->settings;
}
const std::vector<std::string>& PromptClassifier::labels() const {
  return impl_->labels;
}
const std::vector<Demonstration>& PromptClassifier::pool() const {
  return impl_->pool;
}
const LabelScorer& PromptClassifier::scorer() const {
  return impl_->scorer;
}
void PromptClassifier::set_calibration(Calibration calibration) {
  impl_->settings.calibration = std::move(calibration);
}

std::vector<std::size_t> PromptClassifier::label_tokens() const {
  std::vector<std::size_t> counts;
  for (const TokenList& label : impl_->builder->labels()) counts.push_back(label.size());
  return counts;
}

Result<PromptClassifier> PromptClassifier::make(LabelScorer scorer, PromptSettings settings,
                                                std::vector<std::string> labels, std::vector<Demonstration> pool) {
  if (settings.demonstrations < 0 || settings.label_neighbours < 0) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("a prompt cannot have {} demonstrations and the labels of {} neighbours",
                             settings.demonstrations, settings.label_neighbours),
                 ""};
  }
  for (const Demonstration& d : pool) {
    if (d.label < 0 || static_cast<std::size_t>(d.label) >= labels.size()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("a demonstration has label {}; there are {}", d.label, labels.size()), ""};
    }
  }
  const std::size_t calibrated = settings.calibration.scores.norm.size();
  if (calibrated != 0 && calibrated != labels.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the calibration is for {} labels, there are {}", calibrated, labels.size()),
                 "calibrate again"};
  }
  auto impl = std::make_unique<Impl>(Impl{.scorer = std::move(scorer),
                                          .settings = std::move(settings),
                                          .labels = std::move(labels),
                                          .pool = std::move(pool)});
  TAILOR_TRY(impl->builder,
             PromptBuilder::make(impl->scorer.tokenizer(), impl->scorer.chat_template(), impl->scorer.max_context(),
                                 impl->settings.prompt, readable_labels(impl->labels)));
  for (const Demonstration& d : impl->pool) impl->pool_labels.push_back(d.label);
  TAILOR_CHECK(impl->scorer.set_labels(impl->builder->labels(), impl->labels));
  const bool fixed = impl->settings.choice == DemonstrationChoice::kFixed;
  TAILOR_TRY(impl->prefix, impl->builder->common_prefix(fixed ? std::span<const Demonstration>(impl->pool)
                                                              : std::span<const Demonstration>()));
  return PromptClassifier(std::move(impl));
}

Status PromptClassifier::Impl::check(std::span<const std::string> texts, const Neighbours& neighbours) const {
  if (settings.choice != DemonstrationChoice::kRetrieved) return {};
  if (neighbours.size() != texts.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} texts came with the neighbours of {}", texts.size(), neighbours.size()),
                 "this prompt shows each message's nearest examples: look them up first"};
  }
  for (const std::vector<std::size_t>& rows : neighbours) {
    for (const std::size_t row : rows) {
      if (row >= pool.size())
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("a neighbour is row {} of a pool of {}", row, pool.size()), ""};
    }
  }
  return {};
}

std::vector<Demonstration> PromptClassifier::Impl::demonstrations(std::span<const std::size_t> neighbours) const {
  if (settings.choice == DemonstrationChoice::kFixed) return pool;
  std::vector<Demonstration> chosen;
  if (settings.choice == DemonstrationChoice::kNone) return chosen;
  for (const std::size_t row : retrieved_demonstrations(neighbours, static_cast<std::size_t>(settings.demonstrations)))
    chosen.push_back(pool[row]);
  return chosen;
}

Result<PromptClassifier::Impl::Prepared> PromptClassifier::Impl::prepare(std::span<const std::string> texts,
                                                                         const Neighbours& neighbours) {
  TAILOR_CHECK(check(texts, neighbours));
  const bool retrieved = settings.choice == DemonstrationChoice::kRetrieved;
  Prepared prepared;
  std::size_t common = prefix.size();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::span<const std::size_t> rows =
        retrieved ? std::span<const std::size_t>(neighbours[i]) : std::span<const std::size_t>();
    TAILOR_TRY(TokenList prompt, builder->prompt(texts[i], demonstrations(rows)));
    common = std::min({common, common_length(prefix, prompt), prompt.size() - 1});
    prepared.prompts.push_back(std::move(prompt));
    if (retrieved && settings.label_neighbours > 0) {
      prepared.subsets.push_back(labels_of(
          rows.first(std::min(rows.size(), static_cast<std::size_t>(settings.label_neighbours))), pool_labels));
    }
  }
  // A prompt that lost demonstrations to the context's length may share less with the others.
  TAILOR_CHECK(scorer.set_prefix(TokenList(prefix.begin(), prefix.begin() + static_cast<std::ptrdiff_t>(common))));
  return prepared;
}

Result<std::vector<LabelScores>> PromptClassifier::score(std::span<const std::string> texts,
                                                         const Neighbours& neighbours, const ProgressFn& progress,
                                                         const CancelToken& cancel) {
  TAILOR_TRY(const Impl::Prepared prepared, impl_->prepare(texts, neighbours));
  return impl_->scorer.score_all(prepared.prompts, progress, cancel, prepared.subsets);
}

Result<Matrix> PromptClassifier::classify(std::span<const std::string> texts, const Neighbours& neighbours,
                                          const ProgressFn& progress, const CancelToken& cancel) {
  TAILOR_TRY(const std::vector<LabelScores> scores, score(texts, neighbours, progress, cancel));
  Matrix out(texts.size(), impl_->labels.size());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const std::vector<double> p = softmax(impl_->settings.calibration.apply(scores[i]));
    std::transform(p.begin(), p.end(), out.row(i).begin(), [](double v) { return static_cast<float>(v); });
  }
  return out;
}

Result<std::vector<BestLabel>> PromptClassifier::best(std::span<const std::string> texts, const Neighbours& neighbours,
                                                      const ProgressFn& progress, const CancelToken& cancel) {
  TAILOR_TRY(const Impl::Prepared prepared, impl_->prepare(texts, neighbours));
  return impl_->scorer.best(prepared.prompts, impl_->settings.calibration.scores, progress, cancel, prepared.subsets);
}

Status PromptClassifier::calibrate_on(std::span<const LabelScores> validation, const PredictionMetric& metric,
                                      const CancelToken& cancel, std::vector<CalibrationTrial>* trials) {
  // A probe has no neighbours: where demonstrations are retrieved it shows none, and all labels are scored.
  const std::vector<std::string>& texts = content_free_probes();
  TAILOR_TRY(const std::vector<LabelScores> probes, score(texts, Neighbours(texts.size()), {}, cancel));
  TAILOR_TRY(impl_->settings.calibration, choose_calibration(validation, probes, label_tokens(), metric, trials));
  return {};
}

std::string PromptClassifier::example_prompt(std::string_view text, std::span<const std::size_t> neighbours) const {
  return impl_->builder->prompt_text(text, impl_->demonstrations(neighbours));
}

Status PromptClassifier::save(const std::filesystem::path& dir) const {
  const PromptSettings& s = impl_->settings;
  Json json;
  json["format"] = kFormat;
  json["prompt"] = s.prompt.to_json();
  json["demonstration_choice"] = kChoices[static_cast<std::size_t>(s.choice)];
  json["demonstrations"] = s.demonstrations;
  json["label_neighbours"] = s.label_neighbours;
  json["labels"] = impl_->labels;
  json["calibration"] = s.calibration.to_json();
  TAILOR_CHECK(write_json_atomic(dir / "prompt.json", json));
  if (impl_->pool.empty()) return {};
  return save_demonstrations(dir / kDemonstrationsFile, impl_->pool, impl_->labels);
}

Result<PromptClassifier> PromptClassifier::load(const std::filesystem::path& dir, LabelScorer scorer) {
  const std::filesystem::path file = dir / "prompt.json";
  TAILOR_TRY(const Json json, read_json(file));
  const auto damaged = [&](std::string_view what) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what),
                 "the package is damaged; make it again"};
  };
  PromptSettings settings;
  std::vector<std::string> labels;
  std::vector<Demonstration> pool;
  try {
    if (json.at("format").get<int>() != kFormat)
      return damaged(fmt::format("format {} is not known; expected {}", json.at("format").get<int>(), kFormat));
    TAILOR_TRY(settings.prompt, PromptTemplate::from_json(json.at("prompt")));
    TAILOR_TRY(settings.calibration, Calibration::from_json(json.at("calibration")));
    const auto choice = json.at("demonstration_choice").get<std::string>();
    const auto* known = std::find(std::begin(kChoices), std::end(kChoices), choice);
    if (known == std::end(kChoices)) return damaged(fmt::format("demonstration_choice is '{}'", choice));
    settings.choice = static_cast<DemonstrationChoice>(known - std::begin(kChoices));
    settings.demonstrations = json.at("demonstrations").get<int>();
    settings.label_neighbours = json.at("label_neighbours").get<int>();
    labels = json.at("labels").get<std::vector<std::string>>();
    if (settings.choice != DemonstrationChoice::kNone) {
      TAILOR_TRY(pool, load_demonstrations(dir / kDemonstrationsFile, labels));
    }
  } catch (const nlohmann::json::exception& e) {
    return damaged(e.what());
  }
  return make(std::move(scorer), std::move(settings), std::move(labels), std::move(pool));
}

}  // namespace tailor
