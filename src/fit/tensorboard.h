#pragma once
/// TensorBoard event files: records as TFRecord frames them (length, masked CRC-32C of the length, bytes, masked
/// CRC-32C of the bytes), each a protocol-buffer `Event` (tensorflow/core/util/event.proto) with scalar summaries.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor {

struct Scalar {
  std::string_view tag;  // "train/loss"
  double value = 0;      // written as f32
};

/// One record with its frame. `wall_time`: seconds since 1970.
std::string event_file_version(double wall_time);  // the first of a file
std::string event_scalars(double wall_time, std::int64_t step, std::span<const Scalar> scalars);
/// Tells readers that what they have from `step` on was left behind (a resumed run, a roll-back).
std::string event_restart(double wall_time, std::int64_t step);

/// The whole records at the beginning of `bytes` whose step is at most `last_step`; a broken or half-written record
/// ends them. `changed`: that is less than `bytes`.
std::string event_records_up_to(std::string_view bytes, std::int64_t last_step, bool& changed);

/// Writes `events.out.tfevents.<time>.tailor.<n>` in a directory, a record at a time, each with one write. Not safe to
/// call from several threads.
class EventFileWriter {
 public:
  /// A new file. Files of earlier parts of the run in the directory lose their records after `resumed_from_step`, so
  /// that no step stands there twice.
  static Result<EventFileWriter> open(const std::filesystem::path& directory, std::int64_t resumed_from_step,
                                      double wall_time);
  Status scalars(double wall_time, std::int64_t step, std::span<const Scalar> scalars);
  Status restart(double wall_time, std::int64_t step);
  const std::filesystem::path& file() const { return file_; }

 private:
  explicit EventFileWriter(std::filesystem::path file) : file_(std::move(file)) {}
  Status append(std::string_view bytes) const;
  std::filesystem::path file_;
};

}  // namespace tailor
