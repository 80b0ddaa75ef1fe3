#include "eval/span_scores.h"

#include <fmt/format.h>

#include "core/result.h"
#include "eval/resampling.h"

namespace tailor {
namespace {

struct RowTally {
  SpanCounts spans;
  double words = 0, right = 0;

  void add(const RowTally& other) {
    spans.truth += other.spans.truth;
    spans.predicted += other.spans.predicted;
    spans.right += other.spans.right;
    words += other.words;
    right += other.right;
  }
  double accuracy() const { return words > 0 ? right / words : 0; }
};

RowTally tally(const std::vector<std::int32_t>& truth, const std::vector<std::int32_t>& predicted) {
  if (truth.size() != predicted.size()) {
    throw Exception(
        {ErrorCode::kInvalidArgument, fmt::format("{} tags are held against {}", truth.size(), predicted.size()), ""});
  }
  RowTally out;
  count_spans(truth, predicted, out.spans);
  out.words = static_cast<double>(truth.size());
  for (std::size_t i = 0; i < truth.size(); ++i) out.right += truth[i] == predicted[i] ? 1 : 0;
  return out;
}

}  // namespace

Json to_json(const TagScores& s, bool spans) {
  Json out;
  if (spans) out = Json{{"f1", to_json(s.f1)}, {"precision", to_json(s.precision)}, {"recall", to_json(s.recall)}};
  out["accuracy"] = to_json(s.accuracy);
  return out;
}

TagScores bootstrap_tags(const TagRows& truth, const TagRows& predicted, const BootstrapOptions& options) {
  if (truth.size() != predicted.size())
    throw Exception(
        {ErrorCode::kInvalidArgument, fmt::format("{} rows are held against {}", truth.size(), predicted.size()), ""});
  std::vector<RowTally> rows;
  RowTally whole;
  for (std::size_t r = 0; r < truth.size(); ++r) {
    rows.push_back(tally(truth[r], predicted[r]));
    whole.add(rows.back());
  }
  std::vector<double> accuracy, precision, recall, f1;
  resample(rows.size(), options, [&](const std::vector<std::size_t>& chosen) {
    RowTally t;
    for (const std::size_t r : chosen) t.add(rows[r]);
    accuracy.push_back(t.accuracy());
    precision.push_back(t.spans.precision());
    recall.push_back(t.spans.recall());
    f1.push_back(t.spans.f1());
  });
  const double c = options.confidence;
  return {percentiles(whole.accuracy(), std::move(accuracy), c),
          percentiles(whole.spans.precision(), std::move(precision), c),
          percentiles(whole.spans.recall(), std::move(recall), c), percentiles(whole.spans.f1(), std::move(f1), c)};
}

std::vector<SpanCounts> count_by_type(const TagRows& truth, const TagRows& predicted, std::size_t types) {
  std::vector<SpanCounts> out(types);
  for (std::size_t t = 0; t < types; ++t) {
    const auto only = [&](std::vector<std::int32_t> row) {
      for (std::int32_t& tag : row) {
        if (type_of_tag(tag) != static_cast<std::int32_t>(t)) tag = kOutside;
      }
      return row;
    };
    for (std::size_t r = 0; r < truth.size(); ++r) count_spans(only(truth[r]), only(predicted[r]), out[t]);
  }
  return out;
}

}  // namespace tailor
