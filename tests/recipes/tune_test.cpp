/// `tailor tune` as a user runs it, on small data: what is served answers as what was trained, and an interrupted run
/// goes on to the same end.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <tuple>

#include "core/json.h"
#include "data/csv.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

/// A model, and a method.
class Tune : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
    csv_ = (dir_.path() / "data.csv").string();
    write_file_atomic(csv_, small_csv(16)).value();
  }
  Outcome tune(const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> arguments{
        "tune", csv_, "--text", "message", "--label", "intent", "--quiet", "--out", (dir_.path() / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  TemporaryDirectory dir_;
  std::string csv_;
};

TEST_P(Tune, ThePackageAnswersAsTheTrainerDid) {
  const auto [model, method] = GetParam();
  const Outcome r = tune("run", {"--model", model, "--method", method, "--max-steps", "4"});
  ASSERT_EQ(r.code, 0) << r.err;
  const fs::path out = dir_.path() / "run";
  const Json result = read_json(out / "result.json").value();
  EXPECT_EQ(result.at("method"), method);
  EXPECT_GT(result.at("trained_parameters").get<std::int64_t>(), 0);
  const auto rows = read_jsonl(out / "test_predictions.jsonl").value();
  ASSERT_EQ(result.at("served").at("same_labels").get<std::size_t>(), rows.size());
  EXPECT_FALSE(fs::exists(out / "train"));
  // The same through `predict`, row by row.
  const CsvTable table = CsvTable::read(csv_).value();
  std::string test_csv = "message\n";
  for (const Json& row : rows)
    append_csv_row(test_csv, std::vector<std::string_view>{table.cell(row.at("row").get<std::size_t>(), 0)});
  write_file_atomic(dir_.path() / "test.csv", test_csv).value();
  const auto scored = dir_.path() / "scored.csv";
  const Outcome p = run({"predict", (out / "package").string(), "--input", (dir_.path() / "test.csv").string(),
                         "--output", scored.string()});
  ASSERT_EQ(p.code, 0) << p.err;
  const CsvTable answers = CsvTable::read(scored).value();
  ASSERT_EQ(answers.rows(), rows.size());
  const std::size_t label = answers.column("label").value();
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].at("predicted"), std::string(answers.cell(i, label)));
}

INSTANTIATE_TEST_SUITE_P(OfAnEncoder, Tune,
                         testing::Combine(testing::Values("all-minilm-l6-v2"),
                                          testing::Values("full", "head", "features", "bitfit", "lora", "dora", "pissa",
                                                          "ia3", "adapter-houlsby", "adapter-parallel",
                                                          "contrastive")));
INSTANTIATE_TEST_SUITE_P(OfADecoder, Tune,
                         testing::Combine(testing::Values("smollm2-135m-instruct"),
                                          testing::Values("qlora", "full", "dora", "pissa", "ia3", "adapter-parallel",
                                                          "prompt-tuning", "prefix-tuning")));

using TuneWords = Tune;

TEST_F(TuneWords, WithBf16WhatAnswersIsTheRoundedModelThatWasTrained) {
  for (const std::string method : {"lora", "layernorm", "adapter-pfeiffer"}) {
    const Outcome r = tune(method, {"--method", method, "--max-steps", "4", "--dtype", "bf16"});
    ASSERT_EQ(r.code, 0) << r.err;
    const Json result = read_json(dir_.path() / method / "result.json").value();
    EXPECT_EQ(result.at("base_in_memory"), "bf16");
    EXPECT_EQ(result.at("served").at("same_labels"),
              read_jsonl(dir_.path() / method / "test_predictions.jsonl").value().size());
  }
  const Outcome refused = tune("none", {"--device", "cuda", "--method", "head"});
  if (refused.code == 0) GTEST_SKIP() << "this machine has a CUDA device, and this build its half of libtorch";
  EXPECT_TRUE(contains(refused.err, "device cuda: this tailor-tune sees none")) << refused.err;
  EXPECT_TRUE(contains(refused.err, "docs/BUILD.md")) << refused.err;
}

