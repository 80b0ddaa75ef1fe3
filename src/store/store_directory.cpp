#include "store/store_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "core/files.h"
#include "store/durable.h"
#include "store/random_id.h"

namespace tailor {
namespace fs = std::filesystem;

namespace {

bool holds_anything(const fs::path& dir) {
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename() != "lost+found") return true;  // a volume fresh from mkfs has that
  }
  return false;
}

}  // namespace

Result<StoreDirectory> StoreDirectory::open(const fs::path& path, bool must_exist) {
  std::error_code error;
  const fs::path root = fs::absolute(path, error).lexically_normal();
  const auto known = [&] { return fs::exists(root / "store.sqlite", error) || fs::exists(root / "lock", error); };
  if (must_exist && !known())
    return Error{ErrorCode::kNotFound, root.string() + " is not a store", "check the path; `tailor serve` makes one"};
  // Looked at last: another process that makes the same store writes the lock before anything else in it.
  if (!known() && holds_anything(root) && !known()) {
    return Error{ErrorCode::kInvalidArgument, root.string() + " holds other files and is not a store",
                 "name an empty directory or one that does not exist"};
  }
  StoreDirectory directory(root);
  TAILOR_CHECK(make_private_directory(root));
  TAILOR_CHECK(make_private_file(root / "lock"));
  for (const fs::path& dir : {directory.packages(), directory.files(), directory.sessions()})
    TAILOR_CHECK(make_private_directory(dir));
  TAILOR_CHECK(sync_directory(root));
  if (root.has_parent_path()) TAILOR_CHECK(sync_directory(root.parent_path()));
  return directory;
}

StoreDirectory::~StoreDirectory() {
  if (session_lock_.get() < 0) return;
  std::error_code ignored;  // what stays is removed by the next one to open the store
  fs::remove_all(sessions() / session_, ignored);
}

Result<Descriptor> StoreDirectory::exclusive() const {
  const fs::path file = root_ / "lock";
  Descriptor fd(::open(file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0) return io_error("cannot open", file, errno);
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return io_error("cannot lock", file, errno);
    if (std::chrono::steady_clock::now() > give_up) {
      return Error{ErrorCode::kUnavailable, fmt::format("another process has held {} for ten seconds", file.string()),
                   "end that process or try again"};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return fd;
}

Status StoreDirectory::begin_session() {
  session_ = random_id("session-", 16);
  const fs::path dir = sessions() / session_;
  TAILOR_CHECK(make_private_directory(dir));
  const fs::path file = dir / "lock";
  TAILOR_CHECK(make_private_file(file));
  Descriptor fd(::open(file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0) return io_error("cannot open", file, errno);
  while (::flock(fd.get(), LOCK_EX) != 0) {  // at most somebody else looks whether it is alive
    if (errno != EINTR) return io_error("cannot lock", file, errno);
  }
  session_lock_ = std::move(fd);
  return {};
}

bool StoreDirectory::session_alive(const std::string& session) const {
  if (session.empty() || session.find('/') != std::string::npos) return false;
  const Descriptor fd(::open((sessions() / session / "lock").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (fd.get() < 0) return errno != ENOENT;          // not to be told: assume life, take nothing away
  return ::flock(fd.get(), LOCK_SH | LOCK_NB) != 0;  // shared, so that two who ask do not see each other
}

Result<std::vector<std::string>> StoreDirectory::other_sessions() const {
  std::vector<std::string> out;
  std::error_code error;
  for (fs::directory_iterator it(sessions(), error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name != session_ && session_alive(name)) out.push_back(name);
  }
  if (error) return io_error("cannot read", sessions(), error.value());
  return out;
}

Status StoreDirectory::remove_dead_sessions() const {
  std::error_code error;
  for (fs::directory_iterator it(sessions(), error), end; !error && it != end; it.increment(error)) {
    if (!session_alive(it->path().filename().string())) TAILOR_CHECK(remove_tree(it->path()));
  }
  if (error) return io_error("cannot read", sessions(), error.value());
  return {};
}

fs::path StoreDirectory::staging() const {
  return sessions() / session_ / random_id("", 16);
}

}  // namespace tailor
