/// `tailor tune` on pairs of texts, numbers and several labels, and on DistilBERT, RoBERTa and ModernBERT directories:
/// what is served answers as what was trained.

#include <algorithm>
#include <cmath>

#include "core/json.h"
#include "data/csv.h"
#include "model/test_encoder_family.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

class TuneTargets : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
    // 64 reviews of two columns: a word for each topic that holds, and stars from how many words are good.
    const char* words[3] = {"room", "food", "staff"};
    const char* names[3] = {"place", "kitchen", "people"};
    std::string csv = "review,answer,stars,topics,list,label\n";
    for (int i = 0; i < 64; ++i) {
      std::string text = "visit " + std::to_string(i) + ":", topics, list;
      for (int t = 0; t < 3; ++t) {
        if ((i >> t) % 2 == 0) continue;
        text += std::string(" the ") + words[t] + " again";
        topics += (topics.empty() ? "" : "; ") + std::string(names[t]);
        list += (list.empty() ? "\"\"" : ",\"\"") + std::string(names[t]) + "\"\"";
      }
      const int stars = i % 5;
      for (int s = 0; s < stars; ++s) text += " wonderful";
      const std::string answer = (i % 2 == 0 ? "thank you " : "sorry about that ") + std::to_string(i);
      csv += text + "," + answer + "," + std::to_string(stars) + ".5," + topics + ",\"[" + list + "]\"," +
             (i % 2 == 0 ? "yes" : "no") + "\n";
    }
    write_file_atomic(csv_, csv).value();
  }
  Outcome tune(const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> arguments{"tune", csv_.string(), "--quiet", "--out", (dir_.path() / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Json result(const std::string& out) { return read_json(dir_.path() / out / "result.json").value(); }
  /// Rows of `predict` over the whole file, by the line of the file.
  CsvTable predict_all(const std::string& out) {
    const auto scored = dir_.path() / (out + ".csv");
    const Outcome p = run(
        {"predict", (dir_.path() / out / "package").string(), "--input", csv_.string(), "--output", scored.string()});
    EXPECT_EQ(p.code, 0) << p.err;
    return CsvTable::read(scored).value();
  }
  const TemporaryDirectory dir_;
  const fs::path csv_ = dir_.path() / "data.csv";
};

TEST_F(TuneTargets, PairsAreServedAsTrained) {
  const Outcome r = tune("pairs", {"--text", "review", "--text-pair", "answer", "--label", "label", "--method", "full",
                                   "--max-steps", "6"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json result = this->result("pairs");
  EXPECT_EQ(result.at("served").at("same_labels"), result.at("served").at("n_scored"));
  const CsvTable answers = predict_all("pairs");
  const std::size_t label = answers.column("label").value();
  for (const Json& row : read_jsonl(dir_.path() / "pairs" / "test_predictions.jsonl").value())
    EXPECT_EQ(row.at("predicted"), std::string(answers.cell(row.at("row").get<std::size_t>(), label)));
  const std::string package = (dir_.path() / "pairs" / "package").string();
  EXPECT_EQ(run({"predict", package, "a first text", "a second one"}).code, 0);
  const Outcome odd = run({"predict", package, "a first text"});
  EXPECT_EQ(odd.code, 2);
  EXPECT_TRUE(contains(odd.err, "pairs of texts")) << odd.err;
}

TEST_F(TuneTargets, NumbersAreServedAsTrained) {
  const Outcome r = tune("stars", {"--text", "review", "--task", "regression", "--target", "stars", "--method", "full",
                                   "--max-steps", "30", "--batch-size", "8"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json result = this->result("stars");
  EXPECT_EQ(result.at("task"), "regression");
  EXPECT_LT(result.at("served").at("largest_difference").get<double>(), 0.02);
  EXPECT_GT(result.at("test").at("metrics").at("spearman").at("value").get<double>(), 0.5);
  const CsvTable answers = predict_all("stars");
  const std::size_t value = answers.column("value").value();
  for (const Json& row : read_jsonl(dir_.path() / "stars" / "test_predictions.jsonl").value()) {
    const double seen = std::stod(std::string(answers.cell(row.at("line").get<std::size_t>() - 2, value)));
    EXPECT_NEAR(seen, row.at("predicted").get<double>(), 0.02);
  }
  const Outcome one = run({"predict", (dir_.path() / "stars" / "package").string(), "wonderful", "--json"});
  EXPECT_TRUE(contains(one.out, "\"value\":")) << one.out << one.err;
}

TEST_F(TuneTargets, SeveralLabelsAreServedAsTrained) {
  const Outcome r = tune("topics", {"--text", "review", "--label", "topics", "--label-separator", ";", "--method",
                                    "full", "--max-steps", "30", "--batch-size", "8"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json result = this->result("topics");
  EXPECT_EQ(result.at("data").at("labels"), Json({"kitchen", "people", "place"}));
  EXPECT_EQ(result.at("served").at("same_labels"), result.at("served").at("n_scored"));
  EXPECT_GT(result.at("test").at("metrics").at("micro_f1").at("value").get<double>(), 0.7);
  const CsvTable answers = predict_all("topics");
  const std::size_t label = answers.column("label").value();
  for (const Json& row : read_jsonl(dir_.path() / "topics" / "test_predictions.jsonl").value()) {
    std::string joined;
    for (const Json& name : row.at("predicted")) joined += (joined.empty() ? "" : ";") + name.get<std::string>();
    EXPECT_EQ(std::string(answers.cell(row.at("line").get<std::size_t>() - 2, label)), joined);
  }
  // The same as JSON lists: the same rows, the same labels.
  const Outcome lists = tune(
      "list", {"--text", "review", "--label", "list", "--task", "multi-label", "--method", "head", "--max-steps", "2"});
  ASSERT_EQ(lists.code, 0) << lists.err;
  EXPECT_EQ(this->result("list").at("data").at("labels"), result.at("data").at("labels"));
}

class TuneFamilies : public TuneTargets, public ::testing::WithParamInterface<std::tuple<const char*, const char*>> {};

TEST_P(TuneFamilies, ADirectoryIsTunedServedAndWrittenBack) {
  const auto [family, module] = GetParam();
  const fs::path model = dir_.path() / "model";
  fs::create_directories(model);
  tailor::testing::TinyEncoder(family).write(model);
  const Outcome r = tune("family", {"--text", "review", "--label", "label", "--method", "lora", "--target-modules",
                                    module, "--model", model.string(), "--max-steps", "4", "--export-hugging-face"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(result("family").at("served").at("same_labels"), result("family").at("served").at("n_scored"));
  const fs::path out = dir_.path() / "family";
  const std::string adapter = read_file(out / "package" / "adapter" / "adapter_model.safetensors").value();
  EXPECT_TRUE(contains(adapter, std::string(".") + module + ".lora_A.weight"));
  const Json config = read_json(out / "huggingface" / "config.json").value();
  EXPECT_EQ(config.at("model_type"), family);
  EXPECT_TRUE(
      contains(read_file(out / "huggingface" / "model.safetensors").value(), std::string(".") + module + ".weight"));
}

INSTANTIATE_TEST_SUITE_P(Directories, TuneFamilies,
                         ::testing::Values(std::tuple{"distilbert", "q_lin"}, std::tuple{"roberta", "query"},
                                           std::tuple{"modernbert", "Wqkv"}));

// Each way of serving: vectors, tuned weights, merged updates, merged scales, bottlenecks.
TEST_F(TuneTargets, ModernBertIsServedAsTrainedByEveryMethod) {
  const fs::path model = dir_.path() / "model";
  fs::create_directories(model);
  tailor::testing::TinyEncoder("modernbert").write(model);
  for (const std::string method : {"head", "full", "upper-layers", "layernorm", "dora", "pissa", "ia3",
                                   "adapter-houlsby", "adapter-pfeiffer", "adapter-parallel", "contrastive"}) {
    std::vector<std::string> words{"--text", "review",  "--label",      "label",       "--method",
                                   method,   "--model", model.string(), "--max-steps", "3"};
    if (method.starts_with("adapter-")) words.insert(words.end(), {"--adapter-size", "8"});
    const Outcome r = tune(method, words);
    ASSERT_EQ(r.code, 0) << method << r.err;
    const Json served = result(method).at("served");
    EXPECT_EQ(served.at("same_labels"), served.at("n_scored")) << method;
  }
  const Outcome refused = tune("bitfit", {"--text", "review", "--label", "label", "--method", "bitfit", "--model",
                                          model.string(), "--max-steps", "3"});
  EXPECT_NE(refused.code, 0);
  EXPECT_TRUE(contains(refused.err, "method 'bitfit' trains biases, and ModernBERT has none")) << refused.err;
  const Outcome pattern =
      tune("pattern", {"--text", "review", "--label", "label", "--method", "lora", "--model", model.string(),
                       "--max-steps", "3", "--target-modules", "layers\\.[03]\\..*Wo"});
  ASSERT_EQ(pattern.code, 0) << pattern.err;
  EXPECT_EQ(result("pattern").at("served").at("same_labels"), result("pattern").at("served").at("n_scored"));
  const Json config = read_json(dir_.path() / "pattern" / "package" / "adapter" / "adapter_config.json").value();
  EXPECT_EQ(config.at("target_modules"), R"((.*\.)?layers\.(0\.attn\.Wo|0\.mlp\.Wo|3\.attn\.Wo|3\.mlp\.Wo))");
}

TEST_F(TuneTargets, SayWhatIsWrong) {
  const auto refused = [&](std::vector<std::string> more, const std::string& part) {
    more.insert(more.begin(), {"--text", "review"});
    const Outcome r = tune("wrong", more);
    EXPECT_EQ(r.code, 2) << part;
    EXPECT_TRUE(contains(r.err, part)) << r.err;
  };
  refused({"--target", "stars"}, "--target is the column with the number");
  refused({"--task", "regression"}, "needs the name of the column with the number");
  refused({"--task", "regression", "--target", "label", "--method", "full"}, "\"yes\" is not a number");
  refused({"--task", "regression", "--target", "star", "--method", "full"}, "did you mean");
  refused({"--task", "regression", "--target", "stars", "--metric", "accuracy"}, "--metric accuracy");
  refused({"--task", "regression", "--target", "stars", "--method", "contrastive"}, "one label a text");
  refused({"--task", "regression", "--target", "stars", "--method", "qlora"}, "tunes decoders");
  refused({"--task", "multi-label", "--label", "list", "--model", "smollm2-135m-instruct", "--method", "lora"},
          "is for encoders");
  refused({"--text-pair", "answer", "--label", "label", "--model", "smollm2-135m-instruct", "--method", "lora"},
          "--text-pair is for encoders");
  refused({"--label-separator", ";", "--task", "regression", "--target", "stars"}, "--label-separator is for");
}

}  // namespace
}  // namespace tailor::test
