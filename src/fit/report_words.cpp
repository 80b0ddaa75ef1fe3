#include "fit/report_words.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "fit/budget.h"
#include "fit/report_figures.h"
#include "fit/report_format.h"

namespace tailor {
namespace {

/// "Frozen embeddings" -> "frozen embeddings"; "LoRA …" and "TF-IDF …" stay.
std::string inside_sentence(std::string title) {
  const std::size_t end = std::min(title.find(' '), title.size());
  const bool plain = end > 1 && std::all_of(title.begin() + 1, title.begin() + static_cast<std::ptrdiff_t>(end),
                                            [](unsigned char c) { return std::islower(c) != 0 || c == '-'; });
  if (plain) title[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(title[0])));
  return title;
}

std::string number_of(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_number_integer() && it->get<std::int64_t>() >= 0
             ? format_count(it->get<std::uint64_t>())
             : "";
}

const Json& part(const Json& json, const char* key) {
  static const Json kNone = Json::object();
  if (!json.is_object()) return kNone;
  const auto it = json.find(key);
  return it == json.end() ? kNone : *it;
}

std::string text_of(const Json& json, const char* key) {
  const Json& value = part(json, key);
  return value.is_string() ? value.get<std::string>() : "";
}

std::string lengths(const Json& summary) {
  return fmt::format("median {}, 95 % up to {}, longest {}", format_scalar(summary.value("p50", Json(nullptr))),
                     format_scalar(summary.value("p95", Json(nullptr))),
                     format_scalar(summary.value("max", Json(nullptr))));
}

void add_test_remark(const ReportInput& input, const TrialRecord& chosen, ReportAnswer& answer) {
  const MetricName metric = metric_name(input.options.metric);
  const auto best =
      std::find_if(input.trials.begin(), input.trials.end(), [](const TrialRecord& t) { return t.verdict == "best"; });
  if (best == input.trials.end() || best->id == chosen.id) return;
  if (chosen.verdict == "tie") {
    const std::string verdict = fmt::format("a paired test calls the difference a tie ({})", format_p(chosen.p_value));
    answer.sentences.push_back(
        chosen.before_refit
            ? fmt::format(
                  "The candidates were compared before the last fit: the highest {} on the test part was {} by {}; {}.",
                  metric.title, metric.format(best->test_score), short_trial_name(input, *best), verdict)
            : fmt::format("The highest {} on the test part is {} by {}; {}.", metric.title,
                          metric.format(best->test_score), short_trial_name(input, *best), verdict));
  } else if (chosen.verdict == "worse") {
    answer.warnings.push_back(fmt::format(
        "On the test part {} did better ({} against {}, {}). The choice is made on validation rows and is not changed "
        "afterwards, since a choice by test rows would make the test figures too good.",
        short_trial_name(input, *best), metric.format(best->test_score), metric.format(chosen.test_score),
        format_p(chosen.p_value)));
  }
}

}  // namespace

ReportAnswer report_answer(const ReportInput& input) {
  ReportAnswer answer;
  answer.would_change = input.decision.would_change;
  std::size_t failed = 0, skipped = 0;
  for (const auto& t : input.trials) {
    failed += t.status == TrialStatus::kFailed ? 1 : 0;
    skipped += t.status == TrialStatus::kSkipped ? 1 : 0;
  }
  const std::size_t at = recommended_trial(input);
  if (at == kNoTrial) {
    answer.headline = "No candidate can be recommended";
    answer.sentences.push_back(input.decision.reason.empty() ? "No candidate finished." : input.decision.reason);
  } else {
    const TrialRecord& chosen = input.trials[at];
    answer.headline = "Use " + inside_sentence(method_title(input, chosen));
    if (!chosen.base_model.empty()) answer.on = "on " + chosen.base_model;
    if (!input.decision.reason.empty()) answer.sentences.push_back(input.decision.reason);
    if (chosen.n_scored > 0) {
      const Interval& a = chosen.scores.accuracy;
      answer.sentences.push_back(
          fmt::format("On {} that it was not fitted on, it got {} right (95 % interval {} %): {:.0f} wrong answers in "
                      "a thousand messages.",
                      plural(chosen.n_scored, "test message", "test messages"), format_percent(a.value),
                      format_interval(a), 1000 * (1 - a.value)));
      const std::vector<double> shares = {0.0, 0.1};
      const Predictions& choose = validation_of(input, at).size() > 0 ? validation_of(input, at) : test_of(input, at);
      const auto table = hand_over(test_of(input, at), choose, shares);
      if (table.size() == 2 && table[1].handed > 0.01 && table[1].accuracy > table[0].accuracy + 0.002) {
        answer.sentences.push_back(fmt::format(
            "Handing the least certain {:.0f} % of the messages to a person raises the accuracy of the rest to {}.",
            100 * table[1].handed, format_percent(table[1].accuracy)));
      }
    }
    add_test_remark(input, chosen, answer);
    const auto method = input.methods.find(chosen.method);
    if (method != input.methods.end() && method->second.family == MethodText::Family::kNoModel) {
      answer.warnings.emplace_back(
          "A floor without any language model wins: on this data a language model is not worth its cost.");
    }
    if (chosen.n_scored > 0 && chosen.n_scored < test_rows(input)) {
      answer.warnings.push_back(
          fmt::format("The recommended candidate was scored on {} of the {} test rows, so its intervals are wider.",
                      format_count(chosen.n_scored), format_count(test_rows(input))));
    }
    if (chosen.n_scored > 0 && chosen.n_scored < 200) {
      answer.warnings.push_back(
          fmt::format("The test part has only {}: look at the intervals rather than at the figures.",
                      plural(chosen.n_scored, "row", "rows")));
    }
  }
  if (failed + skipped > 0) {
    const std::string first = failed > 0 ? plural(failed, "candidate failed", "candidates failed") : "";
    const std::string second = skipped > 0 ? plural(skipped, failed > 0 ? "was not tried" : "candidate was not tried",
                                                    failed > 0 ? "were not tried" : "candidates were not tried")
                                           : "";
    answer.unfinished = fmt::format("{}{}{}; the reasons are at the bottom of the table.", first,
                                    failed > 0 && skipped > 0 ? " and " : "", second);
  }
  return answer;
}

