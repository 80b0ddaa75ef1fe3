#pragma once
/// safetensors files (8-byte header length, JSON header, raw little-endian tensors): memory-mapped reading, atomic
/// writing. Format: https://github.com/huggingface/safetensors. Untrusted bytes: every offset is checked before it is
/// used.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"
#include "core/result.h"

namespace tailor {

/// One tensor. `bytes` points into the mapped file (reading) or to the caller's memory (writing).
struct SafeTensor {
  std::string name;
  std::string type;                 // "F32", "F16", "BF16", "F64", "I64", "I32", "I16", "I8", "U8", "BOOL"
  std::vector<std::int64_t> shape;  // empty: a scalar
  std::string_view bytes;

  std::int64_t elements() const;
};

/// Bytes of one element, 0 for a type that is not known.
std::size_t safetensor_type_bytes(std::string_view type);

/// Keeps the map open; views stay valid as long as the object lives (moving it keeps them valid).
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& file);

  const std::vector<SafeTensor>& tensors() const { return tensors_; }
  const SafeTensor* find(std::string_view name) const;  // nullptr where absent
  /// The tensor, checked for type and number of dimensions; errors name the file, expected and seen.
  Result<SafeTensor> get(std::string_view name, std::string_view type, std::size_t dimensions) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  SafetensorsFile(std::filesystem::path path, MappedFile map) : path_(std::move(path)), map_(std::move(map)) {}
  std::filesystem::path path_;
  MappedFile map_;
  std::vector<SafeTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Written in the order given; the header is padded so that tensors start at a multiple of 8.
Status write_safetensors(const std::filesystem::path& file, std::span<const SafeTensor> tensors,
                         const std::map<std::string, std::string>& metadata = {});

/// The same for tensors that are made one at a time: each is asked for its bytes when its turn comes, so that only one
/// is in memory. Too few or too many bytes are an error.
struct StreamedTensor {
  std::string name;
  std::string type;
  std::vector<std::int64_t> shape;
  std::function<Result<std::string>()> bytes;

  std::uint64_t size() const;  // in bytes; 0 for a type that is not known
};
Status write_safetensors(const std::filesystem::path& file, std::span<const StreamedTensor> tensors,
                         const std::map<std::string, std::string>& metadata = {});

/// A tensor for writing from memory that outlives the call.
template <typename T>
SafeTensor safe_tensor(std::string name, std::string type, std::vector<std::int64_t> shape, std::span<const T> values) {
  return {std::move(name), std::move(type), std::move(shape),
          std::string_view(reinterpret_cast<const char*>(values.data()), values.size_bytes())};
}

}  // namespace tailor
