#include "tune/state_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/result.h"
#include "tune/data_order.h"
#include "tune/job.h"

namespace tailor::tune {
namespace {

constexpr std::uintmax_t kRoom = 2;  // free bytes for every byte of the store

/// A file that has no name any more; -1 where there can be none.
int open_nameless(const std::filesystem::path& directory) {
  std::string name = (directory / "states-XXXXXX").string();
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor >= 0) ::unlink(name.c_str());
  return descriptor;
}

[[noreturn]] void fail(const char* what) {
  throw Exception({ErrorCode::kIo,
                   fmt::format("states of the frozen layers: cannot {}: {}", what, std::strerror(errno)),
                   "free some space, or take another --out; the last checkpoint is intact"});
}

/// Calls `move`(bytes done, bytes left), which says how many it moved, until all are.
template <typename Move>
void transfer(std::size_t bytes, const char* what, const Move& move) {
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t moved = move(done, bytes - done);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) fail(what);
    done += static_cast<std::size_t>(moved);
  }
}

}  // namespace

std::unique_ptr<StateStore> StateStore::make(const std::filesystem::path& directory, const TokenFile& file,
                                             std::span<const TokenPart> parts, std::int64_t width) {
  std::vector<std::int64_t> begin;
  std::vector<State> held;
  std::int64_t tokens = 0;
  for (std::size_t r = 0; r < file.rows(); ++r) {
    begin.push_back(tokens);
    const bool kept = std::find(parts.begin(), parts.end(), file.parts[r]) != parts.end();
    held.push_back(kept ? State::kWanted : State::kNever);
    if (!kept) continue;
    tokens += static_cast<std::int64_t>(file.row(r).size());
    const std::int32_t label = file.labels.empty() ? -1 : file.labels[r];
    if (file.loss_mask.empty() && !file.label_offsets.empty() && label >= 0)  // the answer is put behind the row
      tokens += static_cast<std::int64_t>(file.label(static_cast<std::size_t>(label)).size());
  }
  const std::uintmax_t bytes = static_cast<std::uintmax_t>(tokens) * static_cast<std::uintmax_t>(width) * sizeof(float);
  std::error_code failed;
  const std::filesystem::space_info space = std::filesystem::space(directory, failed);
  if (failed || space.available / kRoom < bytes) return nullptr;
  const int descriptor = open_nameless(directory);
  if (descriptor < 0) return nullptr;
  std::unique_ptr<StateStore> store(new StateStore(descriptor, width));
  store->begin_ = std::move(begin);
  store->held_ = std::move(held);
  return store;
}

StateStore::~StateStore() {
  ::close(descriptor_);
}

off_t StateStore::byte_of(std::int64_t row, std::int64_t token) const {
  return static_cast<off_t>((begin_[static_cast<std::size_t>(row)] + token) * width_ *
                            static_cast<std::int64_t>(sizeof(float)));
}

void StateStore::put(std::int64_t row, std::span<const float> states) {
  const char* data = reinterpret_cast<const char*>(states.data());
  const off_t at = byte_of(row, 0);
  transfer(states.size_bytes(), "write them", [&](std::size_t done, std::size_t left) {
    return ::pwrite(descriptor_, data + done, left, at + static_cast<off_t>(done));
  });
  held_[static_cast<std::size_t>(row)] = State::kHeld;
}

void StateStore::get(std::int64_t row, std::int64_t begin, std::int64_t n, float* out) const {
  char* data = reinterpret_cast<char*>(out);
  const off_t at = byte_of(row, begin);
  transfer(static_cast<std::size_t>(n * width_) * sizeof(float), "read them back",
           [&](std::size_t done, std::size_t left) {
             return ::pread(descriptor_, data + done, left, at + static_cast<off_t>(done));
           });
}

bool visits_rows_again(const Job& job, const TokenFile& file) {
  const Settings& s = job.settings;
  const auto rows = static_cast<std::int64_t>(rows_of(file, TokenPart::kTrain).size());
  return s.max_steps > 0 ? s.max_steps * s.batch_size > rows : s.epochs > 1;
}

}  // namespace tailor::tune
