#pragma once
/// A file as the body of an answer: read as its reader takes it, never in memory as a whole.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "core/result.h"

namespace tailor {

/// Threads: all. What is sent is as long as the file was at open(); where it was cut since, the connection breaks off.
class HttpFileBody {
 public:
  static Result<std::shared_ptr<const HttpFileBody>> open(const std::filesystem::path& file);
  HttpFileBody(const HttpFileBody&) = delete;
  HttpFileBody& operator=(const HttpFileBody&) = delete;
  ~HttpFileBody();

  std::uint64_t size() const { return size_; }
  bool read(std::uint64_t offset, std::span<char> into) const;  ///< all of it, or false

 private:
  HttpFileBody(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {}
  int descriptor_;
  std::uint64_t size_;
};

}  // namespace tailor
