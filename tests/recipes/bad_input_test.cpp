/// Every wrong input gets one clear sentence, the right exit code, and leaves nothing half-written.

#include <fmt/format.h>

#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

class BadInput : public ::testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& content) {
    const auto path = dir_.path() / name;
    write_file_atomic(path, content).value();
    return path.string();
  }
  /// `fit` on the file with the floors alone; the run must fail with `code` and say all of `parts`.
  void refuses(const std::string& csv, int code, const std::vector<std::string>& parts,
               std::vector<std::string> more = {}) {
    const auto out = dir_.path() / "run";
    std::vector<std::string> arguments{"fit",      csv,        "--text", "message",    "--label", "intent",
                                       "--method", "majority", "--out",  out.string(), "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome r = run(arguments);
    EXPECT_EQ(r.code, code) << r.err;
    for (const auto& part : parts) EXPECT_TRUE(contains(r.err, part)) << "expected \"" << part << "\" in: " << r.err;
    EXPECT_FALSE(contains(r.err, "exception")) << r.err;
    EXPECT_FALSE(fs::exists(out / "result.json"));
  }
  TemporaryDirectory dir_;
};

TEST_F(BadInput, MissingFile) {
  refuses((dir_.path() / "absent.csv").string(), 2, {"absent.csv"});
}
TEST_F(BadInput, Directory) {
  refuses(dir_.path().string(), 2, {"is a directory"});
}
TEST_F(BadInput, EmptyFile) {
  refuses(file("a.csv", ""), 2, {"a.csv"});
}
TEST_F(BadInput, HeaderOnly) {
  refuses(file("a.csv", "message,intent\n"), 2, {"a.csv"});
}
TEST_F(BadInput, MissingColumnNamesThoseThereAre) {
  refuses(file("a.csv", "mesage,intent\nhello,a\n"), 2, {"mesage", "intent"});
}
TEST_F(BadInput, RaggedRowNamesItsLine) {
  refuses(file("a.csv", "message,intent\nhello,a\nhello,b,c\n"), 2, {"a.csv:3"});
}
TEST_F(BadInput, OpenQuoteNamesWhereItOpened) {
  refuses(file("a.csv", "message,intent\nhello,a\n\"open,b\nmore,c\n"), 2, {"a.csv:3"});
}
TEST_F(BadInput, NotUtf8OffersToTranscode) {
  refuses(file("a.csv", "message,intent\nhello,a\ncaf\xe9,b\n"), 2, {"a.csv:3", "--encoding"});
}
TEST_F(BadInput, SingleClass) {
  refuses(file("a.csv", "message,intent\nhello there,a\ngood day,a\nwhat now,a\n"), 2, {"a.csv"});
}
TEST_F(BadInput, AllRowsDuplicates) {
  refuses(file("a.csv", "message,intent\nhello,a\nhello,b\nhello,a\nhello,b\n"), 2, {"a.csv"});
}
TEST_F(BadInput, EmptyTexts) {
  refuses(file("a.csv", "message,intent\n,a\n \t,b\n"), 2, {"a.csv"});
}
TEST_F(BadInput, VeryLongText) {
  refuses(file("a.csv", "message,intent\nhello,a\n" + std::string(10'000'000, 'x') + ",b\n"), 2,
          {"a.csv:3", "max-text-bytes"});
}

TEST_F(BadInput, TestFileWithUnknownLabelNamesIt) {
  const auto test = file("t.csv", "message,intent\nhello,no_such_label\n");
  refuses(file("a.csv", small_csv()), 2, {"no_such_label"}, {"--test", test});
}

TEST_F(BadInput, UnknownMetricMethodModelAndDuration) {
  const auto csv = file("a.csv", small_csv());
  refuses(csv, 2, {"--method", "no-such"}, {"--method", "no-such"});
  refuses(csv, 2, {"accuracy"}, {"--metric", "no-such"});
  refuses(csv, 2, {"no-such-label"}, {"--metric", "f1:no-such-label"});
  refuses(csv, 2, {"no-such-model"}, {"--model", "no-such-model"});
  refuses(csv, 2, {"15 apples"}, {"--budget", "15 apples"});
}