TEST_F(TuneWords, WhatFewerBitsChangeIsMeasuredAndThePackageIsSmaller) {
  for (const auto& [model, method, type] :
       {std::tuple{"all-minilm-l6-v2", "lora", "q8_0"}, std::tuple{"smollm2-135m-instruct", "lora", "q4_k_m"},
        std::tuple{"smollm2-135m-instruct", "prefix-tuning", "q8_0"}}) {
    SCOPED_TRACE(fmt::format("{} of {} as {}", method, model, type));
    const std::string out = fmt::format("{}-{}", method, type);
    const Outcome r = tune(out, {"--model", model, "--method", method, "--max-steps", "4", "--quantize", type});
    ASSERT_EQ(r.code, 0) << r.err;
    const fs::path package = dir_.path() / out / "package";
    const Json result = read_json(dir_.path() / out / "result.json").value();
    const Json &served = result.at("served"), &quantized = result.at("quantized");
    EXPECT_EQ(served.at("same_labels"), served.at("n_scored")) << "of the weights as trained";
    EXPECT_EQ(quantized.at("type"), type);
    EXPECT_EQ(quantized.at("n_scored"), served.at("n_scored"));
    EXPECT_LT(quantized.at("package_bytes").get<double>(), 0.75 * served.at("package_bytes").get<double>());
    // What lies in the package is what was measured last, and says so.
    const Json manifest = read_json(package / "manifest.json").value();
    EXPECT_EQ(manifest.at("scores").at("accuracy"), quantized.at("metrics").at("accuracy").at("value"));
    EXPECT_TRUE(
        contains(manifest.at("base_model").at("source").get<std::string>(), std::string("quantized to ") + type));
    EXPECT_EQ(run({"predict", package.string(), "my card is lost"}).code, 0);
    EXPECT_TRUE(contains(read_file(dir_.path() / out / "report.md").value(), type));
  }
  const Outcome refused = tune("none", {"--method", "head", "--quantize", "q4_0"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(contains(refused.err, "an encoder's package takes q8_0")) << refused.err;
}

TEST_F(TuneWords, SayWhatIsWrong) {
  const Outcome method = tune("a", {"--method", "lorra"});
  EXPECT_EQ(method.code, 2);
  EXPECT_TRUE(contains(method.err, "did you mean lora?")) << method.err;
  const Outcome kind = tune("b", {"--method", "prefix-tuning", "--model", "all-minilm-l6-v2"});
  EXPECT_EQ(kind.code, 2);
  EXPECT_TRUE(contains(kind.err, "tunes decoders")) << kind.err;
  const Outcome rank = tune("c", {"--method", "lora", "--lora-r", "4000", "--no-head-start"});
  EXPECT_EQ(rank.code, 2);
  EXPECT_TRUE(contains(rank.err, "use a smaller r")) << rank.err;
  EXPECT_EQ(run({"tune", "--method", "list"}).code, 0);
  EXPECT_EQ(run({"tune"}).code, 2);
}

/// `tailor` lists the methods without tailor-tune, which knows them itself.
TEST_F(TuneWords, BothProgramsKnowTheSameMethods) {
  const auto job = dir_.path() / "job.json";
  write_file_atomic(job, R"({"format": "tailor-tune-job", "version": 1, "method": "?"})").value();
  std::string refusal;
  const CancelToken never;
  const auto trainer = program().parent_path() / "tailor-tune";
  run_process(
      {.command = {trainer.string(), job.string()}, .stderr_file = dir_.path() / "log"},
      [&](std::string_view line) { refusal = parse_json(line, "event").value().at("hint"); }, never)
      .value();
  std::string listed = "known: ";
  const std::string list = run({"tune", "--method", "list"}).out;
  for (std::size_t at = 0; at < list.size(); at = list.find('\n', at) + 1) {
    const std::size_t name = list.find_first_not_of(' ', at);
    listed += (listed.ends_with(": ") ? "" : ", ") + list.substr(name, list.find(' ', name) - name);
  }
  EXPECT_EQ(listed, refusal);
}

/// docs/methods/README.md says what each method is tuned on; `--method list` is what it is held against.
TEST_F(TuneWords, TheTableOfTheDocumentsIsTheProgramsOwn) {
  std::map<std::string, std::string> uses;
  const std::string list = run({"tune", "--method", "list"}).out;
  std::istringstream lines(list);
  for (std::string line; std::getline(lines, line);) {
    std::string name;
    std::istringstream(line) >> name;
    uses[name] = line.substr(line.find_first_not_of(' ', line.find(name) + name.size()));
  }
  const fs::path docs = fs::path(std::getenv("TAILOR_SOURCE_DIR")) / "docs" / "methods";
  const std::string page = read_file(docs / "README.md").value();
  std::istringstream table(page.substr(page.find("## What applies to what"), page.find("## Encoders")));
  std::set<std::string> seen;
  for (std::string line; std::getline(table, line) && line != "## Encoders";) {
    if (!line.starts_with("| [")) continue;
    const std::string name = line.substr(3, line.find(']') - 3);
    seen.insert(name);
    EXPECT_TRUE(fs::exists(docs / (name + ".md"))) << name;
    std::vector<std::string> cells;
    std::size_t at = line.find('|', 1);
    for (std::size_t end = line.find('|', at + 1); end != std::string::npos; end = line.find('|', at + 1)) {
      cells.push_back(line.substr(at + 2, end - at - 3));
      at = end;
    }
    ASSERT_EQ(cells.size(), 8u) << line;
    ASSERT_TRUE(uses.contains(name)) << name << " is not in --method list";
    const bool any_task = uses[name].starts_with("encoders, any task");
    const bool encoders = uses[name].starts_with("encoders"), decoders = contains(uses[name].substr(0, 30), "decoders");
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const bool applies = i < 2 ? encoders : i < 6 ? any_task : decoders;
      EXPECT_EQ(cells[i] != "–", applies) << name << ", column " << i + 1;
    }
  }
  EXPECT_EQ(seen.size(), uses.size());
}

}  // namespace
}  // namespace tailor::test
