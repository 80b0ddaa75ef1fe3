#include "fit/tune_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "fit/budget.h"
#include "fit/line_chart.h"
#include "fit/report_format.h"
#include "fit/report_page.h"
#include "fit/report_sections.h"
#include "fit/report_words.h"
#include "text/unicode.h"

namespace tailor {
namespace {

const Json kNothing = Json::object();

const Json& at(const Json& object, std::string_view key) {
  const auto found = object.is_object() ? object.find(std::string(key)) : object.end();
  return object.is_object() && found != object.end() ? *found : kNothing;
}
std::string word(const Json& object, std::string_view key) {
  const Json& value = at(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}
std::uint64_t count(const Json& object, std::string_view key) {
  return static_cast<std::uint64_t>(std::max(0.0, json_number(object, key)));
}
bool has_number(const Json& object, std::string_view key) {
  return at(object, key).is_number();
}
bool writes_texts(const Json& result) {
  return result.contains("untouched");
}

Interval interval_of(const Json& result, std::string_view metric) {
  const Json& m = at(at(at(result, "test"), "metrics"), metric);
  return {json_number(m, "value"), json_number(m, "low"), json_number(m, "high")};
}

/// How the metric that decided is called.
std::string metric_words(const Json& result) {
  const std::string metric = word(result, "metric");
  return metric == "macro_f1"    ? "macro F1"
         : metric == "micro_f1"  ? "micro F1"
         : metric == "entity_f1" ? "F1 of spans"
         : metric.empty()        ? "loss"
                                 : metric;
}

/// Figures of tasks other than one label a text, the first of them above all.
struct TaskFigure {
  std::string_view key, name;
  bool percent = true;
};
std::vector<TaskFigure> task_figures(const Json& result) {
  static constexpr TaskFigure kFigures[] = {{"exact_match", "Exact match"}, {"f1", "F1 of spans"},
                                            {"precision", "Precision"},     {"recall", "Recall"},
                                            {"accuracy", "Words right"},    {"micro_f1", "Micro F1"},
                                            {"macro_f1", "Macro F1"},       {"subset_accuracy", "All labels right"},
                                            {"rmse", "RMSE", false},        {"mae", "MAE", false},
                                            {"pearson", "Pearson", false},  {"spearman", "Spearman", false}};
  std::vector<TaskFigure> out;
  if (word(result, "task").empty()) return out;
  for (const TaskFigure& figure : kFigures) {
    if (!at(at(result, "test"), "metrics").contains(std::string(figure.key))) continue;
    out.push_back(figure);
    if (word(result, "task") == "span-extraction" && figure.key == "f1") out.back().name = "F1 of words";
  }
  return out;
}
std::string format_figure(const TaskFigure& figure, const Json& result) {
  const double value = interval_of(result, figure.key).value;
  return figure.percent ? format_percent(value) : fmt::format("{:.4g}", value);
}
std::string format_figure_interval(const TaskFigure& figure, const Json& result) {
  const Interval i = interval_of(result, figure.key);
  return figure.percent ? format_interval(i) : fmt::format("{:.4g} to {:.4g}", i.low, i.high);
}

std::string headline(const Json& result) {
  const Json& test = at(result, "test");
  if (writes_texts(result)) {
    return fmt::format("Loss of {:.3f} a token on the test part, {:.3f} untouched",
                       json_number(at(result, "served"), "loss"), json_number(at(result, "untouched"), "loss"));
  }
  if (const auto figures = task_figures(result); !figures.empty()) {
    return fmt::format("{} {} on {}", figures[0].name, format_figure(figures[0], result),
                       plural(count(test, "n_scored"), "test row", "test rows"));
  }
  return fmt::format("{} of {} right", format_percent(interval_of(result, "accuracy").value),
                     plural(count(test, "n_scored"), "test row", "test rows"));
}

std::vector<KeyFigure> figures_of(const Json& result) {
  std::vector<KeyFigure> cards;
  const Json &served = at(result, "served"), &test = at(result, "test");
  if (writes_texts(result)) {
    cards.push_back({"Loss a token", fmt::format("{:.3f}", json_number(served, "loss")),
                     fmt::format("{:.3f} untouched", json_number(at(result, "untouched"), "loss"))});
    const Json &before = at(at(result, "untouched"), "answers"), &after = at(served, "answers");
    if (count(after, "n") > 0)
      cards.push_back(
          {"ROUGE-L", fmt::format("{:.2f}", json_number(after, "rouge_l")),
           fmt::format("{:.2f} untouched, {} answered", json_number(before, "rouge_l"), count(after, "n"))});
  } else if (const auto figures = task_figures(result); !figures.empty()) {
    for (const TaskFigure& figure : figures)
      cards.push_back(
          {std::string(figure.name), format_figure(figure, result), format_figure_interval(figure, result)});
  } else {
    const Interval accuracy = interval_of(result, "accuracy"), f1 = interval_of(result, "macro_f1");
    cards.push_back(
        {"Accuracy", format_percent(accuracy.value),
         fmt::format("{} on {}", format_interval(accuracy), plural(count(test, "n_scored"), "row", "rows"))});
    cards.push_back({"Macro F1", format_percent(f1.value), format_interval(f1)});
  }
  cards.push_back({"Trained numbers", format_count(count(result, "trained_parameters")), ""});
  cards.push_back({"Training", human_seconds(json_number(result, "wall_seconds")),
                   human_seconds(json_number(result, "cpu_seconds")) + " of processors"});
  cards.push_back({"Peak memory", human_bytes(json_number(result, "peak_memory_bytes")), "while training"});
  const Json& quantized = at(result, "quantized");
  cards.push_back({"Package", human_bytes(json_number(quantized.is_null() ? served : quantized, "package_bytes")),
                   quantized.is_null() ? "with the model" : "with the model as " + word(quantized, "type")});
  return cards;
}

std::vector<CurvePoint> points_of(const std::vector<Json>& events, std::string_view kind, std::string_view key) {
  std::vector<CurvePoint> points;
  for (const Json& event : events) {
    if (word(event, "event") == kind && has_number(event, key) && has_number(event, "step"))
      points.push_back({json_number(event, "step"), json_number(event, key)});
  }
  return points;
}

std::string legend_of_losses() {
  return R"(<div class="legend"><span><svg width="14" height="14" aria-hidden="true"><circle class="swatch s-frozen" cx="7" cy="7" r="5"/></svg>training: each step faint, the mean of the last ones strong</span>)"
         R"(<span><svg width="14" height="14" aria-hidden="true"><circle class="swatch s-trained" cx="7" cy="7" r="5"/></svg>validation</span></div>)";
}

std::string section_curves(const TuneReportInput& input) {
  const double best = has_number(input.result, "best_step") ? json_number(input.result, "best_step") : -1;
  const auto loss = points_of(input.events, "step", "loss"), held_out = points_of(input.events, "evaluation", "loss");
  const auto figures = [&](double width, double height) {
    return line_chart({.title = "Loss over the training",
                       .y_title = "Loss",
                       .width = width,
                       .height = height,
                       .curves = {{.name = "training loss", .points = loss, .smoothed = true},
                                  {.name = "validation loss", .points = held_out, .second = true, .marks = true}}});
  };
  const std::string wide = figures(1072, 340);
  if (wide.empty()) return {};
  std::string out = open_section("curves", "How the training went");
  out += figure(R"(<div class="wide-only">)" + wide + R"(</div><div class="narrow-only">)" + figures(460, 270) +
                    "</div>" + legend_of_losses(),
                "Loss of the training rows of each step, and of the validation rows at each evaluation.");
  out += R"(<div class="grid2 two">)";
  const auto add = [&](LineChart chart, std::string_view caption) {
    if (const std::string svg = line_chart(chart); !svg.empty()) out += figure(svg, caption);
  };
  const std::string metric = word(input.result, "metric");
  if (metric != "loss" && !metric.empty()) {
    add({.title = "Validation " + metric_words(input.result),
         .y_title = "Validation " + metric_words(input.result),
         .percent = true,
         .best_x = best,
         .best_text = best < 0 ? "" : fmt::format("kept: step {:g}", best),
         .curves = {{.name = metric_words(input.result),
                     .points = points_of(input.events, "evaluation", metric),
                     .marks = true}}},
        "Rows of the validation part. The ring is where the values that were kept stood.");
  } else {
    add({.title = "Validation loss",
         .y_title = "Validation loss",
         .best_x = best,
         .best_text = best < 0 ? "" : fmt::format("kept: step {:g}", best),
         .curves = {{.name = "validation loss", .points = held_out, .second = true, .marks = true}}},
        "Rows of the validation part. The ring is where the values that were kept stood.");
  }
  add({.title = "Learning rate",
       .y_title = "Learning rate",
       .from_zero = true,
       .curves = {{.name = "learning rate", .points = points_of(input.events, "step", "learning_rate")}}},
      "Warm-up, then the schedule.");
  add({.title = "Norm of the gradient",
       .y_title = "Norm",
       .logarithmic = true,
       .curves = {{.name = "gradient norm",
                   .points = points_of(input.events, "step", "gradient_norm"),
                   .smoothed = true}}},
      "Of the whole gradient, before clipping, on a logarithmic scale.");
  std::vector<CurvePoint> rate;
  double tokens = -1, seconds = -1;
  for (const Json& event : input.events) {
    if (word(event, "event") == "start") tokens = seconds = -1;
    if (word(event, "event") != "step") continue;
    const double t = json_number(event, "tokens"), s = json_number(event, "seconds");
    if (seconds >= 0 && s > seconds) rate.push_back({json_number(event, "step"), (t - tokens) / (s - seconds)});
    tokens = t;
    seconds = s;
  }
  add({.title = "Tokens a second",
       .y_title = "Tokens a second",
       .from_zero = true,
       .curves = {{.name = "tokens a second", .points = rate, .smoothed = true}}},
      "Of training alone, without evaluations.");
  return out + "</div>" + std::string(kCloseSection);
}

std::vector<std::pair<std::string, std::string>> settings_facts(const Json& result) {
  std::vector<std::pair<std::string, std::string>> facts;
  const Json& settings = at(result, "settings");
  for (const auto& [key, value] : settings.items()) {
    if (value.is_object())
      facts.emplace_back(words_of_key(key), format_settings(value));
    else
      facts.emplace_back(words_of_key(key), format_scalar(value));
  }
  return facts;
}

std::vector<std::pair<std::string, std::string>> run_facts(const TuneReportInput& input) {
  const Json& r = input.result;
  std::vector<std::pair<std::string, std::string>> facts{
      {"method", word(r, "method")}, {"base model", word(r, "base_model")}, {"data", input.data}};
  const Json& split = r.contains("split") ? at(r, "split") : at(r, "data");
  if (has_number(split, "train"))
    facts.emplace_back(
        "rows", fmt::format("{} to train, {} for validation, {} for the test", format_count(count(split, "train")),
                            format_count(count(split, "validation")), format_count(count(split, "test"))));
  facts.emplace_back("seed", format_scalar(at(r, "seed")));
  facts.emplace_back("threads", format_scalar(at(r, "threads")));
  if (!input.command.empty()) facts.emplace_back("command", input.command);
  return facts;
}

std::vector<std::string> warnings_of(const Json& result) {
  std::vector<std::string> out;
  if (const auto n = count(result, "rollbacks"); n > 0)
    out.push_back(fmt::format("The training diverged {} and went back to an earlier step with a lower rate each time.",
                              plural(n, "time", "times")));
  if (const auto n = count(result, "skipped_steps"); n > 0)
    out.push_back(
        fmt::format("{} left out: the gradient was not a finite number.", plural(n, "step was", "steps were")));
  const Json& excluded = at(result, "excluded_rows");
  const std::size_t rows =
      excluded.is_array() ? excluded.size() : static_cast<std::size_t>(count(result, "excluded_rows"));
  if (rows > 0)
    out.push_back(fmt::format("{} left out: the loss was not a finite number. The log names them.",
                              plural(rows, "row was", "rows were")));
  return out;
}

/// What the fewer bits of the package's model change; empty where it has the weights as trained.
std::string quantized_sentence(const Json& r) {
  const Json &q = at(r, "quantized"), &served = at(r, "served");
  if (q.is_null()) return "";
  const std::string what =
      fmt::format("The package holds the model as {}, {} in the place of {}: ", word(q, "type"),
                  human_bytes(json_number(q, "package_bytes")), human_bytes(json_number(served, "package_bytes")));
  if (writes_texts(r))
    return what + fmt::format("its loss is {:.3f} a token in the place of {:.3f}.", json_number(q, "loss"),
                              json_number(served, "loss"));
  const auto both = [&](std::string_view key, bool percent, std::string_view name) {
    const auto shown = [&](const Json& of) {
      const double value = json_number(at(at(of, "metrics"), key), "value");
      return percent ? format_percent(value) : fmt::format("{:.4g}", value);
    };
    return what + fmt::format("{} {} in the place of {}.", name, shown(q), shown(served));
  };
  if (const auto figures = task_figures(r); !figures.empty())
    return both(figures[0].key, figures[0].percent, figures[0].name);
  return both("accuracy", true, "accuracy") + fmt::format(" It gives {} of {} the label that the trainer gave.",
                                                          format_count(count(q, "same_labels")),
                                                          plural(count(q, "n_scored"), "test row", "test rows"));
}

}  // namespace

std::vector<std::string> tune_report_sentences(const Json& r) {
  std::vector<std::string> out;
  const Json &test = at(r, "test"), &served = at(r, "served");
  if (writes_texts(r)) {
    const Json &before = at(at(r, "untouched"), "answers"), &after = at(served, "answers");
    out.push_back(
        fmt::format("{} on {} predicts the {} of the test part at {:.3f} nats a token; untouched it was {:.3f}.",
                    word(r, "method"), word(r, "base_model"), plural(count(test, "n_scored"), "answer", "answers"),
                    json_number(served, "loss"), json_number(at(r, "untouched"), "loss")));
    if (count(after, "n") > 0)
      out.push_back(fmt::format("Of {} test rows that it answered, {} were as wanted to the letter ({} untouched).",
                                count(after, "n"), format_percent(json_number(after, "exact")),
                                format_percent(json_number(before, "exact"))));
    out.push_back(fmt::format("The package's loss is within {:.4f} a token of the trainer's on every row.",
                              json_number(served, "largest_difference")));
  } else if (const auto figures = task_figures(r); !figures.empty()) {
    out.push_back(fmt::format("{} on {}, asked for {} test rows: {} {} (95 % interval {}).", word(r, "method"),
                              word(r, "base_model"), format_count(count(test, "n_scored")), figures[0].name,
                              format_figure(figures[0], r), format_figure_interval(figures[0], r)));
    if (has_number(served, "same_tags"))
      out.push_back(fmt::format("The package gives {} of {} the tag that the trainer gave.",
                                format_count(count(served, "same_tags")),
                                plural(count(served, "words"), "word", "words")));
    else if (has_number(served, "same_answers"))
      out.push_back(fmt::format("The package gives {} of {} the answer that the trainer gave.",
                                format_count(count(served, "same_answers")),
                                plural(count(served, "n_scored"), "test row", "test rows")));
    else
      out.push_back(fmt::format("The package's answers are within {:.3g} of the trainer's.",
                                json_number(served, "largest_difference")));
  } else {
    const Interval accuracy = interval_of(r, "accuracy");
    out.push_back(fmt::format("{} on {} answers {} of the test rows right (95 % interval {}).", word(r, "method"),
                              word(r, "base_model"), format_percent(accuracy.value), format_interval(accuracy)));
    out.push_back(fmt::format("The package gives {} of {} the label that the trainer gave.",
                              format_count(count(served, "same_labels")),
                              plural(count(served, "n_scored"), "test row", "test rows")));
  }
  if (const std::string sentence = quantized_sentence(r); !sentence.empty()) out.push_back(sentence);
  const std::string stopped = word(r, "stopped");
  const std::string ending = stopped == "early"      ? "It stopped early: the metric had stopped rising."
                             : stopped == "deadline" ? "It stopped at its deadline."
                                                     : "";
  out.push_back(
      fmt::format("The training took {} over {} ({}) in {}, {} of processor time.{}{}",
                  plural(count(r, "steps"), "step", "steps"), plural(count(r, "examples"), "example", "examples"),
                  plural(count(r, "tokens"), "token", "tokens"), human_seconds(json_number(r, "wall_seconds")),
                  human_seconds(json_number(r, "cpu_seconds")), ending.empty() ? "" : " ", ending));
  const Json& evaluations = at(r, "evaluations");
  if (has_number(r, "best_step")) {
    out.push_back(fmt::format("The values of step {} were kept, the best of {} by {} on the validation rows.",
                              format_count(count(r, "best_step")),
                              plural(evaluations.is_array() ? evaluations.size() : 1, "evaluation", "evaluations"),
                              metric_words(r)));
  } else {
    out.emplace_back("There were no evaluations to choose by: the last values were kept.");
  }
  return out;
}

std::string tune_report_html(const TuneReportInput& input) {
  const Json& r = input.result;
  ReportPage page;
  std::string answer = R"(<section id="answer"><p class="eyebrow">)" +
                       escape_html(fmt::format("{} on {}", word(r, "method"), word(r, "base_model"))) + "</p><h1>" +
                       escape_html(headline(r)) + "</h1>";
  bool first = true;
  for (const std::string& sentence : tune_report_sentences(r)) {
    answer += paragraph(sentence, first ? "lead" : "");
    first = false;
  }
  answer += R"(<div class="cards">)";
  for (const KeyFigure& card : figures_of(r)) {
    answer +=
        fmt::format(R"(<div class="card"><div class="k">{}</div><div class="v">{}</div><div class="d">{}</div></div>)",
                    escape_html(card.name), escape_html(card.value), escape_html(card.detail));
  }
  answer += "</div>";
  for (const std::string& warning : warnings_of(r))
    answer += R"(<div class="callout warn">)" + paragraph(warning) + "</div>";
  answer += kCloseSection;
  const auto add = [&](const char* id, const char* name, const std::string& section) {
    if (section.empty()) return;
    page.parts.emplace_back(id, name);
    page.body += section;
  };
  add("answer", "Answer", answer);
  add("curves", "Training", section_curves(input));
  if (const auto facts = settings_facts(r); !facts.empty())
    add("settings", "Settings",
        open_section("settings", "Settings", "As they were used, those of the method included.") + fact_list(facts) +
            std::string(kCloseSection));
  add("run", "Run", open_section("run", "The run") + fact_list(run_facts(input)) + std::string(kCloseSection));
  page.data = input.data;
  page.meta = fmt::format("{}, {}", word(r, "method"), word(r, "base_model"));
  if (has_number(r, "elapsed_seconds")) page.meta += ", run in " + human_seconds(json_number(r, "elapsed_seconds"));
  page.version = word(at(r, "versions"), "tailor");
  return report_page(page);
}

std::string tune_report_markdown(const TuneReportInput& input) {
  const Json& r = input.result;
  std::string out = fmt::format("# {}\n\n", headline(r));
  for (const std::string& sentence : tune_report_sentences(r)) out += sentence + "\n";
  for (const std::string& warning : warnings_of(r)) out += "\n**" + warning + "**\n";
  out += "\n| | | |\n| --- | --- | --- |\n";
  for (const KeyFigure& card : figures_of(r))
    out += fmt::format("| {} | {} | {} |\n", card.name, card.value, card.detail);
  const Json& evaluations = at(r, "evaluations");
  if (evaluations.is_array() && !evaluations.empty()) {
    out += "\n| step | validation loss | accuracy | |\n| --- | --- | --- | --- |\n";
    for (const Json& e : evaluations) {
      out +=
          fmt::format("| {} | {:.4f} | {} | {} |\n", format_count(count(e, "step")), json_number(e, "loss"),
                      !writes_texts(r) && has_number(e, "accuracy") ? format_percent(json_number(e, "accuracy")) : "",
                      has_number(r, "best_step") && count(e, "step") == count(r, "best_step") ? "kept" : "");
    }
  }
  return out + "\nThe curves are in report.html.\n";
}

}  // namespace tailor
