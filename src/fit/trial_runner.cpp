#include "fit/trial_runner.h"

#include <fmt/format.h>

#include <csignal>
#include <optional>

#include "core/error_event.h"
#include "core/files.h"
#include "fit/budget.h"

namespace tailor {
namespace {

Error ended_by_signal(const ProcessResult& process, const std::filesystem::path& log) {
  if (process.signal == SIGKILL) {
    return {ErrorCode::kOutOfMemory,
            fmt::format("its process was killed by the system, most likely for lack of memory (it had {})",
                        human_bytes(static_cast<double>(process.peak_memory_bytes))),
            "close other programs, or leave this candidate out with --method"};
  }
  return {ErrorCode::kInternal,
          fmt::format("its process ended by signal {} ({})", process.signal, strsignal(process.signal)),
          "see " + log.string()};
}

}  // namespace

Json progress_event(const Progress& p) {
  Json event{{"event", "progress"}, {"stage", p.stage}, {"done", p.done}, {"total", p.total}};
  if (p.loss >= 0) event["loss"] = p.loss;
  return event;
}

Result<PhaseResult> TrialRunner::run(const TrialJob& job, const ProgressFn& progress, const CancelToken& cancel,
                                     SteadyTime hard_deadline) const {
  const auto directory = run_.trial(job.id);
  TAILOR_CHECK(make_directories(directory));
  const auto job_file = directory / ("job-" + job.phase + ".json");
  TAILOR_CHECK(write_json_atomic(job_file, to_json(job)));
  const auto log = directory / "log.txt";
  std::optional<Error> reported;
  const auto on_line = [&](std::string_view line) {
    const auto event = parse_json(line, "event");
    if (!event || !event->is_object()) return;
    const std::string kind = event->value("event", "");
    if (kind == "progress" && progress) {
      progress({event->value("stage", ""), event->value("done", 0.0), event->value("total", 0.0),
                event->value("loss", -1.0)});
    } else if (kind == "error") {
      reported = error_from_event(*event);
    }
  };
  const std::string threads = std::to_string(job.threads);
  TAILOR_TRY(const ProcessResult process, run_process({.command = {program_.string(), "trial", job_file.string()},
                                                       .environment = {{"OMP_WAIT_POLICY", "passive"},
                                                                       {"OMP_NUM_THREADS", threads},
                                                                       {"OPENBLAS_NUM_THREADS", threads}},
                                                       .stderr_file = log,
                                                       .memory_limit_bytes = memory_cap_bytes_},
                                                      on_line, cancel, hard_deadline));
  PhaseResult result{Status{}, process};
  if (cancel.cancelled()) return Error{ErrorCode::kCancelled, "interrupted", ""};
  if (process.exit_code == 0) return result;
  if (std::chrono::steady_clock::now() >= hard_deadline) {
    result.status = Error{ErrorCode::kCancelled,
                          fmt::format("it took longer than its share of the budget ({} were planned, stopped after {})",
                                      human_seconds(job.seconds), human_seconds(process.wall_seconds)),
                          "give a larger --budget"};
  } else if (reported) {
    result.status = *reported;
  } else if (process.signal != 0) {
    result.status = ended_by_signal(process, log);
  } else {
    result.status = Error{ErrorCode::kInternal, fmt::format("its process ended with code {}", process.exit_code),
                          "see " + log.string()};
  }
  return result;
}

}  // namespace tailor
