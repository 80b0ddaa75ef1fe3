#pragma once
/// Bytes that wait on disk until they are wanted.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tailor {

/// Bytes that wait on disk beside a file that is being made, so that they take no memory; gone with the object.
class SpoolFile {
 public:
  static Result<SpoolFile> create_beside(const std::filesystem::path& file);
  SpoolFile(SpoolFile&& other) noexcept;
  SpoolFile& operator=(SpoolFile&& other) noexcept;
  ~SpoolFile();
  Status append(std::string_view bytes);  // the disk sees them in pieces of 256 KiB
  std::uint64_t size() const { return written_ + buffer_.size(); }
  /// What was appended, from the first byte on, at most `most` bytes a call; "" behind the last one.
  Result<std::string> next(std::size_t most);

 private:
  SpoolFile(int fd, std::filesystem::path file) : fd_(fd), file_(std::move(file)) {}
  Status flush();
  int fd_;
  std::filesystem::path file_;  // named in errors
  std::string buffer_;
  std::uint64_t written_ = 0, read_ = 0;
};

}  // namespace tailor
