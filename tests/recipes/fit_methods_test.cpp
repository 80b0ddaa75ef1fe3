/// `tailor fit` over the methods of tuning, on small data: each family is searched, chosen by validation rows, packaged
/// and served; the usual candidates come first; an interrupted search goes on by its plan.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "core/json.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

class FitMethods : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
    write_rows(24);
  }
  void write_rows(int rows_per_label) { write_file_atomic(csv_, small_csv(rows_per_label)).value(); }
  std::vector<std::string> words(const std::vector<std::string>& more) const {
    std::vector<std::string> all{"fit", csv_, "--text", "message", "--label", "intent", "--out", out_, "--quiet"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  Json result() const { return read_json(fs::path(out_) / "result.json").value(); }

  /// What holds of every trial that was searched.
  void expect_chosen_by_validation(const Json& trial) const {
    EXPECT_EQ(trial.at("status"), "ok") << trial.at("id") << " " << trial.at("reason");
    if (trial.at("status") != "ok") return;
    const Json& search = trial.at("search");
    ASSERT_GE(search.size(), 1U);
    double best = -1, rate = 0;
    for (std::size_t i = 0; i < std::max<std::size_t>(1, search.size() - 1); ++i) {  // the last: the final run
      if (search[i].at("score").get<double>() <= best) continue;
      best = search[i].at("score");
      rate = search[i].at("settings").at("learning_rate");
    }
    EXPECT_EQ(trial.at("settings").at("learning_rate").get<double>(), rate) << trial.at("id");
    EXPECT_GT(trial.at("settings").at("trained_parameters").get<std::int64_t>(), 0);
    EXPECT_GT(trial.at("n_validation").get<int>(), 0);
    EXPECT_GT(trial.at("n_scored").get<int>(), 0);
    for (const Json& note : trial.at("notes"))
      EXPECT_FALSE(contains(note.get<std::string>(), "otherwise than while fitting")) << trial.at("id") << ": " << note;
  }

  TemporaryDirectory dir_;
  const std::string csv_ = (dir_.path() / "data.csv").string(), out_ = (dir_.path() / "run").string();
};

TEST_F(FitMethods, OfAnEncoder) {
  const Outcome r = run(words(
      {"--method", "contrastive,dora,adapter-pfeiffer,bitfit", "--model", "all-minilm-l6-v2", "--budget", "10m"}));
  ASSERT_EQ(r.code, 0) << r.err;
  const Json json = result();
  ASSERT_EQ(json.at("trials").size(), 4U);
  for (const Json& trial : json.at("trials")) {
    EXPECT_EQ(trial.at("search").size(), 4U) << "three rates and the final run";
    expect_chosen_by_validation(trial);
    EXPECT_GT(trial.at("validation_score").get<double>(), 0.5) << trial.at("id");
    EXPECT_GT(trial.at("trained_bytes").get<std::int64_t>(), 0);
    // What was trained on the way is not left behind.
    for (const auto& entry : fs::directory_iterator(fs::path(out_) / "trials" / trial.at("id").get<std::string>()))
      EXPECT_TRUE(!entry.is_directory() || entry.path().filename() == "package") << entry.path();
  }
  const Outcome p = run({"predict", out_ + "/package", "I forgot my password", "--json"});
  EXPECT_EQ(p.code, 0) << p.err;
}

class FitMethodsOfADecoder : public FitMethods, public testing::WithParamInterface<const char*> {};

TEST_P(FitMethodsOfADecoder, AreSearchedAndServed) {
  write_rows(8);  // few enough for k-fold: the package is fitted on all rows
  const Outcome r = run(words({"--method", GetParam(), "--model", "smollm2-135m-instruct", "--budget", "100s"}));
  ASSERT_EQ(r.code, 0) << r.err;
  const Json json = result();
  ASSERT_EQ(json.at("trials").size(), 1U);
  const Json& trial = json.at("trials")[0];
  expect_chosen_by_validation(trial);
  EXPECT_EQ(trial.at("fitted_on"), "train+validation");
  const std::string method = trial.at("method");
  EXPECT_TRUE(method == "prompt-tuning" || method == "ia3-decoder") << "a decoder is the only model: " << method;
  EXPECT_EQ(run({"predict", out_ + "/package", "I forgot my password"}).code, 0);
}
INSTANTIATE_TEST_SUITE_P(Methods, FitMethodsOfADecoder, testing::Values("prompt-tuning", "ia3"));

TEST_F(FitMethods, TheUsualOnesComeFirstAndTheOthersSayWhyNot) {
  const Outcome dry = run({"fit", csv_, "--text", "message", "--label", "intent", "--dry-run"});
  ASSERT_EQ(dry.code, 0) << dry.err;
  const auto usual = dry.out.find("lora-decoder."),
             then = dry.out.find("and after these, with the time that they leave"),
             other = dry.out.find("prefix-tuning.");
  ASSERT_TRUE(usual < then && then < other && other != std::string::npos) << dry.out;

  const Outcome r = run(words({"--model", "all-minilm-l6-v2", "--budget", "12s"}));
  ASSERT_TRUE(r.code == 0 || r.code == 3) << r.err;
  const Json json = result();
  std::vector<std::string> methods;
  for (const Json& trial : json.at("trials")) {
    methods.push_back(trial.at("method"));
    if (trial.at("status") != "skipped") continue;
    const std::string reason = trial.at("reason");
    EXPECT_TRUE(contains(reason, "does not fit the budget") || contains(reason, "it learns from a teacher")) << reason;
    EXPECT_TRUE(trial.at("estimated_seconds") > 0 || trial.at("method") == "distill");
  }
  for (const char* method :
       {"majority", "features", "full", "lora", "contrastive", "upper-layers", "dora", "lora-plus", "rslora", "pissa",
        "adapter-houlsby", "adapter-pfeiffer", "adapter-parallel", "bitfit", "ia3", "layernorm", "distill"})
    EXPECT_NE(std::find(methods.begin(), methods.end(), method), methods.end()) << method;
  // Nobody beyond the usual ones had a share before the last of those.
  bool others = false;
  for (const Json& decision : json.at("budget_decisions")) {
    if (decision.at("kind") != "share") continue;
    const std::string id = decision.at("id");
    const bool usual_one = id.starts_with("majority") || id.starts_with("tfidf") || id.starts_with("features") ||
                           id.starts_with("neighbours") || id.starts_with("head") || id.starts_with("full") ||
                           id.starts_with("lora.");
    EXPECT_FALSE(others && usual_one) << id;
    others = others || !usual_one;
  }
  EXPECT_TRUE(contains(read_file(fs::path(out_) / "report.html").value(), "contrastive"));
}

TEST_F(FitMethods, AreListedAndFoundByName) {
  const Outcome list = run({"fit", "--method", "list"});
  EXPECT_EQ(list.code, 0);
  for (const char* part : {"prefix-tuning", "adapter-houlsby-decoder", "usual", "it learns from a teacher"})
    EXPECT_TRUE(contains(list.out, part)) << list.out;
  const Outcome wrong = run(words({"--methods", "bitfitt"}));
  EXPECT_EQ(wrong.code, 2);
  EXPECT_TRUE(contains(wrong.err, "did you mean bitfit?")) << wrong.err;
  const Outcome none = run(words({"--method", "prefix-tuning", "--model", "all-minilm-l6-v2"}));
  EXPECT_EQ(none.code, 2);
  EXPECT_TRUE(contains(none.err, "no candidate is left")) << none.err;
}

TEST_F(FitMethods, AnInterruptedSearchGoesOnByItsPlan) {
  const auto arguments = words({"--method", "dora", "--model", "all-minilm-l6-v2", "--budget", "10m"});
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setpgid(0, 0);
    const std::string name = program().string();
    std::vector<char*> argv{const_cast<char*>(name.c_str())};
    for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    ::execv(name.c_str(), argv.data());
    ::_exit(127);
  }
  const fs::path trial = fs::path(out_) / "trials" / "dora.all-minilm-l6-v2";
  int status = 0;
  bool ended = false;
  while (!fs::exists(trial / "search-1") && !ended) {
    ended = ::waitpid(pid, &status, WNOHANG) == pid;
    ::usleep(1000);
  }
  ASSERT_FALSE(ended) << "the run ended before it could be killed";
  ::kill(-pid, SIGKILL);
  ::waitpid(pid, &status, 0);
  const Json plan = read_json(trial / "plan.json").value();
  const Outcome r = run({"fit", "--resume", out_, "--quiet"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json json = result();
  ASSERT_EQ(json.at("trials").size(), 1U);
  expect_chosen_by_validation(json.at("trials")[0]);
  for (const char* key : {"rates", "search_epochs"}) EXPECT_EQ(json.at("trials")[0].at("plan").at(key), plan.at(key));
}

}  // namespace
}  // namespace tailor::test
