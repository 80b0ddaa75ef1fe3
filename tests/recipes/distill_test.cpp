/// `tailor tune --method distill` as a user runs it: a student of a package, of a file of answers, of a model that
/// writes; and what else goes on where an interruption left it.

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "core/json.h"
#include "data/csv.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

class Distill : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
    csv_ = path("data.csv");
    write_file_atomic(csv_, small_csv(24)).value();
  }
  std::string path(const std::string& name) const { return (dir_.path() / name).string(); }
  std::vector<std::string> words(const std::string& out, std::vector<std::string> more) const {
    std::vector<std::string> all{"tune", csv_, "--text", "message", "--label", "intent", "--out", path(out)};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Outcome tune(const std::string& out, std::vector<std::string> more) const {
    more.emplace_back("--quiet");
    return run(words(out, std::move(more)));
  }
  Json result(const std::string& out) const { return read_json(dir_.path() / out / "result.json").value(); }
  /// Interrupts at the first event that `when` says yes to; returns the exit code.
  int interrupt(const std::string& out, std::vector<std::string> more, const std::function<bool(const Json&)>& when) {
    more.emplace_back("--json");
    std::vector<std::string> command = words(out, std::move(more));
    command.insert(command.begin(), program().string());
    CancelToken stop;
    return run_process(
               {.command = command, .stderr_file = dir_.path() / "log"},
               [&](std::string_view line) {
                 if (when(parse_json(std::string(line), "event").value())) stop.cancel();
               },
               stop)
        .value()
        .exit_code;
  }
  TemporaryDirectory dir_;
  std::string csv_;
};

TEST_F(Distill, AStudentLearnsFromAPackageAndFromTextsWithoutLabels) {
  ASSERT_EQ(tune("teacher", {"--method", "features"}).code, 0);
  const auto tested = read_jsonl(path("teacher/test_predictions.jsonl")).value();
  const CsvTable table = CsvTable::read(csv_).value();
  // New texts, one of the test part, and a blank one.
  std::string more = "message\nmy new card is not in the post\nis my money back from the shop\n";
  append_csv_row(more, std::vector<std::string_view>{table.cell(tested[0].at("row").get<std::size_t>(), 0)});
  more += "\"  \"\n";
  write_file_atomic(path("more.csv"), more).value();

  const std::vector<std::string> distill{"--method",     "distill",        "--teacher",   path("teacher/package"),
                                         "--unlabelled", path("more.csv"), "--max-steps", "6"};
  const Outcome r = run(words("student", distill));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.out + r.err, "1 text(s) of")) << r.out << r.err;
  const Json student = result("student");
  EXPECT_EQ(student.at("method"), "distill");
  EXPECT_EQ(student.at("split").at("unlabelled"), 2);
  EXPECT_EQ(student.at("settings").at("distill").at("temperature"), 2);
  const Json& about = student.at("teacher");
  EXPECT_EQ(about.at("kind"), "package");
  EXPECT_EQ(about.at("method"), "features");
  EXPECT_EQ(about.at("learnt_from"), (Json{{"train", true}, {"validation", false}, {"test", false}}));
  EXPECT_EQ(about.at("answered"), (Json{{"labelled", student.at("split").at("train")}, {"unlabelled", 2}}));
  EXPECT_EQ(about.at("test").at("metrics"), result("teacher").at("test").at("metrics"));
  EXPECT_EQ(student.at("served").at("same_labels"), student.at("test").at("n_scored"));
  const std::size_t asked = student.at("split").at("train").get<std::size_t>() + 2 + tested.size();
  EXPECT_EQ(read_jsonl(path("student/teacher_predictions.jsonl")).value().size(), asked);

  // Interrupted and taken up again: the same end.
  ASSERT_EQ(interrupt("again", distill,
                      [](const Json& e) { return e.value("event", "") == "step" && e.value("step", 0) == 3; }),
            130);
  const Outcome resumed = run({"tune", "--resume", path("again"), "--quiet"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(result("again").at("losses"), student.at("losses"));
  EXPECT_EQ(result("again").at("test"), student.at("test"));
  EXPECT_EQ(result("again").at("teacher"), student.at("teacher"));

  // The answers alone, in a file: what they are matched by is their row.
  const Outcome from_file =
      tune("file", {"--method", "distill", "--teacher", path("student/teacher_predictions.jsonl"), "--max-steps", "2"});
  ASSERT_EQ(from_file.code, 0) << from_file.err;
  EXPECT_EQ(result("file").at("teacher").at("kind"), "answers");
  EXPECT_EQ(result("file").at("teacher").at("answered").at("labelled"), student.at("split").at("train"));
  // By their text, from `predict`.
  const std::string scored = path("scored.csv");
  ASSERT_EQ(run({"predict", path("teacher/package"), "--input", csv_, "--output", scored}).code, 0);
  ASSERT_EQ(tune("csv", {"--method", "distill", "--teacher", scored, "--max-steps", "2"}).code, 0);
  const auto a = result("csv").at("losses").get<std::vector<double>>();
  const auto b = result("file").at("losses").get<std::vector<double>>();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-4);
}

