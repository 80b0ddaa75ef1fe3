#include "recipes/run_directory.h"

#include <fmt/format.h>

#include "core/files.h"
#include "core/system.h"

namespace tailor {
namespace fs = std::filesystem;

Status refuse_existing(const fs::path& out, std::string_view verb) {
  std::error_code ignored;
  if (!fs::exists(out, ignored)) return {};
  if (fs::exists(out / "run.json", ignored)) {
    return Error{ErrorCode::kInvalidArgument, out.string() + " already holds a run",
                 fmt::format("go on with it by `tailor {} --resume {}`, or name another --out", verb, out.string())};
  }
  if (fs::is_directory(out, ignored) && fs::is_empty(out, ignored)) return {};
  return Error{ErrorCode::kInvalidArgument, out.string() + " exists and is not empty",
               "name another directory with --out"};
}

Status write_run_json(const fs::path& file, std::string_view format, int version, const std::string& command_line,
                      Json options, const std::vector<std::string>& file_names,
                      const std::vector<std::string>& file_hashes) {
  const SystemInfo system = system_info();
  return write_json_atomic(file, Json{{"format", format},
                                      {"version", version},
                                      {"tailor_version", TAILOR_VERSION},
                                      {"command", command_line},
                                      {"directory", fs::current_path().string()},
                                      {"options", std::move(options)},
                                      {"file_names", file_names},
                                      {"file_hashes", file_hashes},
                                      {"machine", Json{{"cpu", system.cpu_model},
                                                       {"instruction_sets", system.instruction_sets},
                                                       {"cores", system.cores},
                                                       {"memory_bytes", system.memory_bytes},
                                                       {"os", system.os}}}});
}

Result<Json> read_run_json(const fs::path& run, std::string_view format) {
  const fs::path file = run / "run.json";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) {
    return Error{ErrorCode::kNotFound, run.string() + " is not a run directory: run.json is missing",
                 "give the directory that --out named"};
  }
  TAILOR_TRY(Json json, read_json(file));
  if (!json.is_object() || json.value("format", "") != format) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: expected a run of the format {}, this is \"{}\"", run.string(), format,
                             json.is_object() ? json.value("format", "") : std::string()),
                 "runs of `fit` go on with `tailor fit --resume`, those of `tune` with `tailor tune --resume`"};
  }
  if (!json.contains("options"))
    return Error{ErrorCode::kCorruptData, file.string() + " holds no options", "start a new run"};
  return json;
}

Json package_scores(std::size_t n_scored, const ScoreIntervals& scores) {
  return Json{{"n_scored", n_scored},
              {"accuracy", scores.accuracy.value},
              {"macro_precision", scores.macro_precision.value},
              {"macro_recall", scores.macro_recall.value},
              {"macro_f1", scores.macro_f1.value}};
}

Status replace_directory(const fs::path& made, const fs::path& to) {
  TAILOR_CHECK(remove_tree(to));
  std::error_code error;
  fs::rename(made, to, error);
  if (error) return Error{ErrorCode::kIo, "cannot rename " + made.string() + ": " + error.message(), ""};
  return {};
}

}  // namespace tailor
