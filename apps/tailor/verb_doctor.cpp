#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "apps/tailor/verbs.h"
#include "core/json.h"
#include "core/process.h"
#include "core/system.h"
#include "fit/budget.h"
#include "fit/method_support.h"
#include "fit/paths.h"
#include "fit/tune_process.h"
#include "model/catalogue.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

struct Check {
  std::string name;
  bool good;
  std::string found;
  std::string mend;  // the command, where something is missing
};

std::string first_line_of(std::vector<std::string> command) {
  std::string line;
  const CancelToken never;
  const auto result = run_process(
      {.command = std::move(command), .prefer_as_oom_victim = false},
      [&](std::string_view text) {
        if (line.empty()) line = text;
      },
      never);
  return result && result->exit_code == 0 ? line : "";
}

bool installed(const char* package) {
  std::error_code ignored;
  if (!fs::exists("/usr/bin/dpkg-query", ignored)) return false;
  return first_line_of({"/usr/bin/dpkg-query", "-W", "-f=${Status}", package}).find("ok installed") !=
         std::string::npos;
}

std::vector<Check> checks() {
  std::vector<Check> out;
  const SystemInfo system = system_info();
  out.push_back({"processor", true, fmt::format("{} cores, {}", system.cores, system.cpu_model), ""});
  const bool avx2 = system.instruction_sets.find("AVX2") != std::string::npos;
  out.push_back({"instructions", avx2,
                 system.instruction_sets.empty() ? "none of AVX2, FMA, F16C" : system.instruction_sets,
                 avx2 ? "" : "everything works without AVX2, several times slower; build with -DTAILOR_NATIVE=ON"});
  const bool memory = system.available_bytes > std::uint64_t{2'000'000'000};
  out.push_back({"memory", memory,
                 fmt::format("{} in all, {} free", human_bytes(static_cast<double>(system.memory_bytes)),
                             human_bytes(static_cast<double>(system.available_bytes))),
                 memory ? "" : "close other programs: training the default models needs about 2 GB"});
  std::error_code error;
  const auto space = fs::space(fs::current_path(), error);
  const bool disk = !error && space.available > 3'000'000'000ULL;
  out.push_back({"disk", disk, error ? "unknown" : human_bytes(static_cast<double>(space.available)) + " free here",
                 disk ? "" : "free some space: a run writes up to 1 GB"});
  std::string gpu;
  if (fs::exists("/usr/bin/nvidia-smi", error))
    gpu = first_line_of({"/usr/bin/nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"});
  out.push_back(
      {"GPU", true,
       gpu.empty() ? "none found; not needed" : gpu + " (this build uses the processor; see docs/BUILD.md for CUDA)",
       ""});
  const fs::path tune = find_tune_program();
  std::string torch;
  if (!tune.empty()) torch = first_line_of({tune.string(), "--version"});
  out.push_back({"tailor-tune (libtorch)", !tune.empty() && !torch.empty(),
                 tune.empty()    ? "not built: libtorch was not found"
                 : torch.empty() ? "does not start: a library it needs is missing"
                                 : torch,
                 tune.empty() || torch.empty() ? "make setup && make build" : ""});
  const fs::path models = default_models_directory();
  for (const auto& builtin : built_in_models()) {
    const auto model = resolve_model(std::string(builtin.id), models);
    out.push_back({std::string("model ") + std::string(builtin.id), model.has_value(),
                   model ? fmt::format("{}, {}", model->file_type, human_bytes(static_cast<double>(model->bytes)))
                         : model.error().message,
                   model ? "" : "make setup"});
  }
  const fs::path cache = model_cache_directory();
  fs::create_directories(cache, error);
  const bool writable = ::access(cache.c_str(), W_OK) == 0;
  out.push_back(
      {"cache", writable, cache.string(), writable ? "" : "set TAILOR_CACHE to a directory you may write to"});
  // Later parts of Tailor use Boost 1.81, whose -dev package cannot stand beside 1.74's.
  if (installed("libboost1.74-dev")) {
    out.push_back({"boost", true,
                   "libboost1.74-dev is installed, which conflicts with libboost1.81-dev (serving will need it)",
                   "apt-get remove libboost1.74-dev, when you build the server"});
  }
  return out;
}

Result<int> doctor(bool as_json) {
  const auto all = checks();
  const bool good = std::all_of(all.begin(), all.end(), [](const Check& c) { return c.good; });
  if (as_json) {
    Json json{{"tailor", TAILOR_VERSION}, {"good", good}, {"checks", Json::array()}};
    for (const auto& c : all)
      json["checks"].push_back(Json{{"name", c.name}, {"good", c.good}, {"found", c.found}, {"mend", c.mend}});
    fmt::print("{}\n", dump_json(json, 2));
  } else {
    fmt::print("tailor {}, on {}\n\n", TAILOR_VERSION, system_info().os);
    for (const auto& c : all) {
      fmt::print("{} {:<32} {}\n", c.good ? "✓" : "✗", c.name, c.found);
      if (!c.mend.empty()) fmt::print("  {:<32} → {}\n", "", c.mend);
    }
    fmt::print("\n{}\n", good ? "Everything is there." : "Something is missing; the arrows say what mends it.");
  }
  return good ? 0 : 4;
}

}  // namespace

void add_doctor(CLI::App& app, Invocation& invocation) {
  auto* verb =
      app.add_subcommand("doctor", "what this machine has, and what is missing with the command that mends it");
  auto json = std::make_shared<bool>(false);
  verb->add_flag("--json", *json, "as JSON");
  verb->footer("Example:  tailor doctor");
  verb->callback([&invocation, json] { invocation.run = [json] { return doctor(*json); }; });
}

}  // namespace tailor
