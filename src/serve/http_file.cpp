#include "serve/http_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tailor {

Result<std::shared_ptr<const HttpFileBody>> HttpFileBody::open(const std::filesystem::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not hold us up
  struct stat status {};
  if (descriptor < 0 || fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    const int reason = errno;
    if (descriptor >= 0) ::close(descriptor);
    return Error{
        descriptor < 0 && reason == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
        fmt::format("{} cannot be sent: {}", file.string(), descriptor < 0 ? std::strerror(reason) : "is no file"), ""};
  }
  return std::shared_ptr<const HttpFileBody>(new HttpFileBody(descriptor, static_cast<std::uint64_t>(status.st_size)));
}

HttpFileBody::~HttpFileBody() {
  ::close(descriptor_);
}

bool HttpFileBody::read(std::uint64_t offset, std::span<char> into) const {
  while (!into.empty()) {
    const ssize_t n = pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    offset += static_cast<std::uint64_t>(n);
    into = into.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace tailor
