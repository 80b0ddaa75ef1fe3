#include "prompt/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace tailor {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr CalibrationKind kKinds[] = {CalibrationKind::kNone, CalibrationKind::kContentFree,
                                      CalibrationKind::kBatchMean};
constexpr double kLeastLogMean = -40;  // a label that was never likely: its bias stays finite

}  // namespace

std::string_view name_of(CalibrationKind kind) {
  switch (kind) {
    case CalibrationKind::kNone:
      return "none";
    case CalibrationKind::kContentFree:
      return "content_free";
    case CalibrationKind::kBatchMean:
      return "batch_mean";
  }
  return "";
}

const std::vector<std::string>& content_free_probes() {
  static const std::vector<std::string> probes{"N/A", "", "[MASK]"};
  return probes;
}

std::int32_t arg_max(std::span<const double> scores) {
  return static_cast<std::int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

std::vector<double> softmax(std::span<const double> scores) {
  std::vector<double> p(scores.size(), 0.0);
  if (scores.empty()) return p;
  const double highest = *std::max_element(scores.begin(), scores.end());
  if (!std::isfinite(highest)) return p;
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] = std::exp(scores[i] - highest);
  for (double& v : p) v /= sum;
  return p;
}

std::vector<double> Calibration::apply(std::span<const double> log_p) const {
  std::vector<double> out(log_p.begin(), log_p.end());
  if (scores.norm.empty()) return out;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = (out[i] - scores.bias[i]) / scores.norm[i];
  return out;
}

Json Calibration::to_json() const {
  Json json;
  json["kind"] = name_of(kind);
  json["length_normalised"] = length_normalised;
  json["bias"] = scores.bias;
  json["norm"] = scores.norm;
  return json;
}

Result<Calibration> Calibration::from_json(const Json& json) {
  const Error damaged{ErrorCode::kCorruptData, "the prompt's calibration cannot be read",
                      "the package is damaged; make it again"};
  Calibration c;
  try {
    const auto kind = json.at("kind").get<std::string>();
    const auto* known =
        std::find_if(std::begin(kKinds), std::end(kKinds), [&](CalibrationKind k) { return name_of(k) == kind; });
    if (known == std::end(kKinds)) return damaged;
    c.kind = *known;
    c.length_normalised = json.at("length_normalised").get<bool>();
    c.scores.bias = json.at("bias").get<std::vector<double>>();
    c.scores.norm = json.at("norm").get<std::vector<double>>();
  } catch (const nlohmann::json::exception&) {
    return damaged;
  }
  const bool sound =
      c.scores.bias.size() == c.scores.norm.size() &&
      std::all_of(c.scores.norm.begin(), c.scores.norm.end(), [](double n) { return std::isfinite(n) && n > 0; }) &&
      std::all_of(c.scores.bias.begin(), c.scores.bias.end(), [](double b) { return std::isfinite(b); });
  if (!sound) return damaged;
  return c;
}

Result<Calibration> calibrate(CalibrationKind kind, bool length_normalised, std::span<const LabelScores> rows,
                              std::span<const std::size_t> label_tokens) {
  const std::size_t n = label_tokens.size();
  Calibration c{.kind = kind,
                .length_normalised = length_normalised,
                .scores = {.bias = std::vector<double>(n, 0.0), .norm = std::vector<double>(n, 1.0)}};
  if (length_normalised) {
    for (std::size_t l = 0; l < n; ++l)
      c.scores.norm[l] = static_cast<double>(std::max<std::size_t>(label_tokens[l], 1));
  }
  if (kind == CalibrationKind::kNone) return c;
  if (rows.empty())
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("calibration '{}' has no scores to learn from", name_of(kind)), "give some messages"};
  std::vector<double> sum(n, 0.0), seen(n, 0.0);
  for (const LabelScores& row : rows) {
    if (row.size() != n)
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("calibration has scores of {} labels, expected {}", row.size(), n), ""};
    const std::vector<double> p = softmax(c.apply(row));
    for (std::size_t l = 0; l < n; ++l) {
      if (row[l] == kNever) continue;
      sum[l] += p[l];
      seen[l] += 1;
    }
  }
  // Labels that were in no row get the average correction: neither favoured nor held back.
  double total = 0, counted = 0;
  std::vector<std::optional<double>> log_mean(n);
  for (std::size_t l = 0; l < n; ++l) {
    if (seen[l] == 0) continue;
    log_mean[l] = std::max(std::log(sum[l] / seen[l]), kLeastLogMean);
    total += *log_mean[l];
    counted += 1;
  }
  for (std::size_t l = 0; l < n; ++l)
    c.scores.bias[l] = log_mean[l].value_or(counted > 0 ? total / counted : 0) * c.scores.norm[l];
  return c;
}

Result<Calibration> choose_calibration(std::span<const LabelScores> validation, std::span<const LabelScores> probes,
                                       std::span<const std::size_t> label_tokens, const PredictionMetric& metric,
                                       std::vector<CalibrationTrial>* trials) {
  std::optional<Calibration> best;
  double best_value = kNever;
  for (const CalibrationKind kind : kKinds) {
    if (kind == CalibrationKind::kContentFree && probes.empty()) continue;
    for (const bool length_normalised : {false, true}) {
      TAILOR_TRY(Calibration c, calibrate(kind, length_normalised,
                                          kind == CalibrationKind::kContentFree ? probes : validation, label_tokens));
      std::vector<std::int32_t> predicted;
      for (const LabelScores& row : validation) predicted.push_back(arg_max(c.apply(row)));
      const double value = metric(predicted);
      if (trials != nullptr) trials->push_back({kind, length_normalised, value});
      if (best && value <= best_value) continue;
      best = std::move(c);
      best_value = value;
    }
  }
  return std::move(*best);
}

}  // namespace tailor