std::vector<KeyFigure> key_figures(const ReportInput& input) {
  const std::size_t at = recommended_trial(input);
  if (at == kNoTrial) return {};
  const TrialRecord& r = input.trials[at];
  std::vector<KeyFigure> out;
  const MetricName metric = metric_name(input.options.metric);
  if (r.n_scored > 0) {
    if (metric.kind == MetricName::Kind::kClassF1 || metric.kind == MetricName::Kind::kCost) {
      out.push_back({std::string(1, static_cast<char>(std::toupper(static_cast<unsigned char>(metric.title[0])))) +
                         metric.title.substr(1),
                     metric.format(r.test_score), "your metric"});
    }
    out.push_back({"Accuracy", format_percent(r.scores.accuracy.value), format_interval(r.scores.accuracy) + " %"});
    out.push_back({"Macro-F1", format_percent(r.scores.macro_f1.value), format_interval(r.scores.macro_f1) + " %"});
  }
  if (r.latency_p95_ms > 0) {
    out.push_back(
        {"One answer", format_ms(r.latency_p50_ms) + " ms", "95 % under " + format_ms(r.latency_p95_ms) + " ms"});
    out.push_back({"1,000 requests", format_cost(r.cost_per_thousand),
                   fmt::format("at {} a machine hour", format_significant(input.options.price_per_hour, 2))});
  }
  out.push_back(
      {"Training", human_seconds(r.train_seconds),
       r.peak_memory_bytes > 0 ? "peak memory " + human_bytes(static_cast<double>(r.peak_memory_bytes)) : ""});
  if (r.package_bytes > 0) {
    out.push_back({"Package", human_bytes(static_cast<double>(r.package_bytes)),
                   r.trained_bytes > 0 ? human_bytes(static_cast<double>(r.trained_bytes)) + " of it trained"
                                       : "nothing in it was trained"});
  }
  return out;
}

ComparisonTable comparison_table(const ReportInput& input) {
  TableOptions options;
  options.recommended = input.decision.recommended;
  options.n_test = test_rows(input);
  options.metric = input.options.metric;
  options.price_per_hour = input.options.price_per_hour;
  for (const auto& [method, text] : input.methods) options.titles[method] = text.title;
  return make_comparison_table(input.trials, options);
}