TEST_F(BadInput, BudgetTooSmallForAnyCandidate) {
  refuses(file("a.csv", small_csv()), 2, {"budget", "too small"}, {"--budget", "0.001s"});
}

TEST_F(BadInput, HostileModelFiles) {
  const auto csv = file("a.csv", small_csv());
  refuses(csv, 2, {"m.gguf"}, {"--model", file("m.gguf", "GGUF\x03")});
  refuses(csv, 2, {"n.gguf"}, {"--model", file("n.gguf", std::string("GGUF\x03\0\0\0", 8) + std::string(16, '\xff'))});
}

TEST_F(BadInput, OutDirectoryInUse) {
  const auto csv = file("a.csv", small_csv());
  const auto out = dir_.path() / "used";
  fs::create_directories(out);
  write_file_atomic(out / "something", "x").value();
  const Outcome r = run(
      {"fit", csv, "--text", "message", "--label", "intent", "--method", "majority", "--out", out.string(), "--quiet"});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(contains(r.err, "not empty")) << r.err;
  EXPECT_EQ(read_file(out / "something").value(), "x");
}

TEST(CommandLine, UnknownVerbAndFlagNameTheNearest) {
  Outcome r = run({"fitt", "x.csv"});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(contains(r.err, "tailor fit")) << r.err;
  r = run({"fit", "x.csv", "--budgett", "1m"});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(contains(r.err, "--budget")) << r.err;
  r = run({"fit"});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(contains(r.err, "CSV")) << r.err;
}

TEST(CommandLine, AnInstructionSetThatIsNotKnownIsRefused) {
  const Outcome misspelt = run({"doctor"}, {{"TAILOR_MAX_ISA", "axv2"}});
  EXPECT_EQ(misspelt.code, 2);
  EXPECT_TRUE(contains(misspelt.err, "\"axv2\"")) << misspelt.err;
  EXPECT_TRUE(contains(misspelt.err, "portable, avx2, avx512 or vnni")) << misspelt.err;
}

TEST(CommandLine, TopTakesTheServerByItself) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"top", "--once", "http://127.0.0.1:1"},
                                                    {"top", "--once", "--url", "http://127.0.0.1:1"}}) {
    const Outcome outcome = run(arguments);
    EXPECT_NE(outcome.code, 0);
    EXPECT_TRUE(contains(outcome.err, "127.0.0.1:1")) << outcome.err;
  }
}

TEST(CommandLine, EveryVerbHasHelpWithAnExample) {
  for (const char* verb : {"fit", "predict", "compare", "advise", "doctor", "models", "completion"}) {
    const Outcome r = run({verb, "--help"});
    EXPECT_EQ(r.code, 0) << verb;
    EXPECT_TRUE(contains(r.out, "xample")) << verb << r.out;
  }
  const Outcome r = run({"--help"});
  EXPECT_EQ(r.code, 0);
  EXPECT_FALSE(contains(r.out, "trial")) << "hidden verbs are not for people";
}

TEST(CommandLine, CompletionKnowsVerbsAndOptions) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Outcome r = run({"completion", shell});
    EXPECT_EQ(r.code, 0);
    EXPECT_TRUE(contains(r.out, "fit") && contains(r.out, "budget")) << shell;
  }
}

TEST(Predict, NamesWhatIsWrong) {
  const TemporaryDirectory dir;
  Outcome r = run({"predict", (dir.path() / "none").string(), "hello"});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(contains(r.err, "is not a package")) << r.err;
  write_file_atomic(dir.path() / "manifest.json", "{\"format\": \"other\"}").value();
  r = run({"predict", dir.path().string(), "hello"});
  EXPECT_EQ(r.code, 2);
  write_file_atomic(dir.path() / "manifest.json", "{not json").value();
  r = run({"predict", dir.path().string(), "hello"});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(contains(r.err, "manifest.json")) << r.err;
}

}  // namespace
}  // namespace tailor::test
