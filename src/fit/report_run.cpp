/// How the run went: settings searched, the budget, the advice beside what was measured.

#include <fmt/format.h>

#include <algorithm>

#include "fit/budget.h"
#include "fit/report_charts.h"
#include "fit/report_format.h"
#include "fit/report_sections.h"
#include "fit/report_words.h"
#include "text/unicode.h"

namespace tailor {
namespace {

std::vector<std::string> strings(const Json& json, const char* key) {
  std::vector<std::string> out;
  const auto it = json.find(key);
  if (it == json.end() || !it->is_array()) return out;
  for (const Json& item : *it) out.push_back(format_scalar(item));
  return out;
}

/// "half", "twice": how far an estimate was off.
std::string ratio_cell(double measured, double estimated) {
  if (measured <= 0 || estimated <= 0) return number_cell(0, "–");
  const double ratio = measured / estimated;
  return number_cell(ratio, format_significant(ratio, 2) + " ×");
}

}  // namespace

std::string section_search(const ReportInput& input) {
  const MetricName metric = metric_name(input.options.metric);
  double least = 0, most = 0;
  bool any = false;
  for (const TrialRecord& t : input.trials) {
    if (!t.ok() || !t.search.is_array() || t.search.size() < 2) continue;
    for (const Json& point : t.search) {
      const double score = json_number(point, "score");
      least = any ? std::min(least, score) : score;
      most = any ? std::max(most, score) : score;
      any = true;
    }
  }
  std::string body;
  for (const TrialRecord& t : input.trials) {
    if (!t.ok() || !t.search.is_array() || t.search.size() < 2) continue;
    std::vector<const Json*> points;
    double seconds = 0;
    for (const Json& point : t.search) {
      points.push_back(&point);
      seconds += json_number(point, "seconds");
    }
    std::stable_sort(points.begin(), points.end(),
                     [](const Json* a, const Json* b) { return json_number(*a, "score") > json_number(*b, "score"); });
    body += fmt::format(
        R"(<details><summary>{}{} <span class="muted">– {} in {}, {} {} to {}</span></summary><div class="body">)",
        search_chart(t, least, most), escape_html(short_trial_name(input, t)),
        plural(points.size(), "setting", "settings"), escape_html(human_seconds(seconds)), escape_html(metric.title),
        escape_html(metric.format(json_number(*points.back(), "score"))),
        escape_html(metric.format(json_number(*points.front(), "score"))));
    body += open_table("Settings searched for " + short_trial_name(input, t),
                       {"Settings", "#Validation score", "#Rows", "#Time"}, points.size() > 14, true);
    const double low = json_number(*points.back(), "score"), high = json_number(*points.front(), "score");
    for (const Json* point : points) {
      const double score = json_number(*point, "score");
      body +=
          "<tr>" +
          text_cell(format_settings(point->is_object() && point->contains("settings") ? (*point)["settings"]
                                                                                      : Json::object()),
                    "wrap") +
          number_cell(score, metric.format(score), meter(high > low ? 0.08 + 0.92 * (score - low) / (high - low) : 1)) +
          number_cell(json_number(*point, "rows"),
                      format_count(static_cast<std::uint64_t>(json_number(*point, "rows")))) +
          number_cell(json_number(*point, "seconds"), human_seconds(json_number(*point, "seconds"))) + "</tr>";
    }
    body += std::string(kCloseTable) + "</div></details>";
  }
  if (body.empty()) return "";
  return open_section("search", "Settings searched",
                      "Each candidate searched its own settings on validation rows, inside its share of the budget. "
                      "Each dot is a setting on a scale common to all candidates, "
                      "the filled one the best; a wide spread shows how much settings matter.") +
         body + std::string(kCloseSection);
}

std::string section_budget(const ReportInput& input) {
  const auto lines = budget_lines(input);
  if (lines.empty()) return "";
  std::string out = open_section("budget", "Where the budget went",
                                 fmt::format("The budget was {}. Scoring the test part and refitting the winner are "
                                             "reserved first; what a candidate leaves over is shared again.",
                                             human_seconds(input.options.budget_seconds)));
  out += open_table("Decisions of the budget", {"#At", "Candidate", "Decision", "#Given", "#Used", "Reason"},
                    lines.size() > 20, false);
  for (const BudgetLine& line : lines) {
    const auto trial = std::find_if(input.trials.begin(), input.trials.end(),
                                    [&](const TrialRecord& t) { return t.id == line.candidate; });
    const bool runs = line.decision == "runs";
    const double used = runs && trial != input.trials.end() ? trial->train_seconds : 0;
    const double part = input.options.budget_seconds > 0 ? used / input.options.budget_seconds : 0;
    out += "<tr>" + number_cell(line.elapsed_seconds, human_seconds(line.elapsed_seconds)) +
           text_cell(trial == input.trials.end() ? line.candidate : short_trial_name(input, *trial)) +
           text_cell(line.decision) +
           number_cell(line.given_seconds, line.given_seconds > 0 ? human_seconds(line.given_seconds) : "–") +
           number_cell(used, used > 0 ? human_seconds(used) : "–", used > 0 ? meter(part) : "") +
           text_cell(line.reason.empty() ? "–" : line.reason, "wrap") + "</tr>";
  }
  return out + std::string(kCloseTable) + std::string(kCloseSection);
}

std::string section_advice(const ReportInput& input) {
  const Json& advice = input.advice;
  const bool any = advice.is_object() && !advice.empty();
  if (!any && input.advice_against_measured.empty()) return "";
  std::string out = open_section("advice", "Advice beforehand, and what was measured");
  if (any) {
    const auto headline = advice.find("headline");
    if (headline != advice.end() && headline->is_string())
      out += "<h3>Before anything was spent</h3>" + paragraph(headline->get<std::string>(), "lead");
  }
  if (!input.advice_against_measured.empty())
    out += R"(<div class="callout">)" + paragraph(input.advice_against_measured) + "</div>";
  if (any) {
    const auto reasons = strings(advice, "reasons");
    const auto facts = strings(advice, "facts");
    out += R"(<div class="grid2">)";
    if (!reasons.empty()) out += "<div><h3>Reasons</h3>" + bullet_list(reasons) + "</div>";
    if (!facts.empty()) out += "<div><h3>Measured on the data</h3>" + bullet_list(facts) + "</div>";
    out += "</div>";
    const auto base = strings(advice, "base_model_reasons");
    const auto model = advice.find("base_model");
    if (model != advice.end() && model->is_string() && !model->get<std::string>().empty()) {
      out += "<h3>Base model suggested: " + escape_html(model->get<std::string>()) + "</h3>" + bullet_list(base);
    }
  }
  std::string rows;
  for (const TrialRecord& t : input.trials) {
    if (!t.ok() || t.estimated_seconds <= 0) continue;
    rows +=
        R"(<tr><th scope="row">)" + escape_html(short_trial_name(input, t)) + "</th>" +
        number_cell(t.estimated_seconds, human_seconds(t.estimated_seconds)) +
        number_cell(t.train_seconds, human_seconds(t.train_seconds)) +
        ratio_cell(t.train_seconds, t.estimated_seconds) +
        number_cell(static_cast<double>(t.estimated_memory_bytes),
                    human_bytes(static_cast<double>(t.estimated_memory_bytes))) +
        number_cell(static_cast<double>(t.peak_memory_bytes), human_bytes(static_cast<double>(t.peak_memory_bytes))) +
        "</tr>";
  }
  if (!rows.empty()) {
    out += "<h3>Estimates and measurements</h3>";
    out += open_table(
               "Estimates and measurements",
               {"Candidate", "#Time estimated", "#Time measured", "#Ratio", "#Memory estimated", "#Memory measured"},
               false, true) +
           rows + std::string(kCloseTable);
  }
  return out + std::string(kCloseSection);
}

std::string section_data(const ReportInput& input) {
  const auto facts = data_facts(input);
  const auto findings = data_findings(input);
  const auto data = input.result.find("data");
  if (facts.empty() && findings.empty()) return "";
  std::string out = open_section("data", "The data");
  for (const auto& f : findings) {
    if (f.severity == "note") continue;
    out += fmt::format(R"(<div class="callout {}">{}{}</div>)", f.severity == "error" ? "error" : "warn",
                       paragraph(f.message), f.hint.empty() ? "" : paragraph(f.hint, "muted"));
  }
  std::vector<std::string> notes;
  for (const auto& f : findings) {
    if (f.severity == "note") notes.push_back(f.message + (f.hint.empty() ? "" : " " + f.hint));
  }
  out += fact_list(facts) + bullet_list(notes);
  const Json labels =
      data != input.result.end() && data->is_object() ? data->value("labels", Json::array()) : Json::array();
  if (labels.is_array() && !labels.empty()) {
    double most = 1;
    for (const Json& label : labels) most = std::max(most, json_number(label, "rows"));
    std::string table = open_table("Rows per label", {"Label", "#Rows"}, labels.size() > 14, true);
    for (const Json& label : labels) {
      const double rows = json_number(label, "rows");
      table += "<tr>" + text_cell(label.value("label", "")) +
               number_cell(rows, format_count(static_cast<std::uint64_t>(rows)), meter(rows / most, "wide")) + "</tr>";
    }
    table += kCloseTable;
    if (labels.size() <= 14)
      out += "<h3>Rows per label</h3>" + table;
    else
      out += fmt::format(
          "<details><summary>Rows per label <span class=\"muted\">– {} labels</span></summary><div "
          "class=\"body\">{}</div></details>",
          labels.size(), table);
  }
  return out + std::string(kCloseSection);
}

std::string section_repeat(const ReportInput& input) {
  std::string out = open_section("repeat", "To repeat this run",
                                 "The same command on the same data gives the same split. A replay repeats every "
                                 "decision of the budget without looking at the clock.");
  std::string commands;
  for (const auto& command : repeat_commands(input)) commands += command + "\n";
  out += "<pre>" + escape_html(commands) + "</pre>" + fact_list(repeat_facts(input));
  std::vector<std::pair<std::string, std::string>> options;
  const Json json = to_json(input.options);
  for (const auto& [key, value] : json.items()) {
    const std::string text = format_scalar(value);
    if (!text.empty()) options.emplace_back(words_of_key(key), text);
  }
  out += R"(<details data-print=""><summary>All options of the run</summary><div class="body">)" + fact_list(options) +
         "</div></details>";
  return out + std::string(kCloseSection);
}

}  // namespace tailor
