#pragma once
/// The directory of a store, and who is at work in it.
///
///   store.sqlite (-wal, -shm)   what is known
///   packages/NAME/VERSION/      packages
///   files/ID                    contents of uploaded files
///   sessions/ID/                one for each open store: what it is writing; its `lock` is held while it lives
///   lock                        held for moments: opening, tidying up after the dead
///
/// Locks are flock(2): the system lets go of them when a process dies, however it dies. All processes of one store must
/// run on one machine (or on a file system whose flock reaches further).

#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"
#include "store/descriptor.h"

namespace tailor {

class StoreDirectory {
 public:
  /// Makes what is missing, mode 0700. A directory with other things in it is refused, lest a slip of the hand turns
  /// somebody's home directory into a store.
  static Result<StoreDirectory> open(const std::filesystem::path& root, bool must_exist);
  StoreDirectory(StoreDirectory&&) noexcept = default;
  StoreDirectory& operator=(StoreDirectory&&) = delete;
  ~StoreDirectory();  // ends the session and removes what it left

  /// Excludes others until the end of life of what it returns; kUnavailable after ten seconds of waiting.
  Result<Descriptor> exclusive() const;
  /// Once, under exclusive().
  Status begin_session();
  const std::string& session() const { return session_; }
  bool session_alive(const std::string& session) const;
  Result<std::vector<std::string>> other_sessions() const;  ///< that are alive
  /// Removes what dead sessions were writing. Under exclusive().
  Status remove_dead_sessions() const;

  /// A name that nothing has yet, in this session's directory.
  std::filesystem::path staging() const;
  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path packages() const { return root_ / "packages"; }
  std::filesystem::path files() const { return root_ / "files"; }
  std::filesystem::path database() const { return root_ / "store.sqlite"; }

 private:
  explicit StoreDirectory(std::filesystem::path root) : root_(std::move(root)) {}
  std::filesystem::path sessions() const { return root_ / "sessions"; }

  std::filesystem::path root_;
  std::string session_;
  Descriptor session_lock_;
};

}  // namespace tailor
