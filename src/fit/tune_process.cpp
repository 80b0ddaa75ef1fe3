#include "fit/tune_process.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <optional>

#include "core/error_event.h"
#include "core/files.h"
#include "core/process.h"
#include "core/system.h"

namespace tailor {

std::filesystem::path find_tune_program() {
  std::filesystem::path program = program_directory() / "tailor-tune";
  if (const char* named = std::getenv("TAILOR_TUNE"); named != nullptr) program = named;
  return ::access(program.c_str(), X_OK) == 0 ? program : std::filesystem::path();
}

Result<TuneRun> run_tune(Json job, const std::filesystem::path& directory, int threads, std::string_view stage,
                         const ProgressFn& progress, const CancelToken& cancel,
                         const std::function<void(const Json&)>& on_event) {
  const auto program = find_tune_program();
  if (program.empty())
    return Error{ErrorCode::kUnavailable, "training needs tailor-tune, which this build does not have",
                 "make setup && make build"};
  TAILOR_CHECK(make_directories(directory));
  job["out"] = std::filesystem::absolute(directory).string();
  job["threads"] = threads;
  job["resume"] = true;
  const auto job_file = directory / "job.json";
  TAILOR_CHECK(write_json_atomic(job_file, job));
  std::optional<Error> reported;
  double total = 0, done = 0;
  const auto on_line = [&](std::string_view line) {
    const auto event = parse_json(line, "event");
    if (!event || !event->is_object()) return;
    const std::string kind = event->value("event", "");
    if (on_event) on_event(*event);
    if (kind == "error") reported = error_from_event(*event);
    if (kind == "start") total = event->value("total_steps", 0.0);
    if (!progress) return;
    if (kind == "preparing") progress({"computing features", event->value("rows", 0.0), event->value("of", 0.0)});
    if (kind == "step") {
      done = event->value("step", done);
      progress({std::string(stage), done, total, event->value("loss", -1.0)});
    }
  };
  TAILOR_TRY(const ProcessResult process, run_process({.command = {program.string(), job_file.string()},
                                                       .environment = {{"OMP_NUM_THREADS", std::to_string(threads)}},
                                                       .stderr_file = directory / "log.txt"},
                                                      on_line, cancel));
  if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "interrupted", ""};
  if (process.exit_code != 0) {
    if (reported) return *reported;
    if (process.signal == SIGKILL)
      return Error{ErrorCode::kOutOfMemory,
                   fmt::format("training was killed by the system, most likely for lack of memory (it had {} MB)",
                               process.peak_memory_bytes / 1'000'000),
                   "halve micro_batch_tokens (4096 where none is set), cut long texts, take a method that keeps less "
                   "(lora, head; of a decoder qlora), or close other programs"};
    return Error{ErrorCode::kInternal,
                 process.signal != 0 ? fmt::format("training ended by signal {}", process.signal)
                                     : fmt::format("training ended with code {}", process.exit_code),
                 "see " + (directory / "log.txt").string()};
  }
  TAILOR_TRY(Json result, read_json(directory / "result.json"));
  return TuneRun{std::move(result), directory};
}

}  // namespace tailor
