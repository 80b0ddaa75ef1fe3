#include "eval/metric.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/json.h"

namespace tailor {
namespace {

Error invalid(std::string message, std::string hint) {
  return {ErrorCode::kInvalidArgument, std::move(message), std::move(hint)};
}

constexpr const char* kKnown = "use accuracy, macro_f1, f1:<label> or cost:<JSON file>";

Result<int> find_label(const std::string& name, std::span<const std::string> labels, std::string_view where) {
  const auto it = std::find(labels.begin(), labels.end(), name);
  if (it == labels.end()) {
    const auto shown = labels.subspan(0, std::min<std::size_t>(labels.size(), 20));
    return invalid(fmt::format("{}: there is no label '{}' in the data", where, name),
                   fmt::format("labels are: {}{}", fmt::join(shown, ", "), shown.size() < labels.size() ? ", …" : ""));
  }
  return static_cast<int>(it - labels.begin());
}

Result<double> cost_value(const Json& value, std::string_view where) {
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    return invalid(fmt::format("{}: a cost must be a finite number, not {}", where, dump_json(value)), "");
  }
  return value.get<double>();
}

Result<std::vector<double>> parse_costs(const Json& json, std::span<const std::string> labels) {
  const std::size_t k = labels.size();
  std::vector<double> costs(k * k, 1.0);
  for (std::size_t i = 0; i < k; ++i) costs[i * k + i] = 0.0;
  if (json.is_array()) {
    if (json.size() != k)
      return invalid(fmt::format("the cost matrix has {} rows, the data {} labels", json.size(), k), "");
    for (std::size_t t = 0; t < k; ++t) {
      if (!json[t].is_array() || json[t].size() != k) {
        return invalid(fmt::format("row {} of the cost matrix must be an array of {} numbers", t + 1, k), "");
      }
      for (std::size_t p = 0; p < k; ++p) {
        TAILOR_TRY(costs[t * k + p],
                   cost_value(json[t][p], fmt::format("cost matrix, row {}, column {}", t + 1, p + 1)));
      }
    }
    return costs;
  }
  if (!json.is_object()) {
    return invalid("a cost matrix is an array of rows or an object {\"true label\": {\"predicted label\": cost}}", "");
  }
  for (const auto& [truth_name, row] : json.items()) {
    TAILOR_TRY(const int t, find_label(truth_name, labels, "cost matrix"));
    if (!row.is_object())
      return invalid(fmt::format("cost matrix, label '{}': expected an object of costs", truth_name), "");
    for (const auto& [predicted_name, value] : row.items()) {
      TAILOR_TRY(const int p, find_label(predicted_name, labels, fmt::format("cost matrix, label '{}'", truth_name)));
      TAILOR_TRY(costs[static_cast<std::size_t>(t) * k + static_cast<std::size_t>(p)],
                 cost_value(value, fmt::format("cost matrix, '{}' taken for '{}'", truth_name, predicted_name)));
    }
  }
  return costs;
}

}  // namespace

Metric Metric::class_f1(int label, std::string label_name) {
  Metric m(Kind::kClassF1);
  m.label_ = label;
  m.label_name_ = std::move(label_name);
  return m;
}

Metric Metric::cost(std::vector<double> costs, int classes) {
  const auto k = static_cast<std::size_t>(classes);
  if (costs.size() != k * k) {
    throw Exception(
        invalid(fmt::format("a cost matrix of {} classes has {} entries, not {}", k, k * k, costs.size()), ""));
  }
  Metric m(Kind::kCost);
  m.classes_ = classes;
  std::vector<double> padded;
  padded.reserve(k * (k + 1));
  for (std::size_t t = 0; t < k; ++t) {
    const auto row = std::span<const double>(costs).subspan(t * k, k);
    padded.insert(padded.end(), row.begin(), row.end());
    padded.push_back(*std::max_element(row.begin(), row.end()));
  }
  m.costs_ = std::make_shared<const std::vector<double>>(std::move(padded));
  return m;
}

Result<Metric> Metric::parse(std::string_view text, std::span<const std::string> labels) {
  if (text == "accuracy") return accuracy();
  if (text == "macro_f1" || text == "macro-f1") return macro_f1();
  if (text.starts_with("f1:")) {
    std::string name(text.substr(3));
    TAILOR_TRY(const int label, find_label(name, labels, fmt::format("metric '{}'", text)));
    return class_f1(label, std::move(name));
  }
  if (text.starts_with("cost:")) {
    const std::string_view rest = text.substr(5);
    const bool inline_json = rest.starts_with('[') || rest.starts_with('{');
    TAILOR_TRY(const Json json, inline_json ? parse_json(rest, "cost matrix") : read_json(std::filesystem::path(rest)));
    TAILOR_TRY(auto costs, parse_costs(json, labels));
    return cost(std::move(costs), static_cast<int>(labels.size()));
  }
  return invalid(fmt::format("unknown metric '{}'", text), kKnown);
}

std::string Metric::name() const {
  switch (kind_) {
    case Kind::kAccuracy:
      return "accuracy";
    case Kind::kMacroF1:
      return "macro_f1";
    case Kind::kClassF1:
      return "f1:" + label_name_;
    case Kind::kCost:
      return "cost";
  }
  return "";
}

double Metric::row_cost(int truth, int predicted) const {
  if (kind_ != Kind::kCost) return 0;
  const auto width = static_cast<std::size_t>(classes_) + 1;
  const auto column = predicted == kNoAnswer ? width - 1 : static_cast<std::size_t>(predicted);
  return (*costs_)[static_cast<std::size_t>(truth) * width + column];
}

double Metric::score(std::span<const int> truth, std::span<const int> predicted, int classes) const {
  const Tally t = tally(truth, predicted, classes);
  if (kind_ == Kind::kCost && classes != classes_) {
    throw Exception(invalid(fmt::format("the cost matrix has {} classes, the rows {}", classes_, classes), ""));
  }
  double cost_sum = 0;
  if (kind_ == Kind::kCost) {
    for (std::size_t i = 0; i < truth.size(); ++i) cost_sum += row_cost(truth[i], predicted[i]);
  }
  return score(t, cost_sum);
}

double Metric::score(const Tally& t, double summed_cost) const {
  switch (kind_) {
    case Kind::kAccuracy:
      return tailor::accuracy(t);
    case Kind::kMacroF1:
      return macro_average(t).f1;
    case Kind::kClassF1: {
      const auto c = static_cast<std::size_t>(label_);
      const auto d = static_cast<double>(t.truths[c] + t.predicted[c]);
      return d > 0 ? 2.0 * static_cast<double>(t.hits[c]) / d : 0.0;
    }
    case Kind::kCost:
      return t.rows > 0 ? -summed_cost / static_cast<double>(t.rows) : 0.0;
  }
  return 0;
}

}  // namespace tailor
