/// What the recommended candidate does well and badly: classes, confusions, confidence, messages that fit no class.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "eval/metrics.h"
#include "fit/report_charts.h"
#include "fit/report_figures.h"
#include "fit/report_format.h"
#include "fit/report_sections.h"
#include "text/unicode.h"

namespace tailor {
namespace {

constexpr int kBins = 15;
constexpr std::size_t kPairs = 15;
constexpr std::size_t kMatrixClasses = 200;  // a larger matrix cannot be read any more

const Predictions& recommended_test(const ReportInput& input) {
  const std::size_t at = recommended_trial(input);
  return test_of(input, at == kNoTrial ? input.test.size() : at);
}

std::vector<ClassScore> scores_of(const Predictions& p, std::size_t classes) {
  Tally t(static_cast<int>(classes));
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p.truth[i] >= 0) t.add(p.truth[i], p.predicted[i]);
  }
  return class_scores(t);
}

}  // namespace

std::string section_classes(const ReportInput& input) {
  const Predictions& p = recommended_test(input);
  const std::size_t n = input.label_names.size();
  if (p.size() == 0) return "";
  const auto scores = scores_of(p, n);
  std::map<int, ConfusedPair> worst;  // of each true class
  for (const auto& pair : confused_pairs(p)) worst.try_emplace(pair.truth, pair);
  std::vector<std::size_t> order(n);
  for (std::size_t c = 0; c < n; ++c) order[c] = c;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a].f1 < scores[b].f1; });
  std::string out = open_section("classes", "Class by class",
                                 "Of the recommended candidate on the test part, the weakest classes first. Precision: "
                                 "of the answers with this label, how many were "
                                 "right. Recall: of the messages of this class, how many were found.");
  out += open_table("Precision, recall and F1 of each class",
                    {"Class", "#Test rows", "#Precision", "#Recall", "#F1", "Most often taken for"}, n > 14, true);
  for (const std::size_t c : order) {
    const ClassScore& s = scores[c];
    const auto taken = worst.find(static_cast<int>(c));
    out += R"(<tr><th scope="row" dir="auto">)" + label_html(input.label_names[c]) + "</th>" +
           number_cell(static_cast<double>(s.support), format_count(static_cast<std::uint64_t>(s.support)));
    if (s.support == 0 && s.predicted == 0) {
      out += number_cell(-1, "–") + number_cell(-1, "–") + number_cell(-1, "–");
    } else {
      out += number_cell(s.precision, format_percent(s.precision)) + number_cell(s.recall, format_percent(s.recall)) +
             number_cell(s.f1, format_percent(s.f1), meter(s.f1));
    }
    out += label_cell(taken == worst.end()
                          ? "–"
                          : fmt::format("{} ({})", label_name(input, taken->second.predicted), taken->second.rows)) +
           "</tr>";
  }
  return out + std::string(kCloseTable) + std::string(kCloseSection);
}

std::string section_confusion(const ReportInput& input) {
  const Predictions& p = recommended_test(input);
  const std::size_t n = input.label_names.size();
  if (p.size() == 0) return "";
  std::string out = open_section("confusion", "What is taken for what");
  const auto pairs = confused_pairs(p);
  const std::string matrix =
      n > kMatrixClasses
          ? ""
          : R"(<div class="scroll" role="region" aria-label="Confusion matrix" tabindex="0" style="padding:10px">)" +
                confusion_chart(input, p) +
                R"(</div><p class="footnotes">Rows are the true class, columns the predicted one.</p>)";
  const bool small = n <= 25;
  if (small) out += matrix;
  if (pairs.empty()) {
    out += paragraph("Not one test row was answered wrongly.");
  } else if (n > 2) {
    const std::size_t shown = std::min(kPairs, pairs.size());
    std::size_t all = 0, top = 0;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      all += pairs[i].rows;
      if (i < shown) top += pairs[i].rows;
    }
    out += paragraph(fmt::format("The {} most frequent confusions make up {} of {}.", shown, format_count(top),
                                 plural(all, "wrong answer", "wrong answers")));
    out += open_table("Most frequent confusions", {"True class", "Predicted", "#Rows", "#Of the class"}, false, true);
    for (std::size_t i = 0; i < shown; ++i) {
      const auto& pair = pairs[i];
      const double share = static_cast<double>(pair.rows) / static_cast<double>(std::max<std::size_t>(pair.support, 1));
      out += "<tr>" + label_cell(label_name(input, pair.truth)) + label_cell(label_name(input, pair.predicted)) +
             number_cell(static_cast<double>(pair.rows), format_count(pair.rows)) +
             number_cell(share, format_percent(share), meter(share)) + "</tr>";
    }
    out += kCloseTable;
  }
  if (!small && !matrix.empty())
    out += fmt::format(
        "<details><summary>The whole matrix of {} classes</summary><div class=\"body\">{}</div></details>", n, matrix);
  return out + std::string(kCloseSection);
}

