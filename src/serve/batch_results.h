#pragma once
/// What a batch has answered so far, on disk: the lines of its output and error files, appended as answers come, so
/// that a server that was killed asks nothing again.

#include <filesystem>
#include <span>
#include <string>
#include <unordered_set>

#include "core/json.h"
#include "core/result.h"
#include "store/batch_store.h"
#include "store/descriptor.h"
#include "store/store.h"

namespace tailor {

/// What became of one request.
struct BatchAnswer {
  std::string custom_id;
  int status = 0;  // of HTTP; 0: there was no answer, see `code`
  std::string request_id;
  std::string body;                     // JSON
  std::string code = {}, message = {};  // "batch_expired", "batch_cancelled", "request_timeout"
};

/// {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}, as OpenAI writes it.
Json batch_answer_object(const BatchAnswer& answer);

/// Threads: one at a time.
class BatchResults {
 public:
  /// Makes the directory, or goes on with what is in it: a last line that was cut off is dropped.
  static Result<BatchResults> open(const std::filesystem::path& directory);
  BatchResults(BatchResults&&) noexcept = default;

  /// On success they are on the disk. After an error none of them is there, and they can be given again.
  Status add(std::span<const BatchAnswer> answers);
  bool has(const std::string& custom_id) const { return done_.contains(custom_id); }
  /// Requests without an answer (expired, cancelled) count as neither completed nor failed.
  const BatchProgress& progress() const { return progress_; }

  /// Puts them into the store as files of `owner`, where they have lines: "<batch>_output.jsonl",
  /// "<batch>_errors.jsonl". One of that name that is there is taken instead: the server was killed after it had made
  /// it. Ids; may be empty.
  struct Files {
    std::string output, errors;
  };
  Result<Files> publish(FileStore& files, const std::string& batch, const std::string& owner) const;

 private:
  struct Part {
    std::filesystem::path path;
    Descriptor fd;
    std::size_t bytes = 0;
  };
  BatchResults() = default;
  Status open_part(Part& part);
  static Status append(Part& part, std::string_view bytes);
  static Result<std::string> publish_part(const Part& part, FileStore& files, const std::string& name,
                                          const std::string& owner);
  void count(const Json& line);

  Part output_, errors_;
  std::unordered_set<std::string> done_;
  BatchProgress progress_;
};

}  // namespace tailor
