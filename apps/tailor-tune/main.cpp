// tailor-tune JOB.json: one training job. Events as JSON lines on standard output; docs/TUNE_JOB.md.
// tailor-tune --answer BASE.gguf BOTTLENECKS.safetensors: answers for `tailor` what llama.cpp cannot;
// tune/answer_worker.h.

#include <c10/util/Exception.h>
#include <malloc.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

#include "core/error_event.h"
#include "core/json.h"
#include "core/wait_policy.h"
#include "tune/answer_worker.h"
#include "tune/job.h"
#include "tune/run_job.h"

namespace {

tailor::CancelToken g_cancel;  // a signal handler can reach nothing else

extern "C" void on_signal(int) {
  g_cancel.cancel();
}

/// One write() a line: a reader never sees half of one, and nothing is lost by SIGKILL. A closed pipe means that
/// whoever started us is gone: the run stops as after SIGTERM.
void write_event(const tailor::Json& event) {
  const std::string line = tailor::dump_json(event) + "\n";
  std::size_t written = 0;
  while (written < line.size()) {
    const ssize_t n = ::write(STDOUT_FILENO, line.data() + written, line.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      g_cancel.cancel();
      return;
    }
    written += static_cast<std::size_t>(n);
  }
}

int fail(const tailor::Error& error) {
  write_event(tailor::error_event(error));
  std::fprintf(stderr, "tailor-tune: %s\n", tailor::to_string(error).c_str());
  return tailor::exit_code_for(error.code);
}

int out_of_memory() {
  return fail(
      {tailor::ErrorCode::kOutOfMemory, "out of memory: the model and what is kept for training it do not fit",
       "take method lora, which keeps gradients and moments of few numbers, of a decoder qlora, which leaves the "
       "base in its blocks, or a smaller model"});
}

int answer_lines(const char* base, const char* bottlenecks) {
  const auto worker = tailor::tune::AnswerWorker::open(base, bottlenecks);
  if (!worker) return fail(worker.error());
  write_event({{"ready", true}});
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line) && !g_cancel.cancelled();) {
    const auto request = tailor::parse_json(line, "the request");
    write_event(request ? (*worker)->answer(*request) : tailor::error_event(request.error()));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const auto start = std::chrono::steady_clock::now();
  const bool answers = argc == 4 && std::strcmp(argv[1], "--answer") == 0;
  if (!answers && (argc != 2 || std::strncmp(argv[1], "-", 1) == 0)) {
    const bool version = argc == 2 && std::strcmp(argv[1], "--version") == 0;
    const bool help = argc == 2 && std::strcmp(argv[1], "--help") == 0;
    if (version)
      std::printf("tailor-tune %s\n", TAILOR_VERSION);
    else
      std::fprintf(help ? stdout : stderr,
                   "usage: tailor-tune JOB.json\n       tailor-tune --answer BASE.gguf BOTTLENECKS.safetensors\n\nRuns "
                   "one training job (docs/TUNE_JOB.md) and writes its events as JSON "
                   "lines; or answers for tailor where a model has bottleneck adapters.\nExit codes: 0 done, 2 input, "
                   "4 environment (disk, memory), 130 interrupted (can be resumed).\n");
    return version || help ? 0 : 2;
  }
  tailor::restart_with_short_waits(argv);
  // Activations come and go every step: without this the allocator hands their pages back and faults them in again.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  try {
    if (answers) return answer_lines(argv[2], argv[3]);
    const auto job = tailor::tune::read_job(argv[1]);
    if (!job) return fail(job.error());
    const auto result = tailor::tune::run_job(*job, write_event, g_cancel, start);
    if (!result) return fail(result.error());
    tailor::Json done = {{"event", result->at("stopped") == "paused" ? "paused" : "done"}};
    for (const char* key : {"stopped", "steps", "best", "wall_seconds", "cpu_seconds", "peak_memory_bytes", "files"})
      done[key] = result->at(key);
    write_event(done);
    return 0;
  } catch (const tailor::Exception& error) {
    return fail(error.error());
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const c10::Error& error) {
    // The CPU allocator's failure is a plain c10::Error whose text says so.
    if (std::strstr(error.what_without_backtrace(), "DefaultCPUAllocator") != nullptr) return out_of_memory();
    return fail({tailor::ErrorCode::kInternal, std::string("internal error: ") + error.what_without_backtrace(),
                 "please report it"});
  } catch (const std::exception& error) {
    return fail({tailor::ErrorCode::kInternal, std::string("internal error: ") + error.what(), "please report it"});
  }
}
