#include "core/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "core/spool_file.h"

namespace tailor {
namespace fs = std::filesystem;

Error io_error(std::string_view what, const fs::path& file, int error_number) {
  const ErrorCode code = error_number == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
  std::string hint;
  if (error_number == ENOSPC || error_number == EDQUOT) hint = "free some disk space and run the same command again";
  if (error_number == EACCES || error_number == EPERM || error_number == EROFS)
    hint = "check the permissions of the path";
  return {code, fmt::format("{} {}: {}", what, file.string(), std::strerror(error_number)), hint};
}

namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Status write_all(int fd, std::string_view bytes, const fs::path& file) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return io_error("cannot write", file, errno);
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

/// A stream buffer over a descriptor that remembers the first error, since iostreams forget errno.
class DescriptorBuffer final : public std::streambuf {
 public:
  DescriptorBuffer(int fd, fs::path file) : fd_(fd), file_(std::move(file)) { buffer_.reserve(kCapacity); }
  Status finish() {
    flush();
    return status_;
  }

 protected:
  int_type overflow(int_type c) override {
    if (c != traits_type::eof()) put(std::string_view(reinterpret_cast<const char*>(&c), 1));
    return status_ ? traits_type::not_eof(c) : traits_type::eof();
  }
  std::streamsize xsputn(const char* s, std::streamsize n) override {
    put({s, static_cast<std::size_t>(n)});
    return status_ ? n : 0;
  }

 private:
  static constexpr std::size_t kCapacity = std::size_t{1} << 16;
  void put(std::string_view bytes) {
    buffer_.append(bytes);
    if (buffer_.size() >= kCapacity) flush();
  }
  void flush() {
    if (status_ && !buffer_.empty()) status_ = write_all(fd_, buffer_, file_);
    buffer_.clear();
  }
  int fd_;
  fs::path file_;
  std::string buffer_;
  Status status_;
};

}  // namespace

Result<std::string> read_file(const fs::path& file, std::uint64_t max_bytes) {
  const FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return io_error("cannot read", file, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return io_error("cannot read", file, errno);
  if (S_ISDIR(info.st_mode))
    return Error{ErrorCode::kInvalidArgument, file.string() + " is a directory, expected a file", ""};
  std::string bytes;
  bytes.reserve(static_cast<std::size_t>(info.st_size));
  char chunk[1 << 16];
  while (true) {
    const ssize_t n = ::read(fd.get(), chunk, sizeof chunk);
    if (n < 0) {
      if (errno == EINTR) continue;
      return io_error("cannot read", file, errno);
    }
    if (n == 0) break;
    bytes.append(chunk, static_cast<std::size_t>(n));
    if (bytes.size() > max_bytes) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{} is larger than the limit of {} bytes", file.string(), max_bytes), ""};
    }
  }
  return bytes;
}

