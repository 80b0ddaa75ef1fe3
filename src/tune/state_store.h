#pragma once
/// What frozen lower layers make of the token file's rows: computed at a row's first visit, read back at every later
/// one. Methods that train only the upper layers then compute those alone, with the same figures to the last bit.
/// The states lie in a file without a name, which ends with the process; memory holds one batch of them.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "core/token_file.h"

namespace tailor::tune {

struct Job;

/// Threads: one caller at a time. An error of the disk throws tailor::Exception{kIo}.
class StateStore {
 public:
  /// Of the rows of `parts`, `width` floats a token; `directory` exists. Null where the directory's disk has not twice
  /// the room, or makes no such file: the layers are then computed each time.
  static std::unique_ptr<StateStore> make(const std::filesystem::path& directory, const TokenFile& file,
                                          std::span<const TokenPart> parts, std::int64_t width);
  ~StateStore();
  StateStore(const StateStore&) = delete;
  StateStore& operator=(const StateStore&) = delete;

  /// Rows that the store has no room for are never held.
  bool holds(std::int64_t row) const { return held_[static_cast<std::size_t>(row)] == State::kHeld; }
  bool wants(std::int64_t row) const { return held_[static_cast<std::size_t>(row)] == State::kWanted; }
  /// States of the row's first tokens, [n, width]; n is at most the row's length.
  void put(std::int64_t row, std::span<const float> states);
  /// States of tokens [begin, begin + n) into out [n, width]; put() has had them.
  void get(std::int64_t row, std::int64_t begin, std::int64_t n, float* out) const;
  std::int64_t width() const { return width_; }

 private:
  enum class State : std::uint8_t { kNever, kWanted, kHeld };
  StateStore(int descriptor, std::int64_t width) : descriptor_(descriptor), width_(width) {}
  off_t byte_of(std::int64_t row, std::int64_t token) const;  // in the file

  int descriptor_;
  std::int64_t width_;
  std::vector<std::int64_t> begin_;  // [rows] of its tokens in the file
  std::vector<State> held_;
};

/// Whether a run of this job visits its training rows more than once.
bool visits_rows_again(const Job& job, const TokenFile& file);

}  // namespace tailor::tune
