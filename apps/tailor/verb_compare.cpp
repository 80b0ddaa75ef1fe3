#include <fmt/format.h>

#include <memory>

#include "apps/tailor/verbs.h"
#include "core/json.h"
#include "recipes/compare.h"

namespace tailor {
namespace {

Json to_json(const ComparedMethod& m) {
  return Json{{"id", m.id},
              {"a", m.a},
              {"b", m.b},
              {"difference", m.difference.difference},
              {"low", m.difference.low},
              {"high", m.difference.high},
              {"p_value", m.difference.p_value},
              {"n_common", m.difference.n_common}};
}

}  // namespace

void add_compare(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("compare", "two runs side by side, paired on their common test rows");
  struct Words {
    std::string a, b;
    bool json = false;
  };
  auto words = std::make_shared<Words>();
  verb->add_option("run", words->a, "run directory")->required()->type_name("RUN");
  verb->add_option("run2", words->b, "the other run directory")->required()->type_name("RUN2");
  verb->add_flag("--json", words->json, "as JSON");
  verb->footer("Example:  tailor compare runs/march runs/april");
  verb->callback([&invocation, words] {
    invocation.run = [words]() -> Result<int> {
      TAILOR_TRY(const RunComparison c, compare_runs(words->a, words->b));
      if (words->json) {
        Json json{{"run_a", c.run_a},
                  {"run_b", c.run_b},
                  {"metric", c.metric},
                  {"same_test_rows", c.same_test_rows},
                  {"methods", Json::array()},
                  {"recommended_a", c.recommended_a},
                  {"recommended_b", c.recommended_b},
                  {"recommended", to_json(c.recommended)},
                  {"remarks", c.remarks}};
        for (const auto& m : c.methods) json["methods"].push_back(to_json(m));
        fmt::print("{}\n", dump_json(json, 2));
      } else {
        fmt::print("{}", comparison_text(c));
      }
      return 0;
    };
  });
}

}  // namespace tailor
