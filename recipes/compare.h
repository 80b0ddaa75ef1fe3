#pragma once
/// Recipe: two runs side by side, paired on the test rows that both answered.

#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"
#include "eval/intervals.h"
#include "eval/paired.h"

namespace tailor {

struct ComparedMethod {
  std::string id;           // "features.all-minilm-l6-v2"
  double a = 0, b = 0;      // the metric on the common rows
  PairedResult difference;  // b less a
};

struct RunComparison {
  std::string run_a, run_b;
  std::string metric;
  bool same_test_rows = false;          // by the hashes of the texts
  std::vector<ComparedMethod> methods;  // candidates that both runs scored
  ComparedMethod recommended;           // the two runs' own choices
  std::string recommended_a, recommended_b;
  std::vector<std::string> remarks;  // other data, versions, budgets
};

Result<RunComparison> compare_runs(const std::filesystem::path& a, const std::filesystem::path& b);
std::string comparison_text(const RunComparison& comparison);

}  // namespace tailor
