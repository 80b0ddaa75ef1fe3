#pragma once
/// A file that comes in as multipart/form-data (RFC 7578), written to the store as it comes: of whatever size, it is
/// never in memory as a whole.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "serve/api_result.h"
#include "serve/http_handler.h"
#include "store/file_store.h"

namespace tailor {

inline constexpr std::size_t kPartHeaderBytes = 8192;  // of one field of a form
inline constexpr int kFormParts = 16;

/// A file that its owner's files leave no room for: 413, storage_limit_exceeded. `error`: the store's.
ApiError storage_full(const Error& error);

/// The boundary of a Content-Type; none: it is no multipart/form-data.
std::optional<std::string> multipart_boundary(const std::string& content_type);

/// Takes the fields "file" and "purpose", in either order; others are left out and named. What its owner's files leave
/// no room for is read past, and finish() tells so. Threads: one at a time.
class UploadSink final : public HttpBodySink {
 public:
  /// `most_stored`: as FileStore::begin() has it.
  UploadSink(FileStore& files, std::string owner, std::string boundary, std::int64_t most_stored = 0);
  Status write(std::string_view piece) override;
  int error_status() const override { return status_; }
  /// After the last piece: the file is in the store.
  ApiResult<FileRecord> finish();
  const std::vector<std::string>& ignored() const { return ignored_; }  // names of fields

 private:
  enum class State : std::uint8_t { kPreamble, kHeaders, kContent, kAfterBoundary, kEnd };
  Status step(bool& moved);
  Status begin_part(std::string_view headers);
  Status content(std::string_view bytes);
  Error refuse(std::string message);

  FileStore& files_;
  std::string owner_, boundary_;  // "\r\n--" and the boundary
  std::int64_t most_stored_;
  State state_ = State::kPreamble;
  std::string held_;  // not yet understood
  std::string field_, filename_, purpose_;
  std::vector<std::string> ignored_;
  std::optional<FileWriter> writer_;
  std::optional<ApiError> full_;  // there is no room for the file; `writer_` has gone
  bool done_file_ = false;
  int parts_ = 0;
  int status_ = 400;
};

}  // namespace tailor