std::vector<std::pair<std::string, std::string>> repeat_facts(const ReportInput& input) {
  std::vector<std::pair<std::string, std::string>> facts;
  const auto add = [&](std::string name, std::string value) {
    if (!value.empty() && value != "–") facts.emplace_back(std::move(name), std::move(value));
  };
  add("Seed", std::to_string(input.options.seed));
  add("Threads", number_of(input.result, "threads"));
  add("Budget", input.options.budget_seconds > 0 ? human_seconds(input.options.budget_seconds) : "");
  const Json& elapsed = part(input.result, "elapsed_seconds");
  add("Time taken", elapsed.is_number() ? human_seconds(elapsed.get<double>()) : "");
  const Json& split = part(input.result, "split");
  if (!split.empty()) {
    const auto folds = split.value("folds", Json(0));
    const bool kfold = folds.is_number_integer() && folds.get<int>() > 0;
    add("Split", fmt::format("{} training, {} validation and {} test rows{}", number_of(split, "train"),
                             kfold ? "no fixed" : number_of(split, "validation"), number_of(split, "test"),
                             kfold ? fmt::format("; choices by {}-fold cross-validation", folds.get<int>()) : ""));
  }
  for (std::size_t i = 0; i < input.file_names.size(); ++i) {
    add(i == 0 ? "Data" : "Further data",
        input.file_names[i] + (i < input.file_hashes.size() ? "  (SHA-256 " + input.file_hashes[i] + ")" : ""));
  }
  const Json& base = part(input.package, "base_model");
  if (!text_of(base, "id").empty()) {
    add("Base model", fmt::format("{}, licence {}  (SHA-256 {})", text_of(base, "id"), text_of(base, "licence"),
                                  text_of(base, "sha256")));
  }
  const std::size_t at = recommended_trial(input);
  if (at != kNoTrial && !input.trials[at].settings.empty())
    add("Settings chosen", format_settings(input.trials[at].settings));
  if (!part(input.result, "versions").empty()) add("Versions", format_settings(part(input.result, "versions")));
  const Json& machine = part(input.result, "machine");
  if (!machine.empty()) {
    std::string text;
    for (const auto& [key, value] : machine.items()) {
      const std::string shown =
          key == "memory_bytes" && value.is_number() ? human_bytes(value.get<double>()) : format_scalar(value);
      text += (text.empty() ? "" : "; ") + (key == "memory_bytes" ? std::string("memory") : words_of_key(key)) + ": " +
              shown;
    }
    add("Machine", text);
  }
  return facts;
}

std::vector<std::string> repeat_commands(const ReportInput& input) {
  std::vector<std::string> out;
  if (const std::string command = text_of(input.result, "command"); !command.empty()) out.push_back(command);
  const std::string run = input.options.out.filename().empty() ? "RUN" : input.options.out.filename().string();
  out.push_back("tailor fit --replay " + run);
  out.push_back("tailor predict " + run + "/package --input new.csv --output scored.csv");
  return out;
}

std::vector<BudgetLine> budget_lines(const ReportInput& input) {
  std::vector<BudgetLine> out;
  const Json& decisions = part(input.result, "budget_decisions");
  if (!decisions.is_array()) return out;
  for (const Json& d : decisions) {
    if (!d.is_object()) continue;
    BudgetLine line;
    const auto number = [&](const char* key) { return part(d, key).is_number() ? part(d, key).get<double>() : 0.0; };
    line.elapsed_seconds = number("elapsed_seconds");
    line.candidate = text_of(d, "id");
    line.reason = text_of(d, "reason");
    line.given_seconds = number("seconds");
    const bool run = part(d, "run").is_boolean() && part(d, "run").get<bool>();
    if (text_of(d, "kind") == "refit")
      line.decision = run ? "fitted once more on train + validation" : "not fitted once more";
    else
      line.decision = run ? "runs" : "left out";
    out.push_back(std::move(line));
  }
  return out;
}

std::vector<DataFinding> data_findings(const ReportInput& input) {
  std::vector<DataFinding> out;
  const Json& findings = part(part(input.result, "data"), "findings");
  if (!findings.is_array()) return out;
  for (const Json& f : findings) {
    DataFinding finding{text_of(f, "severity"), text_of(f, "message"), text_of(f, "hint")};
    if (finding.severity.empty()) finding.severity = "note";
    const Json& lines = part(f, "lines");
    if (lines.is_array() && !lines.empty()) {
      const Json& count = part(f, "count");
      const bool more = count.is_number_integer() && count.get<std::size_t>() > lines.size();
      finding.message +=
          fmt::format(" (line{} {}{})", lines.size() == 1 ? "" : "s", format_scalar(lines), more ? ", …" : "");
    }
    out.push_back(std::move(finding));
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> data_facts(const ReportInput& input) {
  std::vector<std::pair<std::string, std::string>> facts;
  const Json& data = part(input.result, "data");
  if (!data.is_object()) return facts;
  for (const auto& [key, value] : data.items()) {
    if (key == "labels" || key == "findings") continue;
    if (value.is_object()) {
      if (value.contains("p50") && value.contains("max"))
        facts.emplace_back(key == "characters" || key == "tokens" ? "Length in " + key : words_of_key(key),
                           lengths(value));
      else if (!value.empty())
        facts.emplace_back(words_of_key(key), format_settings(value));
      continue;
    }
    if (value.is_null() || (value.is_array() && value.empty())) continue;
    std::string text = value.is_number_integer() && value.get<std::int64_t>() >= 0
                           ? format_count(value.get<std::uint64_t>())
                       : key == "imbalance_ratio" && value.is_number() ? format_significant(value.get<double>(), 2)
                                                                       : format_scalar(value);
    if (key == "delimiter") text = text == "\t" ? "tab" : "“" + text + "”";
    facts.emplace_back(words_of_key(key), std::move(text));
  }
  for (auto& [name, value] : facts) {
    if (!name.empty()) name[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
  }
  return facts;
}

}  // namespace tailor
