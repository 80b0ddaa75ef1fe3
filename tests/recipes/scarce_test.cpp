/// A full disk and too little memory, seen from outside: the right exit code, one sentence, nothing half-written.

#include <fmt/format.h>
#include <unistd.h>

#include "core/json.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

class Scarce : public ::testing::Test {
 protected:
  void SetUp() override {
    csv_ = (dir_.path() / "data.csv").string();
    write_file_atomic(csv_, small_csv(40)).value();
  }
  TemporaryDirectory dir_;
  std::string csv_;
};

TEST_F(Scarce, ACandidateWithoutMemoryIsMarkedAndTheRunGoesOn) {
  if (!fs::exists(program().parent_path() / "tailor-tune")) GTEST_SKIP() << "this build has no tailor-tune";
  const auto out = dir_.path() / "run";
  const Outcome r = run({"fit", csv_, "--text", "message", "--label", "intent", "--method", "tfidf,full", "--budget",
                         "3m", "--memory-cap", "250MB", "--out", out.string(), "--quiet"});
  EXPECT_EQ(r.code, 3) << r.err;
  const Json result = read_json(out / "result.json").value();
  bool failed = false;
  for (const Json& t : result.at("trials")) {
    if (t.at("method") == "tfidf") {
      EXPECT_EQ(t.at("status"), "ok");
    }
    if (t.at("method") != "full") continue;
    failed = t.at("status") == "failed";
    EXPECT_TRUE(contains(t.at("reason").get<std::string>(), "memory")) << t.at("reason");
  }
  EXPECT_TRUE(failed);
  EXPECT_EQ(result.at("recommended").at("method"), "tfidf");
}

/// Runs `tailor fit` with its run directory on a file system of `size`.
class FullDisk : public Scarce {
 protected:
  Outcome fit_on(const std::string& size, const std::string& methods) {
    const auto disk = dir_.path() / "disk";
    make_directories(disk).value();
    const std::string script = fmt::format(
        "mount -t tmpfs -o size={} tmpfs '{}' && '{}' fit '{}' --text message --label intent --method {} "
        "--budget 3m --out '{}/run' --quiet; code=$?; ls -R '{}' >&2; exit $code",
        size, disk.string(), program().string(), csv_, methods, disk.string(), disk.string());
    const auto errors = dir_.path() / "err";
    Outcome result;
    const CancelToken never;
    const auto process = run_process(
                             {.command = {"/usr/bin/unshare", "--mount", "sh", "-c", script}, .stderr_file = errors},
                             [&](std::string_view line) { result.out += std::string(line) + "\n"; }, never)
                             .value();
    result.code = process.signal != 0 ? -process.signal : process.exit_code;
    result.err = read_file(errors).value();
    return result;
  }
};

TEST_F(FullDisk, IsOneSentenceAndExitCodeFour) {
  if (geteuid() != 0) GTEST_SKIP() << "a small file system can be mounted by root alone";
  for (const char* size : {"4k", "64k", "256k"}) {
    const Outcome r = fit_on(size, "majority,tfidf,features");
    EXPECT_EQ(r.code, 4) << size << ": " << r.err;
    EXPECT_TRUE(contains(r.err, "No space left on device") || contains(r.err, "disk")) << size << ": " << r.err;
    EXPECT_FALSE(contains(r.err, "result.json\n")) << size << ": " << r.err;
    EXPECT_FALSE(contains(r.err, "terminate called")) << r.err;
  }
}

}  // namespace
}  // namespace tailor::test
