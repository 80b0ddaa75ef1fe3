#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <memory>

#include "apps/tailor/verbs.h"
#include "core/json.h"
#include "fit/advice.h"

namespace tailor {
namespace {

struct AdviseWords {
  FitOptions options;
  std::vector<std::string> answers;
  bool json = false;
};

/// Asks what was not answered on the command line; an empty line leaves a question open.
void ask(std::map<std::string, std::string>& answers) {
  fmt::print("Answer y, n, or press Enter where you do not know.\n\n");
  for (const auto& q : advice_questions()) {
    if (answers.contains(std::string(q.key))) continue;
    fmt::print("{}\n  ({}) [y/n/?] ", q.text, q.why);
    std::cout.flush();
    std::string line;
    if (!std::getline(std::cin, line)) break;
    if (line == "y" || line == "yes")
      answers[std::string(q.key)] = "yes";
    else if (line == "n" || line == "no")
      answers[std::string(q.key)] = "no";
  }
  fmt::print("\n");
}

}  // namespace

void add_advise(CLI::App& app, Invocation& invocation) {
  auto* verb =
      app.add_subcommand("advise", "asks what the decision turns on, looks at your data, and says what to try and why");
  auto words = std::make_shared<AdviseWords>();
  AdviseWords& w = *words;
  verb->add_option("data", w.options.data, "CSV file with your examples")->required()->type_name("CSV");
  verb->add_option("--text", w.options.text_columns, "column with the text")->required()->type_name("COLUMN");
  verb->add_option("--label", w.options.label_column, "column with the label")->required()->type_name("COLUMN");
  verb->add_option("--model", w.options.models, "base model you have in mind")->type_name("MODEL");
  verb->add_option("--answer", w.answers, "QUESTION=yes|no|unknown; the others are asked")->type_name("ANSWER");
  verb->add_flag("--json", w.json, "as JSON; asks nothing");
  verb->footer(
      "Example:  tailor advise inquiries.csv --text message --label intent\n"
      "`tailor fit --dry-run` adds the time and memory of every candidate on this machine.");
  verb->callback([&invocation, words] {
    invocation.run = [words]() -> Result<int> {
      AdviseWords& given = *words;
      for (const auto& answer : given.answers) {
        TAILOR_TRY(const auto pair, parse_answer(answer));
        given.options.answers[pair.first] = pair.second;
      }
      DataReport report;
      Leaks leaks;
      TAILOR_TRY(const PreparedData data, prepare_data(given.options, report, leaks));
      if (!given.json && isatty(STDIN_FILENO) != 0) ask(given.options.answers);
      const Advice advice = make_advice(given.options.answers, data, given.options);
      if (given.json) {
        Json json = to_json(advice);
        json["data"] = to_json(report);
        fmt::print("{}\n", dump_json(json, 2));
        return 0;
      }
      for (const auto& finding : report.findings) {
        if (finding.severity != Severity::kNote) fmt::print("! {}\n", finding.message);
      }
      fmt::print("{}", advice_text(advice));
      return 0;
    };
  });
}

}  // namespace tailor
