#pragma once
/// The one figure by which the user wants candidates chosen. Larger is always better (a cost is negated).

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "eval/metrics.h"

namespace tailor {

/// A value type; copying is cheap (the cost matrix is shared).
class Metric {
 public:
  enum class Kind { kAccuracy, kMacroF1, kClassF1, kCost };

  static Metric accuracy() { return Metric(Kind::kAccuracy); }
  static Metric macro_f1() { return Metric(Kind::kMacroF1); }
  static Metric class_f1(int label, std::string label_name);
  /// costs [classes * classes], row = true class, column = predicted class; finite.
  static Metric cost(std::vector<double> costs, int classes);

  /// "accuracy", "macro_f1", "f1:<label>", or "cost:<file or JSON>". The JSON is either an array of rows in the order
  /// of `labels`, or {"true label": {"predicted label": cost}} where what is not named costs 0 on the diagonal and 1
  /// off it. Errors name the known metrics or labels.
  static Result<Metric> parse(std::string_view text, std::span<const std::string> labels);

  Kind kind() const { return kind_; }
  std::string name() const;  // "accuracy", "macro_f1", "f1:spam", "cost"
  /// How a person reads the number: a cost is shown without its minus sign.
  double shown(double score) const { return kind_ == Kind::kCost ? -score : score; }

  double score(std::span<const int> truth, std::span<const int> predicted, int classes) const;
  /// From counts alone; the summed cost is the only thing that a Tally lacks.
  double score(const Tally& t, double summed_cost) const;
  /// Cost of one row (0 unless kind is kCost). kNoAnswer costs as much as the dearest mistake of that class.
  double row_cost(int truth, int predicted) const;

 private:
  explicit Metric(Kind kind) : kind_(kind) {}
  Kind kind_;
  int label_ = 0;
  std::string label_name_;
  int classes_ = 0;
  std::shared_ptr<const std::vector<double>> costs_;  // [classes * (classes + 1)], last column: no answer
};

}  // namespace tailor
