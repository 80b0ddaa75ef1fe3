#pragma once
/// The file of a batch: JSON lines of {"custom_id", "method", "url", "body"}, checked as a whole before any of it runs.

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"
#include "core/json.h"
#include "core/result.h"

namespace tailor {

struct BatchInputLimits {
  std::size_t lines = 50'000;  // as OpenAI's
  std::size_t line_bytes = std::size_t{8} << 20;
  std::size_t custom_id_bytes = 512;
  std::size_t errors = 100;  // that are told; the rest is counted
};

/// Whether requests to this path can stand in a batch.
bool is_batch_endpoint(std::string_view path);

/// Memory: an id and a few numbers a line; the bodies stay in the file, which may be deleted meanwhile.
class BatchInput {
 public:
  struct Line {
    std::string custom_id;
    std::size_t offset = 0, bytes = 0;
    std::size_t answers = 1;  // that it asks for; 16 texts of vectors or labels count as one
  };

  /// Reads every line. What is wrong with them is in errors(), not an error of this call. `has_model`: whether there is
  /// a model of this name; empty: not asked.
  static Result<BatchInput> read(const std::filesystem::path& file, std::string_view endpoint,
                                 const BatchInputLimits& limits,
                                 const std::function<bool(const std::string&)>& has_model);

  const std::vector<Line>& lines() const { return lines_; }
  /// As the API tells them: {"code", "line", "message", "param"}; lines count from 1. Not empty: no line may run.
  const Json& errors() const { return errors_; }
  const std::string& model() const { return model_; }  ///< that all lines name; empty: several, or none
  Json body(std::size_t line) const;                   ///< of a line without errors

 private:
  explicit BatchInput(MappedFile file) : file_(std::move(file)) {}
  MappedFile file_;
  std::vector<Line> lines_;
  Json errors_ = Json::array();
  std::string model_;
};

}  // namespace tailor
