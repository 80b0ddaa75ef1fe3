#pragma once
/// What tests of a server that is killed, or whose disk fills, have in common.

#include <fmt/format.h>
#include <sys/mount.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>

#include "infer/test_models.h"
#include "tests/recipes/served.h"

namespace tailor::test {

inline std::string model_file() {
  return tailor::testing::tiny_llama().string();
}

/// In memory where there is room: what a killed process had written is not lost with it.
inline std::string place() {
  std::error_code error;
  const std::filesystem::space_info memory = std::filesystem::space("/dev/shm", error);
  return !error && memory.available > (std::uintmax_t{1} << 30) ? "/dev/shm/tailor-serve" : "tailor-serve";
}

/// TAILOR_SERVER_KILLS sets how often; the slow suite takes more.
inline int kills() {
  const char* const wanted = std::getenv("TAILOR_SERVER_KILLS");
  return wanted != nullptr ? std::atoi(wanted) : 3;
}

/// Asks until `holds`, at most for so long: training takes what it takes on a busy machine.
inline bool asked_until(const std::function<bool()>& holds, std::chrono::seconds most = std::chrono::seconds(240)) {
  const auto end = std::chrono::steady_clock::now() + most;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
  }
  return true;
}

/// A small disk of our own.
class SmallDisk {
 public:
  explicit SmallDisk(const char* size) {
    mounted_ = mount("tailor-test", dir_.path().c_str(), "tmpfs", MS_NOSUID | MS_NODEV,
                     fmt::format("size={}", size).c_str()) == 0;
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (mounted_) umount2(dir_.path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  const std::filesystem::path& path() const { return dir_.path(); }
  /// Leaves so many bytes.
  void fill(std::uint64_t leave) {
    std::ofstream out(path() / "filler", std::ios::binary | std::ios::app);
    const std::string page(4096, 'x');
    while (std::filesystem::space(path()).available > leave &&
           out.write(page.data(), static_cast<std::streamsize>(page.size())).flush()) {
    }
  }
  void empty() { std::filesystem::remove(path() / "filler"); }

 private:
  TemporaryDirectory dir_{"tailor-disk"};
  bool mounted_ = false;
};

}  // namespace tailor::test
