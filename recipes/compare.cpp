#include "recipes/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/files.h"
#include "core/json.h"
#include "eval/metric.h"
#include "fit/predictions.h"
#include "fit/trial.h"

namespace tailor {
namespace {

struct FinishedRun {
  RunDirectory directory;
  Json result;
  std::vector<std::string> labels;
  std::map<std::int64_t, std::string> text_hash;  // of each test row
};

Result<FinishedRun> open_finished(const std::filesystem::path& path) {
  FinishedRun run{RunDirectory{path}, {}, {}, {}};
  std::error_code ignored;
  if (!std::filesystem::exists(run.directory.result(), ignored)) {
    return Error{ErrorCode::kNotFound, path.string() + " is not a finished run: result.json is missing",
                 std::filesystem::exists(run.directory.options(), ignored)
                     ? "finish it with `tailor fit --resume " + path.string() + "`"
                     : "give the directory that --out named"};
  }
  TAILOR_TRY(run.result, read_json(run.directory.result()));
  run.labels = run.result.at("labels").get<std::vector<std::string>>();
  TAILOR_TRY(const std::vector<Json> manifest, read_jsonl(run.directory.split()));
  for (const Json& row : manifest) {
    if (row.at("part") == "test")
      run.text_hash[row.at("row").get<std::int64_t>()] = row.at("sha256").get<std::string>();
  }
  return run;
}

/// Test answers with rows numbered by the order of text hashes, so that two splits of one data set meet on their common
/// texts.
Result<Predictions> test_answers(const FinishedRun& run, const std::string& id, bool recommended,
                                 const std::map<std::string, std::int64_t>& number,
                                 const std::vector<std::string>& labels) {
  const auto refit = run.directory.trial(id) / "refit_test.jsonl";
  std::error_code ignored;
  const auto file =
      recommended && std::filesystem::exists(refit, ignored) ? refit : run.directory.trial(id) / "test.jsonl";
  TAILOR_TRY(const Predictions p, load_predictions(file, run.labels));
  Predictions out;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const auto hash = run.text_hash.find(p.rows[i]);
    if (hash == run.text_hash.end()) continue;
    const auto at = number.find(hash->second);
    if (at == number.end() || std::find(out.rows.begin(), out.rows.end(), at->second) != out.rows.end()) continue;
    const auto relabel = [&](int label) -> int {
      if (label < 0) return -1;
      const auto it = std::find(labels.begin(), labels.end(), run.labels[static_cast<std::size_t>(label)]);
      return it == labels.end() ? -1 : static_cast<int>(it - labels.begin());
    };
    out.rows.push_back(at->second);
    out.truth.push_back(relabel(p.truth[i]));
    out.predicted.push_back(relabel(p.predicted[i]));
  }
  return out;
}

Result<ComparedMethod> compare_answers(const std::string& id, const Predictions& a, const Predictions& b,
                                       const Metric& metric, int classes, std::uint64_t seed) {
  ComparedMethod out{id, 0, 0, {}};
  TAILOR_TRY(const CommonRows common, common_rows(answers_of(a), answers_of(b)));
  out.a = metric.score(common.truth, common.a, classes);
  out.b = metric.score(common.truth, common.b, classes);
  TAILOR_TRY(out.difference, compare_paired(metric, answers_of(b), answers_of(a), classes, {.seed = seed}));
  return out;
}

std::string recommended_id(const Json& result) {
  const Json& r = result.at("recommended");
  if (r.is_null()) return "";
  for (const Json& trial : result.at("trials")) {
    if (trial.at("method") == r.at("method") && trial.at("base_model") == r.at("base_model")) return trial.at("id");
  }
  return "";
}

}  // namespace

