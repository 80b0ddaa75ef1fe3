#pragma once
/// Reading files whole and writing them so that a reader never sees half a file.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tailor {

/// "<what> <file>: <the system's reason>": kNotFound where the file is absent, else kIo.
Error io_error(std::string_view what, const std::filesystem::path& file, int error_number);

/// Whole file as bytes. Errors name the file and the reason (absent, a directory, no permission, larger than
/// max_bytes).
Result<std::string> read_file(const std::filesystem::path& file, std::uint64_t max_bytes = std::uint64_t{4} << 30);

/// Writes beside the target ("<name>.tmp-<pid>"), flushes to disk and renames: the target is old or new, never half.
/// Disk-full and permission errors are kIo with the path named; the temporary file is removed.
Status write_file_atomic(const std::filesystem::path& file, std::string_view bytes);

/// The same for content that is produced piece by piece; `fill` writes to the stream and may return an error.
Status write_stream_atomic(const std::filesystem::path& file, const std::function<Status(std::ostream&)>& fill);

/// Appends one line ("\n" is added) in a single write() and flushes; for JSONL logs that must survive SIGKILL.
Status append_line(const std::filesystem::path& file, std::string_view line);

Status make_directories(const std::filesystem::path& dir);
Status copy_file(const std::filesystem::path& from, const std::filesystem::path& to);  // atomic at `to`
Status remove_tree(const std::filesystem::path& dir);
std::uint64_t tree_bytes(const std::filesystem::path& file_or_dir);  // 0 where absent

/// A read-only memory map of a whole file; empty files map to an empty view.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::filesystem::path& file);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::string_view bytes() const { return {data_, size_}; }

 private:
  MappedFile() = default;
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A directory under the system's temporary directory, removed with its content at the end of life.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(std::string_view prefix = "tailor");
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace tailor
