#include "data/report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/json.h"

namespace tailor {
namespace {

std::string_view name_of(Severity severity) {
  switch (severity) {
    case Severity::kError:
      return "error";
    case Severity::kWarning:
      return "warning";
    case Severity::kNote:
      return "note";
  }
  return "note";
}

Json to_json(const LengthSummary& s) {
  return {{"min", s.min}, {"mean", s.mean}, {"p5", s.p5},   {"p50", s.p50},
          {"p90", s.p90}, {"p95", s.p95},   {"p99", s.p99}, {"max", s.max}};
}

}  // namespace

LengthSummary summarise_lengths(std::vector<std::size_t> lengths) {
  LengthSummary summary;
  if (lengths.empty()) return summary;
  std::sort(lengths.begin(), lengths.end());
  const auto percentile = [&](double p) {
    const double place = p / 100 * static_cast<double>(lengths.size() - 1);
    const auto low = static_cast<std::size_t>(place);
    const std::size_t high = std::min(low + 1, lengths.size() - 1);
    const double weight = place - std::floor(place);
    return static_cast<double>(lengths[low]) * (1 - weight) + static_cast<double>(lengths[high]) * weight;
  };
  summary.mean = std::accumulate(lengths.begin(), lengths.end(), 0.0) / static_cast<double>(lengths.size());
  summary.p5 = percentile(5);
  summary.p50 = percentile(50);
  summary.p90 = percentile(90);
  summary.p95 = percentile(95);
  summary.p99 = percentile(99);
  summary.min = lengths.front();
  summary.max = lengths.back();
  return summary;
}

void DataReport::add(Finding finding) {
  const auto place = std::find_if(findings.begin(), findings.end(),
                                  [&](const Finding& other) { return other.severity < finding.severity; });
  findings.insert(place, std::move(finding));
}

Status DataReport::status() const {
  if (findings.empty() || findings.front().severity != Severity::kError) return {};
  const std::string where = file.empty() ? "" : file + ": ";
  return Error{ErrorCode::kInvalidArgument, where + findings.front().message, findings.front().hint};
}

nlohmann::ordered_json to_json(const Finding& finding) {
  return {{"severity", name_of(finding.severity)},
          {"code", finding.code},
          {"message", finding.message},
          {"hint", finding.hint},
          {"count", finding.count},
          {"lines", finding.lines}};
}

nlohmann::ordered_json to_json(const DataReport& report) {
  Json labels = Json::array();
  for (const LabelCount& label : report.labels) labels.push_back({{"label", label.label}, {"rows", label.rows}});
  Json findings = Json::array();
  for (const Finding& finding : report.findings) findings.push_back(to_json(finding));
  return {{"file", report.file},
          {"encoding", report.encoding},
          {"delimiter", std::string(1, report.delimiter)},
          {"columns", report.columns},
          {"rows_read", report.rows_read},
          {"rows_kept", report.rows_kept},
          {"empty_texts", report.empty_texts},
          {"empty_labels", report.empty_labels},
          {"exact_duplicates", report.exact_duplicates},
          {"near_duplicates", report.near_duplicates},
          {"conflicting_duplicates", report.conflicting_duplicates},
          {"labels", std::move(labels)},
          {"imbalance_ratio", report.imbalance_ratio},
          {"characters", to_json(report.characters)},
          {"tokens", report.tokens ? to_json(*report.tokens) : Json(nullptr)},
          {"findings", std::move(findings)}};
}

}  // namespace tailor
