#pragma once
/// Files and directories that are private to this user and that are on the disk when a call returns.

#include <cstdint>
#include <filesystem>

#include "core/result.h"

namespace tailor {

/// Mode 0700. One that others can read or enter is closed to them; where that is not ours to do (a mounted volume), a
/// group may stay in, the world may not: kIo.
Status make_private_directory(const std::filesystem::path& dir);
/// An empty file, mode 0600, where there is none; else keep_private().
Status make_private_file(const std::filesystem::path& file);
/// A regular file and not a link, mode 0600. Works by name: closing a descriptor of a file that SQLite has open in this
/// process would drop SQLite's locks.
Status keep_private(const std::filesystem::path& file);

Status sync_directory(const std::filesystem::path& dir);

/// Renames and flushes both directories. Never replaces: kInvalidArgument where `to` exists.
Status publish(const std::filesystem::path& from, const std::filesystem::path& to);

struct CopyLimits {
  std::int64_t files = 10'000;
  int depth = 16;
};
/// Copies a directory to `to`, which must not exist, and flushes every file and directory of the copy. Files are
/// hard-linked with `link` where the file system can; they then share their bytes with the source. Links and special
/// files are refused, since they may lead out of the directory. What was begun stays after an error.
Status copy_tree(const std::filesystem::path& from, const std::filesystem::path& to, bool link,
                 const CopyLimits& limits = {});

}  // namespace tailor
