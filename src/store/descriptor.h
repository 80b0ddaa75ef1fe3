#pragma once
/// A file descriptor that closes itself, and writing all of something to one.

#include <unistd.h>

#include <filesystem>
#include <string_view>
#include <utility>

#include "core/result.h"

namespace tailor {

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

Status write_bytes(int fd, std::string_view bytes, const std::filesystem::path& file);

}  // namespace tailor
