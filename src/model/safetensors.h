#pragma once
/// Safetensors files: an 8-byte little-endian header length, a JSON header (name -> dtype, shape, data_offsets), then
/// the tensors' bytes. Format: https://huggingface.co/docs/safetensors. The bytes are not trusted: every count, offset
/// and product is checked before anything is read, and a bad file is refused with one sentence that names it.
///
/// Like the reference implementation we refuse headers over 100 MB, gaps, overlaps and trailing bytes. Unlike it we
/// limit JSON nesting. Tensors may start at any byte (old writers did not align), so values are copied out, never cast
/// in place.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor {

enum class SafetensorsType : std::uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kU8, kBool };

std::string_view name_of(SafetensorsType type);  // "F32", as written in the header
std::uint64_t bytes_per_value(SafetensorsType type);

struct SafetensorsEntry {
  std::string name;
  SafetensorsType type = SafetensorsType::kF32;
  std::vector<std::uint64_t> shape;  // row-major, slowest first; empty: a scalar
  std::uint64_t elements = 1;        // product of shape
  std::string_view bytes;            // little-endian; valid as long as the Safetensors it came from
  std::size_t shard = 0;             // index into Safetensors::files()
};

/// One file, or all shards of `model.safetensors.index.json`. Read-only; safe to share between threads.
class Safetensors {
 public:
  /// `path` is a .safetensors file, an index file (*.index.json), or a directory that holds model.safetensors or
  /// model.safetensors.index.json.
  static Result<Safetensors> open(const std::filesystem::path& path);
  Safetensors(Safetensors&&) noexcept;
  Safetensors& operator=(Safetensors&&) noexcept;
  ~Safetensors();

  const std::vector<SafetensorsEntry>& entries() const;        // in the order of their data, shard by shard
  const SafetensorsEntry* find(std::string_view name) const;   // nullptr where absent
  const std::map<std::string, std::string>& metadata() const;  // "__metadata__" of the first file
  const std::vector<std::filesystem::path>& files() const;

 private:
  struct Impl;
  explicit Safetensors(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

/// The values as f32 (rounded to nearest where the stored type is wider; BOOL gives 0 and 1).
std::vector<float> to_f32(const SafetensorsEntry& entry);

/// A tensor to be written; `bytes` is borrowed until write_safetensors() returns and must hold exactly the shape's
/// bytes.
struct SafetensorsOutput {
  std::string name;
  SafetensorsType type = SafetensorsType::kF32;
  std::vector<std::uint64_t> shape;
  std::string_view bytes;
};
SafetensorsOutput f32_output(std::string name, std::vector<std::uint64_t> shape, std::span<const float> values);

/// Writes atomically, in the order given; the data section starts at a multiple of 8 bytes. Duplicate names and sizes
/// that do not fit are errors.
Status write_safetensors(const std::filesystem::path& file, std::span<const SafetensorsOutput> tensors,
                         const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace tailor
