#include "fit/optimized_model.h"

#include "core/files.h"
#include "fit/ready_model.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kEnough = 16;
constexpr const char* kFormat = "tailor-optimized-model";

}  // namespace

fs::path optimized_record(const std::string& sha256) {
  return model_cache_directory() / ("optimized-" + sha256.substr(0, kEnough) + ".json");
}

Status record_optimized(const std::string& sha256, const fs::path& file, const std::string& format,
                        const Json& figures) {
  return write_json_atomic(optimized_record(sha256), {{"format", kFormat},
                                                      {"version", 1},
                                                      {"sha256", sha256},
                                                      {"file", fs::absolute(file).string()},
                                                      {"type", format},
                                                      {"figures", figures}});
}

std::optional<fs::path> optimized_file(const std::string& sha256) {
  const auto record = read_json(optimized_record(sha256));
  if (!record.has_value() || !record->is_object() || record->value("format", Json()) != kFormat ||
      record->value("sha256", Json()) != sha256 || !record->contains("file") || !(*record)["file"].is_string())
    return std::nullopt;
  fs::path file = (*record)["file"].get<std::string>();
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  return file;
}

}  // namespace tailor
