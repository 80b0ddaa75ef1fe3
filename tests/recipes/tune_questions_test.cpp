/// `tailor tune --task span-extraction`: a question and a text in, a piece of it out; what is served answers as what
/// was trained.

#include "core/json.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

class TuneQuestions : public ::testing::Test {
 protected:
  /// Who lives where: the answer stands after the name. Every fifth text is long, every `unanswered`th has no answer.
  std::string rows(int n, int unanswered = 0) {
    const char* names[4] = {"Anna", "Boris", "Clara", "Deborah"};
    const char* places[5] = {"Paris", "New York", "Oslo", "Rio Grande", "Köln"};
    std::string out;
    for (int i = 0; i < n; ++i) {
      const bool none = unanswered > 0 && i % unanswered == 0;
      std::string context = "“Letter " + std::to_string(i) + "”. ";
      if (i % 5 == 0)
        for (int w = 0; w < 450; ++w) context += w % 9 == 0 ? "and so on. " : "rain ";
      context += std::string(names[(i + 1) % 4]) + " is at home. ";
      std::string answer = places[i % 5];
      std::size_t start = 0;
      if (!none) {
        context += std::string(names[i % 4]) + " lives in ";
        for (const char c : context) start += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
        context += answer + ", they say.";
      }
      Json answers{{"text", Json::array()}, {"answer_start", Json::array()}};
      if (!none) answers = {{"text", {answer}}, {"answer_start", {start}}};
      out += dump_json(Json{{"question", std::string("Where does ") + names[i % 4] + " live?"},
                            {"context", context},
                            {"answers", answers}}) +
             "\n";
    }
    return out;
  }
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  }
  Outcome tune(const std::string& data, const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> arguments{"tune",  (dir_.path() / data).string(), "--task", "span-extraction", "--quiet",
                                       "--out", (dir_.path() / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Json result(const std::string& out) { return read_json(dir_.path() / out / "result.json").value(); }
  void write(const std::string& name, const std::string& content) {
    write_file_atomic(dir_.path() / name, content).value();
  }
  const TemporaryDirectory dir_;
};

TEST_F(TuneQuestions, AreServedAsTrained) {
  write("data.jsonl", rows(60));
  const Outcome r = tune("data.jsonl", "full", {"--method", "full", "--max-steps", "12", "--batch-size", "8"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json result = this->result("full");
  EXPECT_EQ(result.at("no_answer"), false);
  EXPECT_EQ(result.at("served").at("same_answers"), result.at("served").at("n_scored"));
  EXPECT_GE(result.at("test").at("metrics").at("f1").at("value").get<double>(),
            result.at("test").at("metrics").at("exact_match").at("value").get<double>());
  const std::string package = (dir_.path() / "full" / "package").string();
  const fs::path scored = dir_.path() / "scored.jsonl";
  const Outcome all =
      run({"predict", package, "--input", (dir_.path() / "data.jsonl").string(), "--output", scored.string()});
  ASSERT_EQ(all.code, 0) << all.err;
  EXPECT_TRUE(contains(all.out, "exact match")) << all.out;
  const std::vector<Json> answers = read_jsonl(scored).value();
  for (const Json& row : read_jsonl(dir_.path() / "full" / "test_predictions.jsonl").value()) {
    const Json& served = answers[row.at("line").get<std::size_t>() - 1];
    EXPECT_EQ(row.at("answer"), served.at("answer"));
    EXPECT_EQ(row.at("start"), served.at("start"));
    EXPECT_EQ(row.at("expected"), served.at("expected"));
  }
  const Outcome one = run({"predict", package, "Where does Anna live?", "Anna lives in Oslo.", "--json"});
  EXPECT_TRUE(contains(one.out, "\"answer\":")) << one.out << one.err;
  const Outcome odd = run({"predict", package, "Where does Anna live?"});
  EXPECT_EQ(odd.code, 2);
  EXPECT_TRUE(contains(odd.err, "a question from a text")) << odd.err;
}

TEST_F(TuneQuestions, ATextMayHaveNoAnswer) {
  write("data.jsonl", rows(60, 3));
  const Outcome r = tune("data.jsonl", "lora", {"--method", "lora", "--max-steps", "6", "--batch-size", "8"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(result("lora").at("no_answer"), true);
  EXPECT_EQ(result("lora").at("served").at("same_answers"), result("lora").at("served").at("n_scored"));
}

TEST_F(TuneQuestions, SayWhatIsWrong) {
  write("data.jsonl", rows(12));
  const auto refused = [&](std::vector<std::string> more, const std::string& part) {
    const Outcome r = tune("data.jsonl", "wrong", more);
    EXPECT_EQ(r.code, 2) << part;
    EXPECT_TRUE(contains(r.err, part)) << r.err;
  };
  refused({"--method", "distill", "--teacher", "x"}, "is for one label a text");
  refused({"--text", "question"}, "a question and a text");
  refused({"--text", "asked", "--text-pair", "context"}, "it has no text \"asked\"");
  refused({"--metric", "macro_f1"}, "--metric macro_f1");
}

}  // namespace
}  // namespace tailor::test
