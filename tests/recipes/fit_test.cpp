/// `tailor fit` as a user runs it, on small data: run directory, package, predict, resume, replay, and no connection.

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>

#include "core/json.h"
#include "data/csv.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

class Fit : public ::testing::Test {
 protected:
  void SetUp() override {
    csv_ = (dir_.path() / "data.csv").string();
    write_file_atomic(csv_, small_csv(40)).value();
  }
  Outcome fit(const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> arguments{"fit",     csv_,     "--text", "message",
                                       "--label", "intent", "--out",  (dir_.path() / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Json result(const std::string& out) { return read_json(dir_.path() / out / "result.json").value(); }
  void expect_predict_repeats(const std::string& out);
  TemporaryDirectory dir_;
  std::string csv_;
};

const Json& trial(const Json& result, const std::string& method) {
  for (const Json& t : result.at("trials")) {
    if (t.at("method") == method) return t;
  }
  throw std::runtime_error("no trial " + method);
}

/// The test part as a file, through `tailor predict`: the winner's figures, row by row.
void Fit::expect_predict_repeats(const std::string& out) {
  const fs::path run_dir = dir_.path() / out;
  const Json json = result(out);
  const CsvTable table = CsvTable::read(csv_).value();
  std::string test_csv = "message,intent\n";
  const std::vector<Json> split = read_jsonl(run_dir / "split.jsonl").value();
  for (const Json& row : split) {
    if (row.at("part") != "test") continue;
    const auto i = row.at("row").get<std::size_t>();
    append_csv_row(test_csv, std::vector<std::string_view>{table.cell(i, 0), table.cell(i, 1)});
  }
  write_file_atomic(dir_.path() / "test.csv", test_csv).value();
  const auto scored = dir_.path() / "scored.csv";
  const Outcome p = run({"predict", (run_dir / "package").string(), "--input", (dir_.path() / "test.csv").string(),
                         "--label", "intent", "--output", scored.string()});
  ASSERT_EQ(p.code, 0) << p.err;
  const CsvTable answers = CsvTable::read(scored).value();
  const Json& winner = trial(json, json.at("recommended").at("method"));
  ASSERT_EQ(answers.rows(), winner.at("n_scored").get<std::size_t>());
  const std::size_t label = answers.column("label").value(), expected = answers.column("expected").value();
  std::size_t correct = 0;
  for (std::size_t i = 0; i < answers.rows(); ++i)
    correct += answers.cell(i, label) == answers.cell(i, expected) ? 1 : 0;
  EXPECT_DOUBLE_EQ(static_cast<double>(correct) / static_cast<double>(answers.rows()),
                   winner.at("metrics").at("accuracy").at("value").get<double>());
  const auto recorded =
      read_jsonl(run_dir / "trials" / winner.at("id").get<std::string>() / "refit_test.jsonl").value();
  ASSERT_EQ(recorded.size(), answers.rows());
  for (std::size_t i = 0; i < recorded.size(); ++i)
    EXPECT_EQ(recorded[i].at("predicted"), std::string(answers.cell(i, label)));
}

TEST_F(Fit, WritesAWholeRunDirectoryAndPredictGivesTheSameAnswers) {
  const Outcome r = fit("run", {"--budget", "2m", "--method", "majority,tfidf,features"});
  ASSERT_EQ(r.code, 0) << r.err << r.out;
  const fs::path run_dir = dir_.path() / "run";
  for (const char* file : {"result.json", "report.html", "report.md", "trials.jsonl", "split.jsonl", "run.json",
                           "budget.jsonl", "package/manifest.json"}) {
    EXPECT_TRUE(fs::exists(run_dir / file)) << file;
  }
  const Json json = result("run");
  ASSERT_EQ(json.at("trials").size(), 3U);
  for (const Json& t : json.at("trials")) {
    EXPECT_EQ(t.at("status"), "ok") << t.at("reason");
    for (const char* key : {"accuracy", "macro_precision", "macro_recall", "macro_f1"}) {
      const Json& m = t.at("metrics").at(key);
      EXPECT_LE(m.at("low").get<double>(), m.at("value").get<double>());
      EXPECT_GE(m.at("high").get<double>(), m.at("value").get<double>());
    }
    EXPECT_GT(t.at("peak_memory_bytes").get<double>(), 1e6);
    EXPECT_GT(t.at("latency_ms").at("p95").get<double>(), 0);
  }
  // The floor knows one label of four; the others must beat it.
  EXPECT_LT(trial(json, "majority").at("metrics").at("accuracy").at("value").get<double>(), 0.4);
  EXPECT_NE(json.at("recommended").at("method"), "majority");
  EXPECT_GT(json.at("recommended").at("reason").get<std::string>().size(), 20U);

  expect_predict_repeats("run");
  // One text, as JSON; probabilities sum to one.
  const Outcome one = run({"predict", (run_dir / "package").string(), "I forgot my password", "--json"});
  ASSERT_EQ(one.code, 0) << one.err;
  const Json answer = parse_json(one.out, "answer").value();
  double sum = 0;
  for (const Json& probability : answer.at("probabilities")) sum += probability.get<double>();
  EXPECT_NEAR(sum, 1, 1e-4);
  // Below the wished confidence the answer stays open.
  EXPECT_TRUE(
      contains(run({"predict", (run_dir / "package").string(), "hello", "--min-confidence", "1"}).out, "no answer"));
}

TEST_F(Fit, ADecoderIsTunedAndItsPackageAnswersAsRecorded) {
  if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  write_file_atomic(csv_, small_csv(20)).value();  // few enough for k-fold: one more training, on all rows
  const Outcome r = fit("run", {"--method", "lora-decoder", "--budget", "20m", "--quiet"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json json = result("run");
  const Json& tuned = trial(json, "lora-decoder");
  ASSERT_EQ(tuned.at("status"), "ok") << tuned.at("reason");
  EXPECT_EQ(tuned.at("search").size(), 4U);  // three rates, then the final run
  EXPECT_EQ(tuned.at("fitted_on"), "train+validation");
  const fs::path package = dir_.path() / "run" / "package";
  for (const char* file : {"tuned.gguf", "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
                           "adapter/adapter.gguf", "manifest.json"}) {
    EXPECT_TRUE(fs::exists(package / file)) << file;
  }
  // The trial keeps what was scored; what was trained on the way to it, and the refit, are not left behind.
  const fs::path kept = dir_.path() / "run" / "trials" / tuned.at("id").get<std::string>();
  for (const auto& entry : fs::directory_iterator(kept)) {
    EXPECT_TRUE(!entry.is_directory() || entry.path().filename() == "package") << entry.path();
  }
  expect_predict_repeats("run");
}

TEST_F(Fit, ADamagedPackageIsRefused) {
  ASSERT_EQ(fit("run", {"--budget", "1m", "--method", "tfidf", "--quiet"}).code, 0);
  const auto head = dir_.path() / "run" / "package" / "head.safetensors";
  std::string bytes = read_file(head).value();
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file_atomic(head, bytes).value();
  const Outcome r = run({"predict", (dir_.path() / "run" / "package").string(), "hello"});
  EXPECT_EQ(r.code, 2);
  EXPECT_TRUE(contains(r.err, "head.safetensors") && contains(r.err, "changed")) << r.err;
}

TEST_F(Fit, TestLabelsDoNotMoveTheChoice) {
  // The same training rows with two test files, right and shuffled labels: every decision must be the same.
  std::string good = "message,intent\n", wrong = good;
  const CsvTable table = CsvTable::parse(small_csv(12), "x").value();
  for (std::size_t i = 0; i < table.rows(); ++i) {
    const std::string text = std::string(table.cell(i, 0)) + " again";
    append_csv_row(good, std::vector<std::string_view>{text, table.cell(i, 1)});
    append_csv_row(wrong, std::vector<std::string_view>{text, table.cell((i + 1) % table.rows(), 1)});
  }
  write_file_atomic(dir_.path() / "good.csv", good).value();
  write_file_atomic(dir_.path() / "wrong.csv", wrong).value();
  ASSERT_EQ(fit("a", {"--budget", "2m", "--method", "majority,tfidf,features", "--test",
                      (dir_.path() / "good.csv").string(), "--quiet"})
                .code,
            0);
  ASSERT_EQ(fit("b", {"--budget", "2m", "--method", "majority,tfidf,features", "--test",
                      (dir_.path() / "wrong.csv").string(), "--quiet"})
                .code,
            0);
  const Json a = result("a"), b = result("b");
  EXPECT_EQ(a.at("recommended").at("method"), b.at("recommended").at("method"));
  for (std::size_t i = 0; i < a.at("trials").size(); ++i) {
    EXPECT_EQ(a.at("trials")[i].at("settings"), b.at("trials")[i].at("settings"));
    EXPECT_EQ(a.at("trials")[i].at("validation_score"), b.at("trials")[i].at("validation_score"));
  }
  EXPECT_NE(trial(a, "tfidf").at("metrics"), trial(b, "tfidf").at("metrics"));
}

TEST_F(Fit, AnInterruptedRunGoesOn) {
  // Killed as soon as the first candidate's line is written; begun beside its data, gone on with from elsewhere.
  const std::string name = fs::path(csv_).filename();
  const auto out = (dir_.path() / "run").string();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setpgid(0, 0);
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, STDOUT_FILENO);
    if (::chdir(fs::path(csv_).parent_path().c_str()) != 0) ::_exit(126);
    ::execl(program().c_str(), "tailor", "fit", name.c_str(), "--text", "message", "--label", "intent", "--budget",
            "2m", "--method", "majority,tfidf,features", "--out", out.c_str(), "--quiet", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  const auto trials = fs::path(out) / "trials.jsonl";
  int status = 0;
  bool ended = false;
  while (!(fs::exists(trials) && fs::file_size(trials) > 0)) {
    if (::waitpid(pid, &status, WNOHANG) == pid) {
      ended = true;
      break;
    }
    ::usleep(1000);
  }
  ASSERT_FALSE(ended) << "the run ended before it could be killed";
  ::kill(-pid, SIGKILL);
  ::waitpid(pid, &status, 0);
  EXPECT_FALSE(fs::exists(fs::path(out) / "result.json"));
  const std::string first = read_file(trials).value().substr(0, read_file(trials).value().find('\n'));
  const Outcome r = run({"fit", "--resume", out, "--quiet"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json json = result("run");
  EXPECT_EQ(json.at("trials").size(), 3U);
  const Json kept = parse_json(first, "line").value();
  EXPECT_EQ(trial(json, kept.at("method")).at("train_seconds"), kept.at("train_seconds"))
      << "a finished candidate is not run again";
  // A finished run is not run again.
  EXPECT_EQ(run({"fit", csv_, "--text", "message", "--label", "intent", "--out", out}).code, 2);
}

TEST_F(Fit, ReplayRepeatsTheNumbersWithoutTheClock) {
  ASSERT_EQ(fit("run", {"--budget", "2m", "--method", "majority,tfidf,features", "--threads", "1", "--quiet"}).code, 0);
  const Outcome r =
      run({"fit", "--replay", (dir_.path() / "run").string(), "--out", (dir_.path() / "again").string(), "--quiet"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json a = result("run"), b = result("again");
  ASSERT_EQ(a.at("trials").size(), b.at("trials").size());
  for (std::size_t i = 0; i < a.at("trials").size(); ++i) {
    for (const char* key : {"settings", "validation_score", "metrics", "vs_best", "n_scored"})
      EXPECT_EQ(a.at("trials")[i].at(key), b.at("trials")[i].at(key)) << key;
  }
  const Outcome c = run({"compare", (dir_.path() / "run").string(), (dir_.path() / "again").string()});
  EXPECT_EQ(c.code, 0) << c.err;
  EXPECT_TRUE(contains(c.out, "tie")) << c.out;
}

TEST_F(Fit, TheRefitShowsTheRandomDemonstrationsThatWereChosen) {
  const Outcome r = fit("shots", {"--method", "few-shot", "--budget", "20m", "--quiet"});
  ASSERT_EQ(r.code, 0) << r.err;
  const Json run = result("shots");
  ASSERT_EQ(trial(run, "few-shot").at("fitted_on"), "train+validation");
  const auto trials = dir_.path() / "shots" / "trials";
  const auto directory = fs::directory_iterator(trials)->path();
  EXPECT_EQ(read_file(directory / "package" / "demonstrations.jsonl").value(),
            read_file(dir_.path() / "shots" / "package" / "demonstrations.jsonl").value());
}

TEST_F(Fit, DryRunAdvisesAndWritesNothing) {
  const Outcome r = fit("run", {"--dry-run"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.out, "Advice") && contains(r.out, "features")) << r.out;
  EXPECT_FALSE(fs::exists(dir_.path() / "run"));
}

TEST_F(Fit, NoTextsLeavesTheTextsOut) {
  ASSERT_EQ(fit("run", {"--budget", "1m", "--method", "majority,tfidf", "--no-texts", "--quiet"}).code, 0);
  const std::string html = read_file(dir_.path() / "run" / "report.html").value();
  EXPECT_FALSE(contains(html, "please tell me about"));
}

TEST_F(Fit, NeighboursKeepTheirRowsButForNoTexts) {
  ASSERT_EQ(fit("run", {"--budget", "1m", "--method", "neighbours", "--quiet"}).code, 0);
  const std::vector<Json> rows = read_jsonl(dir_.path() / "run" / "package" / "rows.jsonl").value();
  ASSERT_GT(rows.size(), 40u);
  EXPECT_TRUE(rows[0].at("text").is_string());
  // The row nearest to a row is the row itself.
  const std::string text = rows[7].at("text");
  const Outcome r = run({"predict", (dir_.path() / "run" / "package").string(), text, "--json"});
  EXPECT_TRUE(contains(r.out, rows[7].at("label").get<std::string>())) << r.out;
  ASSERT_EQ(fit("without", {"--budget", "1m", "--method", "neighbours", "--no-texts", "--quiet"}).code, 0);
  EXPECT_TRUE(fs::exists(dir_.path() / "without" / "package" / "neighbours.safetensors"));
  EXPECT_FALSE(fs::exists(dir_.path() / "without" / "package" / "rows.jsonl"));
}

TEST_F(Fit, JsonEventsAreOneObjectALine) {
  const Outcome r = fit("run", {"--budget", "1m", "--method", "majority", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  std::size_t done = 0, begin = 0;
  for (std::size_t end; (end = r.out.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const auto event = parse_json(std::string_view(r.out).substr(begin, end - begin), "event");
    ASSERT_TRUE(event) << r.out.substr(begin, end - begin);
    done += event->at("event") == "done" ? 1 : 0;
  }
  EXPECT_EQ(done, 1U);
}

/// Any attempt to open an internet socket ends the process at once.
void forbid_internet() {
  const auto load = [](std::size_t offset) {
    return sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<__u32>(offset)};
  };
  sock_filter filter[] = {
      load(offsetof(seccomp_data, nr)),
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, SYS_socket},
      load(offsetof(seccomp_data, args[0])),
      {BPF_JMP | BPF_JEQ | BPF_K, 2, 0, AF_INET},
      {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AF_INET6},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS},
  };
  sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    ::_exit(99);
}

int run_without_internet(const std::vector<std::string>& arguments) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    forbid_internet();
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, STDOUT_FILENO);
    std::vector<char*> argv;
    const std::string name = program().string();
    argv.push_back(const_cast<char*>(name.c_str()));
    for (const auto& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    ::execv(name.c_str(), argv.data());
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST_F(Fit, OpensNoConnection) {
  // The fence itself works: opening a socket under it is deadly.
  const pid_t probe = ::fork();
  if (probe == 0) {
    forbid_internet();
    std::ignore = ::socket(AF_INET, SOCK_STREAM, 0);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(probe, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
  const auto out = (dir_.path() / "run").string();
  EXPECT_EQ(run_without_internet({"fit", csv_, "--text", "message", "--label", "intent", "--budget", "2m", "--method",
                                  "majority,tfidf,features,neighbours,head", "--out", out, "--quiet"}),
            0);
  EXPECT_EQ(run_without_internet({"predict", out + "/package", "hello"}), 0);
  const std::string html = read_file(fs::path(out) / "report.html").value();
  for (const char* link : {"src=\"http", "href=\"http", "url(http", "@import"})
    EXPECT_FALSE(contains(html, link)) << link;
}

}  // namespace
}  // namespace tailor::test
