/// The first floor: always the most frequent label, with the labels' shares as probabilities.

#include <algorithm>

#include "core/files.h"
#include "fit/method_support.h"
#include "fit/methods.h"

namespace tailor {
namespace {

constexpr const char* kSharesFile = "shares.json";

class MajorityClassifier final : public Classifier {
 public:
  explicit MajorityClassifier(std::vector<float> shares) : shares_(std::move(shares)) {}
  Result<Matrix> probabilities(std::span<const std::string> texts, const ProgressFn&, const CancelToken&) override {
    Matrix p(texts.size(), shares_.size());
    for (std::size_t i = 0; i < p.rows; ++i) std::copy(shares_.begin(), shares_.end(), p.row(i).begin());
    return p;
  }

 private:
  std::vector<float> shares_;
};

std::vector<float> shares_of(const std::vector<int>& labels, int classes) {
  std::vector<float> shares(static_cast<std::size_t>(classes), 0.0f);
  for (const int label : labels) shares[static_cast<std::size_t>(label)] += 1.0f / static_cast<float>(labels.size());
  return shares;
}

}  // namespace

Estimate estimate_majority(const TrialContext&) {
  Estimate e;
  e.fit_seconds = e.min_fit_seconds = 0.3;
  e.score_seconds_per_row = 1e-6;
  e.refit_seconds = 0.3;
  e.memory_bytes = 40'000'000;
  return e;
}

Result<TrialOutcome> run_majority(TrialContext& context) {
  const TrialRows rows = trial_rows(context);
  const int classes = classes_of(context);
  TrialOutcome out;
  out.settings = Json{{"rule", "most frequent label"}};
  Matrix pooled(0, static_cast<std::size_t>(classes));
  for (const auto& split : rows.splits) {
    const auto shares = shares_of(rows.labels_at(split.train), classes);
    for (std::size_t i = 0; i < split.validation.size(); ++i)
      pooled.data.insert(pooled.data.end(), shares.begin(), shares.end());
    pooled.rows += split.validation.size();
  }
  out.validation = pooled_predictions(rows, std::move(pooled));
  TAILOR_CHECK(
      write_json_atomic(context.package / kSharesFile, Json{{"shares", shares_of(rows.labels_at(rows.fit), classes)}}));
  out.trained_bytes = tree_bytes(context.package / kSharesFile);
  return out;
}

Result<std::unique_ptr<Classifier>> load_majority(const std::filesystem::path& package, const PackageManifest& manifest,
                                                  const PredictOptions&) {
  TAILOR_TRY(const Json json, read_json(package / kSharesFile));
  if (!json.contains("shares") || !json["shares"].is_array() || json["shares"].size() != manifest.labels.size()) {
    return Error{ErrorCode::kCorruptData, package.string() + ": shares.json does not have a share for each label", ""};
  }
  return std::unique_ptr<Classifier>(std::make_unique<MajorityClassifier>(json["shares"].get<std::vector<float>>()));
}

}  // namespace tailor