std::string section_confidence(const ReportInput& input) {
  const std::size_t at = recommended_trial(input);
  const Predictions& p = recommended_test(input);
  if (p.size() == 0 || p.probabilities.rows != p.size()) return "";
  std::vector<int> truth;
  Matrix probabilities(0, p.probabilities.cols);
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p.truth[i] < 0) continue;
    truth.push_back(p.truth[i]);
    const auto row = p.probabilities.row(i);
    probabilities.data.insert(probabilities.data.end(), row.begin(), row.end());
    ++probabilities.rows;
  }
  if (truth.empty()) return "";
  std::string out = open_section("confidence", "Can its confidence be trusted?",
                                 "Every answer comes with a probability. Where that is honest, unsure messages can go "
                                 "to a person and the rest be answered automatically.");
  const double ece = expected_calibration_error(truth, probabilities, kBins);
  const Predictions& validation = validation_of(input, at);
  const Predictions& choose = validation.size() > 0 ? validation : p;
  out += R"(<div class="grid2">)";
  out += figure(
      reliability_chart(p, kBins),
      fmt::format(
          "Calibration: on the dashed line confidence equals accuracy; above it the method is more often right than it "
          "claims. Expected calibration "
          "error {} ({} bins), log loss {:.3f}, Brier score {:.3f}. Hollow points stand for fewer than ten rows.",
          format_percent(ece), kBins, log_loss(truth, probabilities), brier_score(truth, probabilities)));
  out += figure(hand_over_chart(p),
                "Hand x % to a person: the accuracy of the answers that are still given when the least certain "
                "messages are handed over.");
  out += "</div>";
  static constexpr std::array<double, 8> kShares = {0, 0.02, 0.05, 0.10, 0.15, 0.20, 0.30, 0.50};
  const auto rows = hand_over(p, choose, kShares);
  if (!rows.empty()) {
    out += "<h3>Thresholds to choose from</h3>";
    out += paragraph(
        std::string("Set one with --min-confidence. ") +
            (validation.size() > 0
                 ? "Thresholds were read off the validation rows; what they give was measured on the test part."
                 : "Thresholds and figures are both of the test part, so they are a little too good."),
        "intro");
    out +=
        open_table("Thresholds of confidence",
                   {"#Threshold", "#Handed to a person", "#Accuracy of the rest", "#Wrong answers in 1,000 messages"},
                   false, false);
    for (const auto& row : rows) {
      out += "<tr>" + number_cell(row.threshold, row.wanted == 0 ? "none" : fmt::format("{:.3f}", row.threshold)) +
             number_cell(row.handed, format_percent(row.handed)) +
             number_cell(row.accuracy, row.handed >= 1 ? "–" : format_percent(row.accuracy)) +
             number_cell(row.wrong_per_thousand, format_significant(row.wrong_per_thousand, 2)) + "</tr>";
    }
    out += kCloseTable;
  }
  return out + std::string(kCloseSection);
}

std::string section_out_of_scope(const ReportInput& input) {
  const int label = out_of_scope_label(input.label_names, input.options.out_of_scope_label);
  if (label < 0 || recommended_test(input).size() == 0) return "";
  const auto at = static_cast<std::size_t>(label);
  std::string out = open_section("scope", "Messages that fit no class",
                                 fmt::format("“{}” is taken as the label of messages that belong elsewhere. What it "
                                             "misses is answered as if it were in scope.",
                                             input.label_names[at]));
  out += open_table("Out-of-scope messages",
                    {"Candidate", "#Out-of-scope rows", "#Found (recall)", "#Right when it says so (precision)",
                     "#In-scope rows refused by mistake"},
                    false, true);
  for (std::size_t i = 0; i < input.trials.size(); ++i) {
    const Predictions& p = test_of(input, i);
    if (!input.trials[i].ok() || p.size() == 0) continue;
    const ClassScore s = scores_of(p, input.label_names.size())[at];
    std::size_t refused = 0, in_scope = 0;
    for (std::size_t k = 0; k < p.size(); ++k) {
      if (p.truth[k] < 0 || p.truth[k] == label) continue;
      ++in_scope;
      refused += p.predicted[k] == label ? 1 : 0;
    }
    const bool chosen = input.trials[i].id == input.decision.recommended;
    const double share = in_scope == 0 ? 0 : static_cast<double>(refused) / static_cast<double>(in_scope);
    out += R"(<tr><th scope="row">)" + escape_html(short_trial_name(input, input.trials[i])) +
           (chosen ? R"( <span class="badge">recommended</span>)" : "") + "</th>" +
           number_cell(static_cast<double>(s.support), format_count(static_cast<std::uint64_t>(s.support))) +
           number_cell(s.recall, s.support == 0 ? "–" : format_percent(s.recall), meter(s.recall)) +
           number_cell(s.precision, s.predicted == 0 ? "–" : format_percent(s.precision)) +
           number_cell(share, format_percent(share)) + "</tr>";
  }
  return out + std::string(kCloseTable) + std::string(kCloseSection);
}

}  // namespace tailor