Status write_stream_atomic(const fs::path& file, const std::function<Status(std::ostream&)>& fill) {
  const fs::path temporary = file.string() + fmt::format(".tmp-{}", ::getpid());
  FileDescriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (fd.get() < 0) return io_error("cannot write", file, errno);
  const auto abandon = [&](Error error) {
    ::unlink(temporary.c_str());
    return error;
  };
  DescriptorBuffer buffer(fd.get(), file);
  std::ostream stream(&buffer);
  Status filled;
  try {
    filled = fill(stream);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  if (!filled) return abandon(filled.error());
  const Status written = buffer.finish();
  if (!written) return abandon(written.error());
  if (::fsync(fd.get()) != 0) return abandon(io_error("cannot write", file, errno));
  if (::close(fd.release()) != 0) return abandon(io_error("cannot write", file, errno));
  if (::rename(temporary.c_str(), file.c_str()) != 0) return abandon(io_error("cannot write", file, errno));
  return {};
}

Status write_file_atomic(const fs::path& file, std::string_view bytes) {
  return write_stream_atomic(file, [&](std::ostream& out) {
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return Status{};
  });
}

Status append_line(const fs::path& file, std::string_view line) {
  const FileDescriptor fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (fd.get() < 0) return io_error("cannot write", file, errno);
  std::string bytes(line);
  bytes += '\n';
  TAILOR_CHECK(write_all(fd.get(), bytes, file));
  if (::fsync(fd.get()) != 0 && errno != EINVAL) return io_error("cannot write", file, errno);
  return {};
}

Result<SpoolFile> SpoolFile::create_beside(const fs::path& file) {
  std::string name = file.string() + ".spool-XXXXXX";
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return io_error("cannot write beside", file, errno);
  ::unlink(name.c_str());  // killed or not, nothing stays behind
  return SpoolFile(fd, file);
}

SpoolFile::SpoolFile(SpoolFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      file_(std::move(other.file_)),
      buffer_(std::move(other.buffer_)),
      written_(other.written_),
      read_(other.read_) {}

SpoolFile& SpoolFile::operator=(SpoolFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  file_ = std::move(other.file_);
  buffer_ = std::move(other.buffer_);
  written_ = other.written_;
  read_ = other.read_;
  return *this;
}

SpoolFile::~SpoolFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status SpoolFile::append(std::string_view bytes) {
  constexpr std::size_t kCapacity = std::size_t{1} << 18;
  buffer_.append(bytes);
  return buffer_.size() < kCapacity ? Status() : flush();
}

Status SpoolFile::flush() {
  TAILOR_CHECK(write_all(fd_, buffer_, file_));
  written_ += buffer_.size();
  buffer_.clear();
  return {};
}

Result<std::string> SpoolFile::next(std::size_t most) {
  TAILOR_CHECK(flush());
  std::string bytes(static_cast<std::size_t>(std::min<std::uint64_t>(most, written_ - read_)), '\0');
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t n = ::pread(fd_, bytes.data() + have, bytes.size() - have, static_cast<off_t>(read_ + have));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return io_error("cannot read back", file_, n < 0 ? errno : EIO);
    have += static_cast<std::size_t>(n);
  }
  read_ += have;
  return bytes;
}

Status make_directories(const fs::path& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) return io_error("cannot make the directory", dir, error.value());
  if (!fs::is_directory(dir, error))
    return Error{ErrorCode::kInvalidArgument, dir.string() + " exists and is not a directory", ""};
  return {};
}

Status copy_file(const fs::path& from, const fs::path& to) {
  TAILOR_TRY(const MappedFile source, MappedFile::open(from));
  return write_file_atomic(to, source.bytes());
}

Status remove_tree(const fs::path& dir) {
  std::error_code error;
  fs::remove_all(dir, error);
  if (error) return io_error("cannot remove", dir, error.value());
  return {};
}

std::uint64_t tree_bytes(const fs::path& file_or_dir) {
  std::error_code error;
  if (fs::is_regular_file(file_or_dir, error)) return fs::file_size(file_or_dir, error);
  std::uint64_t total = 0;
  for (fs::recursive_directory_iterator it(file_or_dir, error), end; !error && it != end; it.increment(error)) {
    if (it->is_regular_file(error)) total += it->file_size(error);
  }
  return total;
}

Result<MappedFile> MappedFile::open(const fs::path& file) {
  const FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return io_error("cannot read", file, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return io_error("cannot read", file, errno);
  if (S_ISDIR(info.st_mode))
    return Error{ErrorCode::kInvalidArgument, file.string() + " is a directory, expected a file", ""};
  MappedFile map;
  map.size_ = static_cast<std::size_t>(info.st_size);
  if (map.size_ == 0) return map;
  void* address = ::mmap(nullptr, map.size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) return io_error("cannot read", file, errno);
  map.data_ = static_cast<const char*>(address);
  return map;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
}

TemporaryDirectory::TemporaryDirectory(std::string_view prefix) {
  std::string pattern = (fs::temp_directory_path() / fmt::format("{}-XXXXXX", prefix)).string();
  if (::mkdtemp(pattern.data()) == nullptr)
    throw Exception(io_error("cannot make a temporary directory", pattern, errno));
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;  // nothing can be done about it at the end of life
  fs::remove_all(path_, ignored);
}

}  // namespace tailor
