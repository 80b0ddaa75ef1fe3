#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>

#include "apps/tailor/verbs.h"
#include "core/error_event.h"
#include "core/json.h"
#include "fit/trial_runner.h"

namespace tailor {
namespace {

void print_line(const Json& event) {
  fmt::print("{}\n", dump_json(event));
  std::fflush(stdout);
}

/// Messages of the libraries go to the trial's log file by way of standard error.
class StderrLogger final : public Logger {
 public:
  void log(LogLevel level, std::string_view message) override {
    if (level != LogLevel::kDebug) fmt::print(stderr, "{}\n", message);
  }
};

Result<int> run_trial(const std::string& job_file, CancelToken& cancel) {
  TAILOR_TRY(const Json json, read_json(job_file));
  TAILOR_TRY(const TrialJob job, trial_job_from_json(json));
  StderrLogger log;
  auto last = std::chrono::steady_clock::time_point();
  std::mutex mutex;
  const ProgressFn progress = [&](const Progress& p) {
    const std::lock_guard lock(mutex);
    const auto now = std::chrono::steady_clock::now();
    if (now - last < std::chrono::milliseconds(50)) return;
    last = now;
    print_line(progress_event(p));
  };
  TAILOR_CHECK(run_trial_phase(job, progress, cancel, log));
  return 0;
}

}  // namespace

void add_trial(CLI::App& app, Invocation& invocation) {
  auto* verb = app.add_subcommand("trial", "one phase of one candidate, in a process of its own");
  verb->group("");  // started by fit, not by people
  auto job = std::make_shared<std::string>();
  verb->add_option("job", *job, "job file")->required();
  verb->callback([&invocation, job] {
    invocation.run = [&invocation, job]() -> Result<int> {
      Result<int> code = 4;
      try {
        code = run_trial(*job, invocation.cancel);
      } catch (const Exception& error) {
        code = error.error();
      } catch (const std::bad_alloc&) {
        code = Error{ErrorCode::kOutOfMemory, "out of memory",
                     "leave this candidate out with --method, or raise --memory-cap"};
      } catch (const std::exception& error) {
        code = Error{ErrorCode::kInternal, std::string("internal error: ") + error.what(), "please report it"};
      }
      if (code) return code;
      print_line(error_event(code.error()));
      return exit_code_for(code.error().code);
    };
  });
}

}  // namespace tailor
