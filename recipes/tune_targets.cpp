#include "recipes/tune_targets.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/safetensors.h"
#include "eval/target_scores.h"
#include "fit/prepared_data.h"
#include "fit/serving.h"
#include "fit/target_data.h"

namespace tailor {
namespace {

/// The trainer's answers of a part, rows in the order of the file: values, or probabilities of all labels.
Result<std::vector<float>> read_floats(const std::filesystem::path& file, TargetKind kind) {
  TAILOR_TRY(const SafetensorsFile stored, SafetensorsFile::open(file));
  TAILOR_TRY(const SafeTensor tensor,
             kind == TargetKind::kNumber ? stored.get("values", "F32", 1) : stored.get("probabilities", "F32", 2));
  std::vector<float> out(tensor.bytes.size() / sizeof(float));
  std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  return out;
}

class TargetTask final : public EncoderTask {
 public:
  using EncoderTask::EncoderTask;

 private:
  Status read() override;
  const SplitData& data() const override { return data_; }
  TokenFile tokenize(const Tokenizer& tokenizer, const EncoderReading& reading) const override {
    return tokenize_targets(data_, tokenizer, reading);
  }
  Status describe(PackageManifest& manifest) override;
  Status read_answers() override;
  Json prediction(std::size_t test_row) const override;
  Result<Answered> ask(const PackageManifest& manifest) override;
  void report(Json& result) const override;

  bool number() const { return data_.kind == TargetKind::kNumber; }
  std::vector<std::uint8_t> said(std::span<const float> probabilities) const;
  std::vector<std::uint8_t> truth_of(std::span<const std::uint32_t> rows) const;
  Json scores(std::span<const float> answers) const;  // of the test part, with intervals
  Json names_of(std::span<const std::uint8_t> set) const;

  PreparedTargets data_;
  std::vector<std::uint32_t> test_;
  PackageTarget target_;
  std::vector<float> trained_;  // of the test rows: numbers in their own unit, or probabilities
};

Status TargetTask::read() {
  TAILOR_TRY(data_, prepare_targets(options()));
  test_ = data_.rows_of(TokenPart::kTest);
  return {};
}

std::vector<std::uint8_t> TargetTask::truth_of(std::span<const std::uint32_t> rows) const {
  std::vector<std::uint8_t> out;
  for (const auto r : rows) {
    for (std::size_t l = 0; l < data_.width(); ++l) out.push_back(data_.targets[r * data_.width() + l] > 0 ? 1 : 0);
  }
  return out;
}

Status TargetTask::describe(PackageManifest& manifest) {
  target_ = {.kind = number() ? PackageTarget::Kind::kNumber : PackageTarget::Kind::kLabelSet};
  if (number()) {
    target_.mean = data_.mean;
    target_.deviation = data_.deviation;
  } else if (!options().label_separator.empty()) {
    target_.separator = options().label_separator;
  }
  const auto validation = data_.rows_of(TokenPart::kValidation);
  if (!number() && !validation.empty()) {
    TAILOR_TRY(const std::vector<float> answers,
               read_floats(trained().directory / "validation_predictions.safetensors", data_.kind));
    target_.threshold = best_threshold(answers, truth_of(validation), data_.width());
  }
  manifest.serving = kServeTunedTargets;
  manifest.target = target_;
  manifest.labels = data_.label_names;
  return {};
}

std::vector<std::uint8_t> TargetTask::said(std::span<const float> probabilities) const {
  std::vector<std::uint8_t> out;
  for (const float p : probabilities) out.push_back(p >= target_.threshold ? 1 : 0);
  return out;
}

Json TargetTask::scores(std::span<const float> answers) const {
  if (!number()) {
    const auto truth = truth_of(test_), predicted = said(answers);
    return to_json(bootstrap_label_sets({data_.width(), truth, predicted}, {.seed = options().seed}));
  }
  std::vector<double> truth, predicted(answers.begin(), answers.end());
  for (const auto r : test_) truth.push_back(data_.targets[r]);
  return to_json(bootstrap_numbers(truth, predicted, {.seed = options().seed}));
}

Json TargetTask::names_of(std::span<const std::uint8_t> set) const {
  Json names = Json::array();
  for (std::size_t l = 0; l < set.size(); ++l) {
    if (set[l] != 0) names.push_back(data_.label_names[l]);
  }
  return names;
}

Status TargetTask::read_answers() {
  TAILOR_TRY(trained_, read_floats(trained().directory / "test_predictions.safetensors", data_.kind));
  if (number()) {
    for (float& value : trained_) value = static_cast<float>(data_.mean + data_.deviation * value);
  }
  return {};
}

Json TargetTask::prediction(std::size_t test_row) const {
  const std::uint32_t row = test_[test_row];
  const std::size_t width = data_.width();
  Json line{{"line", data_.lines[row]}};
  if (number()) {
    line["target"] = data_.targets[row];
    line["predicted"] = trained_[test_row];
  } else {
    const auto p = std::span(trained_).subspan(test_row * width, width);
    line["labels"] = names_of(truth_of({&row, 1}));
    line["predicted"] = names_of(said(p));
    line["p"] = std::vector<float>(p.begin(), p.end());
  }
  return line;
}

Result<EncoderTask::Answered> TargetTask::ask(const PackageManifest&) {
  TAILOR_TRY(LoadedPackage package, load_package(package_directory(), {.threads = threads()}));
  std::vector<std::string> texts;
  for (const auto r : test_) texts.push_back(data_.texts[r]);
  const Stopwatch watch;
  TAILOR_TRY(const Matrix answers, package.classifier->probabilities(texts, progress(), cancel()));
  const double seconds = watch.seconds();
  Answered out{Json{{"metrics", scores(answers.data)}}, seconds};
  double largest = 0;
  for (std::size_t i = 0; i < answers.data.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(answers.data[i]) - trained_[i]));
  out.figures["largest_difference"] = largest;
  if (number()) return out;
  const auto a = said(trained_), b = said(answers.data);
  const std::size_t width = data_.width();
  std::size_t same = 0;
  for (std::size_t i = 0; i < texts.size(); ++i)
    same += std::memcmp(a.data() + i * width, b.data() + i * width, width) == 0 ? 1 : 0;
  out.figures["same_labels"] = same;
  return out;
}

void TargetTask::report(Json& result) const {
  if (number())
    result["target"] = Json{{"column", options().label_column}, {"mean", data_.mean}, {"deviation", data_.deviation}};
  else
    result["threshold"] = target_.threshold;
  result["test"] = Json{{"metrics", scores(trained_)}};
  result["data"]["labels"] = data_.label_names;
}

}  // namespace

bool tunes_targets(const TuneOptions& options) {
  return options.task == kTaskRegression || options.task == kTaskMultiLabel;
}

std::unique_ptr<EncoderTask> target_task(TuneOptions options, RunUi& ui, const CancelToken& cancel) {
  return std::make_unique<TargetTask>(std::move(options), ui, cancel);
}

}  // namespace tailor
