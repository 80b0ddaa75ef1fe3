#pragma once
/// What the uploads of each owner take, as far as this process knows it: so that one that has no room is refused
/// without a look into the database. What is stored is judged there, when a file is committed.

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace tailor {

/// A file takes a block of the disk at least.
inline constexpr std::int64_t kLeastFileBytes = 4096;

/// Threads: any. Times are Unix seconds.
class UploadRoom {
 public:
  /// Bytes that come in. False: with them the owner would have more than `most`; they are not taken.
  bool take(const std::string& owner, std::int64_t bytes, std::int64_t most, std::int64_t now);
  void give_back(const std::string& owner, std::int64_t bytes);
  /// As the database has it. Believed for a minute: other processes remove files too.
  void set_stored(const std::string& owner, std::int64_t bytes, std::int64_t now);
  void forget_stored(const std::string& owner);
  std::int64_t taken(const std::string& owner, std::int64_t now) const;  ///< what is stored and what comes in

 private:
  struct Owner {
    std::int64_t coming = 0, stored = 0;
    std::int64_t believed_until = 0;
  };
  void drop_if_empty(const std::string& owner);

  mutable std::mutex mutex_;
  std::map<std::string, Owner> owners_;
};

}  // namespace tailor
