#pragma once
/// What the tests of the store have in common: a store in a directory of its own, a clock that stands, child processes.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "core/files.h"
#include "core/hash.h"
#include "store/descriptor.h"
#include "store/store.h"

namespace tailor {

struct TestStore {
  TemporaryDirectory dir{"tailor-store"};
  std::int64_t now = 1'700'000'000;
  std::unique_ptr<Store> store;

  explicit TestStore(std::int64_t max_file_bytes = 1 << 20) { open(max_file_bytes); }
  void open(std::int64_t max_file_bytes = 1 << 20) {
    store.reset();
    store = Store::open(dir.path() / "store",
                        {.check_integrity = true, .clock = [this] { return now; }, .max_file_bytes = max_file_bytes})
                .value();
  }
  Store* operator->() const { return store.get(); }

  /// A package directory outside the store.
  std::filesystem::path package(const std::string& content = "weights") const {
    const std::filesystem::path source = dir.path() / ("source-" + sha256_hex(content).substr(0, 8));
    make_directories(source / "base").value();
    write_file_atomic(source / "manifest.json", "{\"content\": \"" + content + "\"}").value();
    write_file_atomic(source / "base" / "model.bin", content).value();
    return source;
  }
};

/// From now on no entry can be written to the audit log.
inline void close_audit(Store& store) {
  Transaction transaction = store.database().write().value();
  transaction.run("ALTER TABLE audit RENAME TO audit_elsewhere").value();
  transaction.commit().value();
}

inline std::size_t entries(const std::filesystem::path& dir) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(dir), std::filesystem::directory_iterator()));
}

/// While it lives no file of this process grows beyond so many bytes, which to a writer is as a disk without room.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &usual_);
    rlimit full = usual_;
    full.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &full);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &usual_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit usual_{};
  void (*handler_)(int);
};

/// In memory where there is room: what a killed process had written is not lost with it, and flushing to a busy disk
/// takes most of the time. A prefix for a TemporaryDirectory.
inline std::string quick_place(const std::string& name) {
  std::error_code error;
  const std::filesystem::space_info memory = std::filesystem::space("/dev/shm", error);
  return (!error && memory.available > (std::uintmax_t{1} << 30) ? "/dev/shm/" : "") + name;
}

/// A forked process with a pipe each way. Fork before this process opens a store: SQLite's locks do not survive it.
class Child {
 public:
  using Body = std::function<void(Child& parent)>;
  explicit Child(const Body& body) {
    int down[2], up[2];
    if (::pipe(down) != 0 || ::pipe(up) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(down[1]);
      ::close(up[0]);
      in_ = Descriptor(down[0]);
      out_ = Descriptor(up[1]);
      try {
        body(*this);
      } catch (const std::exception& error) {
        say(std::string("error ") + error.what());
      }
      ::_exit(0);
    }
    ::close(down[0]);
    ::close(up[1]);
    in_ = Descriptor(up[0]);
    out_ = Descriptor(down[1]);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { kill(); }

  void say(const std::string& line) {
    const std::string bytes = line + "\n";
    std::ignore = write_bytes(out_.get(), bytes, "pipe");
  }
  /// The next line from the other side; nothing at its end.
  std::optional<std::string> hear() {
    while (true) {
      if (const auto end = buffer_.find('\n'); end != std::string::npos) {
        std::string line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return line;
      }
      char chunk[4096];
      const ssize_t n = ::read(in_.get(), chunk, sizeof chunk);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return std::nullopt;
      buffer_.append(chunk, static_cast<std::size_t>(n));
    }
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  void wait() {
    if (pid_ > 0) ::waitpid(std::exchange(pid_, -1), nullptr, 0);
  }

 private:
  pid_t pid_ = -1;
  Descriptor in_, out_;
  std::string buffer_;
};

}  // namespace tailor
