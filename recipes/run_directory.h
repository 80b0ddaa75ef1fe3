#pragma once
/// What the run directories of the recipes have in common.

#include <filesystem>
#include <string>
#include <string_view>

#include "core/json.h"
#include "core/result.h"
#include "eval/intervals.h"

namespace tailor {

/// A run writes into a directory that is empty or not there. `verb` ("fit") is how an interrupted one goes on.
Status refuse_existing(const std::filesystem::path& out, std::string_view verb);

/// run.json, written before anything runs: a directory that has it can be resumed. `format`: "tailor-run",
/// "tailor-tune".
Status write_run_json(const std::filesystem::path& file, std::string_view format, int version,
                      const std::string& command_line, Json options, const std::vector<std::string>& file_names,
                      const std::vector<std::string>& file_hashes);

/// The options and all else of run.json. Errors: no run, another format.
Result<Json> read_run_json(const std::filesystem::path& run, std::string_view format);

/// As the manifest of a run's package states them: {"n_scored", "accuracy", "macro_precision", "macro_recall",
/// "macro_f1"}, without the intervals.
Json package_scores(std::size_t n_scored, const ScoreIntervals& scores);

/// `made` takes the place of `to`, which may be there.
Status replace_directory(const std::filesystem::path& made, const std::filesystem::path& to);

}  // namespace tailor
