#include "store/durable.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <vector>

#include "core/files.h"
#include "store/descriptor.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

Status sync_path(const fs::path& path, int flags) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | flags));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) return io_error("cannot flush", path, errno);
  return {};
}

Status copy_bytes(const fs::path& from, const fs::path& to) {
  const Descriptor in(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (in.get() < 0) return io_error("cannot read", from, errno);
  const Descriptor out(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (out.get() < 0) return io_error("cannot write", to, errno);
  std::vector<char> chunk(std::size_t{1} << 20);
  while (true) {
    const ssize_t n = ::read(in.get(), chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("cannot read", from, errno);
    if (n == 0) break;
    TAILOR_CHECK(write_bytes(out.get(), {chunk.data(), static_cast<std::size_t>(n)}, to));
  }
  if (::fsync(out.get()) != 0) return io_error("cannot write", to, errno);
  return {};
}

class TreeCopy {
 public:
  TreeCopy(bool link, const CopyLimits& limits) : link_(link), limits_(limits) {}

  Status directory(const fs::path& from, const fs::path& to, int depth) {
    if (depth > limits_.depth)
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{} is more than {} directories deep", from.string(), limits_.depth), ""};
    if (::mkdir(to.c_str(), 0700) != 0) return io_error("cannot make the directory", to, errno);
    std::error_code error;
    for (fs::directory_iterator it(from, error), end; !error && it != end; it.increment(error)) {
      const fs::path target = to / it->path().filename();
      const fs::file_status status = it->symlink_status(error);
      if (error) break;
      if (++files_ > limits_.files)
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("{} holds more than {} files", from.string(), limits_.files), ""};
      if (fs::is_directory(status)) {
        TAILOR_CHECK(directory(it->path(), target, depth + 1));
      } else if (fs::is_regular_file(status)) {
        TAILOR_CHECK(file(it->path(), target));
      } else {
        return Error{ErrorCode::kInvalidArgument,
                     it->path().string() + " is neither a file nor a directory; links are not taken along", ""};
      }
    }
    if (error) return io_error("cannot read", from, error.value());
    return sync_directory(to);
  }

 private:
  Status file(const fs::path& from, const fs::path& to) const {
    if (link_ && ::link(from.c_str(), to.c_str()) == 0) return sync_path(to, 0);
    return copy_bytes(from, to);
  }

  bool link_;
  CopyLimits limits_;
  std::int64_t files_ = 0;
};

}  // namespace

Status write_bytes(int fd, std::string_view bytes, const fs::path& file) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("cannot write", file, errno);
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Status make_private_directory(const fs::path& dir) {
  if (dir.has_parent_path()) TAILOR_CHECK(make_directories(dir.parent_path()));
  if (::mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) return io_error("cannot make the directory", dir, errno);
  struct stat info {};
  if (::stat(dir.c_str(), &info) != 0) return io_error("cannot read", dir, errno);
  if (!S_ISDIR(info.st_mode))
    return Error{ErrorCode::kInvalidArgument, dir.string() + " exists and is not a directory", ""};
  if ((info.st_mode & 0077) == 0 || ::chmod(dir.c_str(), 0700) == 0 || (info.st_mode & 0007) == 0) return {};
  return io_error("cannot keep others out of", dir, errno);
}

Status make_private_file(const fs::path& file) {
  const Descriptor fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd.get() >= 0) return {};
  if (errno != EEXIST) return io_error("cannot write", file, errno);
  return keep_private(file);
}

Status keep_private(const fs::path& file) {
  struct stat info {};
  if (::lstat(file.c_str(), &info) != 0) return io_error("cannot read", file, errno);
  if (!S_ISREG(info.st_mode))
    return Error{ErrorCode::kInvalidArgument, file.string() + " is not a regular file", "name another directory"};
  if ((info.st_mode & 0077) != 0 && ::chmod(file.c_str(), 0600) != 0)
    return io_error("cannot keep others out of", file, errno);
  return {};
}

Status sync_directory(const fs::path& dir) {
  return sync_path(dir.empty() ? fs::path(".") : dir, O_DIRECTORY);
}

Status publish(const fs::path& from, const fs::path& to) {
  int failed = ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0 ? 0 : errno;
  if (failed == EINVAL || failed == ENOSYS) {  // a file system without that flag, such as NFS
    std::error_code error;
    failed = fs::exists(to, error) ? EEXIST : ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
  }
  if (failed == EEXIST) return Error{ErrorCode::kInvalidArgument, to.string() + " exists already", ""};
  if (failed != 0) return io_error("cannot write", to, failed);
  TAILOR_CHECK(sync_directory(to.parent_path()));
  return sync_directory(from.parent_path());
}

Status copy_tree(const fs::path& from, const fs::path& to, bool link, const CopyLimits& limits) {
  std::error_code error;
  if (!fs::is_directory(from, error))
    return Error{ErrorCode::kNotFound, from.string() + " is not a directory", "name the directory of a package"};
  return TreeCopy(link, limits).directory(from, to, 0);
}

}  // namespace tailor
