#pragma once
/// Reading job.json: every key checked, unknown ones refused with the nearest known name. Format: docs/TUNE_JOB.md.

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "core/result.h"
#include "tune/settings.h"

namespace tailor::tune {

/// Relative paths in the job are relative to the job file's directory. Settings that are absent take the method's
/// defaults.
Result<Job> read_job(const std::filesystem::path& file);
/// The same from memory; `where` names it in errors, `directory` resolves relative paths.
Result<Job> parse_job(const nlohmann::ordered_json& value, const std::string& where,
                      const std::filesystem::path& directory);

/// All settings with their values, as job.json would give them; for result.json and the fingerprint of checkpoints.
nlohmann::ordered_json settings_json(const Job& job);

const char* to_string(Task task);
const char* to_string(Metric metric);
const char* to_string(Dtype dtype);
const char* to_string(Device device);

}  // namespace tailor::tune