Result<RunComparison> compare_runs(const std::filesystem::path& path_a, const std::filesystem::path& path_b) {
  TAILOR_TRY(const FinishedRun a, open_finished(path_a));
  TAILOR_TRY(const FinishedRun b, open_finished(path_b));
  RunComparison out;
  out.run_a = path_a.string();
  out.run_b = path_b.string();
  std::vector<std::string> labels = a.labels;
  for (const auto& label : b.labels) {
    if (std::find(labels.begin(), labels.end(), label) == labels.end()) labels.push_back(label);
  }
  const auto options_metric = [](const FinishedRun& run) { return run.result.at("metric").get<std::string>(); };
  out.metric = options_metric(a) == options_metric(b) && options_metric(a) != "cost" ? options_metric(a) : "accuracy";
  TAILOR_TRY(const Metric metric, Metric::parse(out.metric, labels));
  std::map<std::string, std::int64_t> number;
  for (const auto& [row, hash] : a.text_hash) number.emplace(hash, static_cast<std::int64_t>(number.size()));
  std::size_t common = 0;
  for (const auto& [row, hash] : b.text_hash) common += number.contains(hash) ? 1 : 0;
  if (common == 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} and {} have no test row in common", out.run_a, out.run_b),
                 "compare runs on the same test file (--test) or with the same seed"};
  }
  out.same_test_rows = common == a.text_hash.size() && common == b.text_hash.size();
  if (!out.same_test_rows)
    out.remarks.push_back(
        fmt::format("The test parts differ: {} rows and {} rows, {} texts in common; only those are compared.",
                    a.text_hash.size(), b.text_hash.size(), common));
  if (a.result.at("versions") != b.result.at("versions"))
    out.remarks.emplace_back("The runs were made by different versions.");
  if (a.result.at("budget_seconds") != b.result.at("budget_seconds")) out.remarks.emplace_back("The budgets differ.");
  const int classes = static_cast<int>(labels.size());
  const std::uint64_t seed = a.result.at("seed");
  out.recommended_a = recommended_id(a.result);
  out.recommended_b = recommended_id(b.result);
  for (const Json& trial : a.result.at("trials")) {
    const std::string id = trial.at("id");
    const auto& others = b.result.at("trials");
    const bool both = trial.at("n_scored") > 0 && std::any_of(others.begin(), others.end(), [&](const Json& t) {
                        return t.at("id") == id && t.at("n_scored") > 0;
                      });
    if (!both) continue;
    TAILOR_TRY(const Predictions of_a, test_answers(a, id, false, number, labels));
    TAILOR_TRY(const Predictions of_b, test_answers(b, id, false, number, labels));
    TAILOR_TRY(ComparedMethod method, compare_answers(id, of_a, of_b, metric, classes, seed));
    out.methods.push_back(std::move(method));
  }
  if (!out.recommended_a.empty() && !out.recommended_b.empty()) {
    TAILOR_TRY(const Predictions of_a, test_answers(a, out.recommended_a, true, number, labels));
    TAILOR_TRY(const Predictions of_b, test_answers(b, out.recommended_b, true, number, labels));
    TAILOR_TRY(out.recommended, compare_answers("recommended", of_a, of_b, metric, classes, seed));
  }
  return out;
}

std::string comparison_text(const RunComparison& c) {
  std::string text = fmt::format("A: {}\nB: {}\n\n{:<42} {:>8} {:>8} {:>8}  {:<20} {}\n", c.run_a, c.run_b, c.metric,
                                 "A", "B", "B - A", "95 % interval", "p");
  const auto line = [&](const std::string& name, const ComparedMethod& m) {
    const char* verdict = m.difference.p_value >= 0.05  ? "tie"
                          : m.difference.difference > 0 ? "B is better"
                                                        : "A is better";
    return fmt::format("{:<42} {:>8.2f} {:>8.2f} {:>+8.2f}  {:<20} {:.3f}  {}\n", name, 100 * m.a, 100 * m.b,
                       100 * m.difference.difference,
                       fmt::format("[{:+.2f}, {:+.2f}]", 100 * m.difference.low, 100 * m.difference.high),
                       m.difference.p_value, verdict);
  };
  for (const auto& m : c.methods) text += line(m.id, m);
  if (!c.recommended_a.empty() && !c.recommended_b.empty()) {
    text += "\n" + line("recommended package", c.recommended);
    text += fmt::format("  A recommends {}, B recommends {}\n", c.recommended_a, c.recommended_b);
  }
  for (const auto& remark : c.remarks) text += "\n" + remark;
  return text + (c.remarks.empty() ? "" : "\n");
}

}  // namespace tailor
