#include "fit/tensorboard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>

#include "core/crc32c.h"
#include "core/files.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");

template <typename T>
std::string raw(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

// Protocol buffers: a field is (number << 3 | type), types 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string bytes_field(int number, std::string_view bytes) {
  return varint(static_cast<std::uint64_t>(number << 3 | 2)) + varint(bytes.size()) + std::string(bytes);
}

// Event: 1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary, 7 session_log.
std::string event(double wall_time, std::int64_t step, std::string_view content) {
  std::string out = "\x09" + raw(wall_time);
  if (step != 0) out += "\x10" + varint(static_cast<std::uint64_t>(step));
  return out + std::string(content);
}

std::string framed(std::string_view record) {
  const std::string length = raw(static_cast<std::uint64_t>(record.size()));
  return length + raw(masked_crc32c(length)) + std::string(record) + raw(masked_crc32c(record));
}

/// Field 2 of an event; 0 where it is absent, nullopt where the bytes are not an event of ours.
std::optional<std::int64_t> step_of(std::string_view record) {
  if (record.size() < 9 || record[0] != '\x09') return {};
  if (record.size() == 9 || record[9] != '\x10') return 0;
  std::uint64_t step = 0;
  for (std::size_t at = 10, shift = 0; at < record.size() && shift < 64; ++at, shift += 7) {
    const auto byte = static_cast<unsigned char>(record[at]);
    step |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return static_cast<std::int64_t>(step);
  }
  return {};
}

template <typename T>
T number_at(std::string_view bytes, std::size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

}  // namespace

std::string event_file_version(double wall_time) {
  return framed(event(wall_time, 0, bytes_field(3, "brain.Event:2")));
}

std::string event_scalars(double wall_time, std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars)  // Summary: 1 value, repeated; Value: 1 tag, 2 simple_value (float)
    summary += bytes_field(1, bytes_field(1, scalar.tag) + "\x15" + raw(static_cast<float>(scalar.value)));
  return framed(event(wall_time, step, bytes_field(5, summary)));
}

std::string event_restart(double wall_time, std::int64_t step) {
  return framed(event(wall_time, step, bytes_field(7, "\x08\x01")));  // SessionLog: 1 status, START = 1
}

std::string event_records_up_to(std::string_view bytes, std::int64_t last_step, bool& changed) {
  constexpr std::size_t kHead = 12, kTail = 4;
  std::string kept;
  std::size_t at = 0;
  while (bytes.size() - at >= kHead + kTail) {
    const auto length = number_at<std::uint64_t>(bytes, at);
    if (number_at<std::uint32_t>(bytes, at + 8) != masked_crc32c(bytes.substr(at, 8))) break;
    if (length > bytes.size() - at - kHead - kTail) break;
    const std::string_view record = bytes.substr(at + kHead, length);
    if (number_at<std::uint32_t>(bytes, at + kHead + length) != masked_crc32c(record)) break;
    const std::size_t whole = kHead + length + kTail;
    const auto step = step_of(record);
    if (step && *step <= last_step) kept += bytes.substr(at, whole);
    at += whole;
  }
  changed = kept.size() != bytes.size();
  return kept;
}

Result<EventFileWriter> EventFileWriter::open(const fs::path& directory, std::int64_t resumed_from_step,
                                              double wall_time) {
  TAILOR_CHECK(make_directories(directory));
  std::vector<fs::path> earlier;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    if (entry.path().filename().string().starts_with("events.out.tfevents.")) earlier.push_back(entry.path());
  }
  for (const fs::path& file : earlier) {
    TAILOR_TRY(const std::string bytes, read_file(file));
    bool changed = false;
    const std::string kept = event_records_up_to(bytes, resumed_from_step, changed);
    if (changed) TAILOR_CHECK(write_file_atomic(file, kept));
  }
  // Readers take files in the order of their names: time first, then the number of the part.
  EventFileWriter writer(directory / fmt::format("events.out.tfevents.{:010}.tailor.{}",
                                                 static_cast<std::int64_t>(wall_time), earlier.size()));
  TAILOR_CHECK(writer.append(event_file_version(wall_time)));
  if (resumed_from_step > 0) TAILOR_CHECK(writer.restart(wall_time, resumed_from_step + 1));
  return writer;
}

Status EventFileWriter::scalars(double wall_time, std::int64_t step, std::span<const Scalar> scalars) {
  return scalars.empty() ? Status() : append(event_scalars(wall_time, step, scalars));
}

Status EventFileWriter::restart(double wall_time, std::int64_t step) {
  return append(event_restart(wall_time, step));
}

Status EventFileWriter::append(std::string_view bytes) const {
  const auto failed = [&] {
    return Error{ErrorCode::kIo, fmt::format("cannot write {}: {}", file_.string(), std::strerror(errno)),
                 "is the disk full?"};
  };
  const int descriptor = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) return failed();
  const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
  const bool whole = written == static_cast<ssize_t>(bytes.size());
  Status status = whole ? Status() : Status(failed());
  ::close(descriptor);
  return status;
}

}  // namespace tailor