TEST_F(Distill, ADecoderLearnsLabelsFromATeacher) {
  ASSERT_EQ(tune("teacher", {"--method", "features"}).code, 0);
  const Outcome r = tune("student", {"--method", "distill", "--model", "smollm2-135m-instruct", "--teacher",
                                     path("teacher/package"), "--max-steps", "2", "--batch-size", "2"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(result("student").at("base_model"), "smollm2-135m-instruct");
  EXPECT_EQ(result("student").at("served").at("same_labels"), result("student").at("test").at("n_scored"));
}

TEST_F(Distill, IsKeptFair) {
  ASSERT_EQ(tune("other", {"--method", "features", "--seed", "2"}).code, 0);
  const Outcome seen = tune("a", {"--method", "distill", "--teacher", path("other/package")});
  EXPECT_EQ(seen.code, 2);
  EXPECT_TRUE(contains(seen.err, "from rows of the test part")) << seen.err;
}

TEST_F(Distill, SaysWhatIsWrong) {
  const auto expect = [&](std::vector<std::string> more, std::string_view part) {
    const Outcome r = tune("wrong", std::move(more));
    EXPECT_EQ(r.code, 2) << r.err;
    EXPECT_TRUE(contains(r.err, part)) << r.err;
    fs::remove_all(path("wrong"));
  };
  expect({"--method", "distill"}, "needs a teacher");
  expect({"--method", "full", "--teacher", path("x")}, "distill.teacher means nothing to method full");
  expect({"--method", "full", "--unlabelled", csv_}, "distill.unlabelled means nothing");
  expect({"--method", "distill", "--teacher", path("absent")}, "no such package or file");
  expect({"--method", "lora", "--init-text", "x"}, "init_text means nothing to method lora");
  write_file_atomic(path("strange.jsonl"), "{\"text\": \"of nobody\", \"p\": [1, 0, 0, 0]}\n").value();
  expect({"--method", "distill", "--teacher", path("strange.jsonl")}, "answers none of the");
}

TEST_F(Distill, AnInterruptedRefitKeepsItsFinishedHalf) {
  write_file_atomic(csv_, small_csv(40)).value();  // enough for a validation part
  const std::vector<std::string> refit{"--method", "head", "--epochs", "3", "--refit"};
  ASSERT_EQ(interrupt("run", refit, [](const Json& e) { return e.value("event", "") == "done"; }), 130);
  std::vector<std::string> command{program().string(), "tune", "--resume", path("run"), "--json"};
  int steps = 0;
  const CancelToken never;
  ASSERT_EQ(run_process(
                {.command = command, .stderr_file = dir_.path() / "log"},
                [&](std::string_view line) {
                  steps += parse_json(std::string(line), "event").value().value("event", "") == "step" ? 1 : 0;
                },
                never)
                .value()
                .exit_code,
            0);
  const Json run = result("run");
  EXPECT_LE(steps, run.at("refit").at("steps").get<int>()) << "those of the first training are not taken again";
  ASSERT_EQ(tune("whole", refit).code, 0);
  const Json whole = result("whole");
  EXPECT_EQ(run.at("test"), whole.at("test"));
  EXPECT_EQ(run.at("losses"), whole.at("losses"));
  EXPECT_EQ(run.at("refit").at("losses"), whole.at("refit").at("losses"));
}

TEST_F(Distill, ARefitLearnsFromAllRowsForTheEpochsThatWereBest) {
  write_file_atomic(csv_, small_csv(40)).value();
  ASSERT_EQ(tune("run", {"--method", "lora", "--epochs", "2", "--refit"}).code, 0);
  const Json run = result("run");
  const Json& split = run.at("split");
  const Json& refit = run.at("refit");
  const auto rows = [&](const char* part) { return split.at(part).get<int>(); };
  ASSERT_GT(rows("validation"), 0);
  EXPECT_EQ(refit.at("rows"), rows("train") + rows("validation"));
  EXPECT_EQ(refit.at("validation_is_held_out"), false);
  const int steps_per_epoch = (rows("train") + 31) / 32;
  EXPECT_EQ(refit.at("epochs").get<double>() * steps_per_epoch, run.at("best_step").get<double>());
  const double examples = refit.at("rows").get<double>() * refit.at("epochs").get<double>();
  EXPECT_EQ(refit.at("examples").get<double>(), examples);
  EXPECT_GT(run.at("evaluations").size(), 0U) << "of the first training";
  EXPECT_EQ(run.at("served").at("same_labels"), run.at("test").at("n_scored"));
  const Json manifest = read_json(path("run/package/manifest.json")).value();
  EXPECT_EQ(manifest.at("data").at("fitted_on"), "train+validation");
  EXPECT_EQ(manifest.at("data").at("rows"), refit.at("rows"));

  write_file_atomic(csv_, small_csv(24)).value();
  ASSERT_EQ(tune("few", {"--method", "features", "--refit"}).code, 0);
  EXPECT_FALSE(result("few").contains("refit")) << "no row was held out";

  const Outcome distilled = tune("distilled", {"--method", "distill", "--teacher", path("run/package"), "--refit"});
  EXPECT_EQ(distilled.code, 2);
  EXPECT_TRUE(contains(distilled.err, "refit is for one label a text, not for method distill")) << distilled.err;
}

TEST_F(Distill, SoftPromptsBeginAsATextOrAtRandomAndLoseTheirNetwork) {
  const std::pair<const char*, std::vector<std::string>> cases[] = {
      {"text", {"--method", "prompt-tuning", "--init-text", "Classify the message:", "--virtual-tokens", "7"}},
      {"network", {"--method", "prompt-tuning", "--prompt-init", "random", "--reparameterise"}},
      {"prefix", {"--method", "prefix-tuning", "--prompt-init", "vocabulary", "--reparameterise"}}};
  for (auto [name, more] : cases) {
    more.insert(more.end(), {"--max-steps", "2"});
    const Outcome r = tune(name, more);
    ASSERT_EQ(r.code, 0) << name << r.err;
    const Json made = result(name);
    EXPECT_EQ(made.at("served").at("same_labels"), made.at("test").at("n_scored")) << name;
    const Json& settings = made.at("settings").at("soft_prompt");
    const bool text = std::string(name) == "text";
    EXPECT_EQ(settings.at("reparameterise").get<bool>(), !text);
    EXPECT_EQ(settings.at("start").empty(), !text) << settings.dump();
  }
}

TEST_F(Distill, AStudentLearnsTheTextsThatATeacherWrites) {
  std::string chat;
  for (const char* country : {"France", "Italy", "Spain", "Japan", "China", "Egypt", "Peru", "Norway", "Greece",
                              "Poland", "Chile", "Kenya"}) {
    const Json messages{{{"role", "user"}, {"content", fmt::format("What is the capital of {}?", country)}},
                        {{"role", "assistant"}, {"content", "I do not know."}}};
    chat += dump_json({{"messages", messages}}) + "\n";
  }
  write_file_atomic(path("chat.jsonl"), chat).value();
  const std::vector<std::string> command{"tune",
                                         path("chat.jsonl"),
                                         "--method",
                                         "distill",
                                         "--teacher",
                                         "smollm2-135m-instruct",
                                         "--teacher-tokens",
                                         "40",
                                         "--max-steps",
                                         "2",
                                         "--set",
                                         "warmup_ratio=0",  // or the first step is none
                                         "--answers",
                                         "1",
                                         "--quiet",
                                         "--out",
                                         path("run")};
  const Outcome r = run(command);
  ASSERT_EQ(r.code, 0) << r.err;
  const Json first = result("run");
  const auto answers = read_jsonl(path("run/teacher_answers.jsonl")).value();
  EXPECT_EQ(first.at("teacher").at("asked"), answers.size());
  EXPECT_EQ(first.at("data").at("train").get<int>() + first.at("data").at("validation").get<int>() +
                first.at("teacher").at("empty").get<int>() + first.at("teacher").at("without_end").get<int>(),
            static_cast<int>(answers.size()));
  EXPECT_EQ(first.at("teacher").at("equal_to_data"), 0);
  // A run that was killed while the teacher answered, in the middle of a line, asks only for what is missing.
  const std::string whole = read_file(path("run/teacher_answers.jsonl")).value();
  const std::size_t second_line = whole.find('\n') + 1;
  write_file_atomic(path("run/teacher_answers.jsonl"), whole.substr(0, second_line + 9)).value();
  fs::remove(path("run/result.json"));
  const Outcome resumed = run({"tune", "--resume", path("run"), "--quiet"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  // The same answers; they stand in the order in which they came to their ends.
  const auto sorted = [](std::vector<Json> lines) {
    std::sort(lines.begin(), lines.end(),
              [](const Json& a, const Json& b) { return a.at("example") < b.at("example"); });
    return lines;
  };
  EXPECT_EQ(sorted(read_jsonl(path("run/teacher_answers.jsonl")).value()), sorted(answers));
  EXPECT_EQ(result("run").at("losses"), first.at("losses"));
  const Outcome encoder = run({"tune", path("chat.jsonl"), "--method", "distill", "--teacher", "all-minilm-l6-v2",
                               "--quiet", "--out", path("none")});
  EXPECT_EQ(encoder.code, 2);
  EXPECT_TRUE(contains(encoder.err, "does not write")) << encoder.err;
}

}  // namespace
}  // namespace tailor::test
