#pragma once
/// GGUF v3 (and v2, the same layout): llama.cpp's model files. Key-values, then a table of tensors, then their bytes.
/// Format: ggml/docs/gguf.md. This reader is ours so that a hostile or truncated file is refused with one sentence
/// before llama.cpp, which asserts on some of them, ever sees it. Needs only ggml's base library, no llama.cpp.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor {

/// On-disk numbers of value types (gguf_type).
enum class GgufType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

/// On-disk numbers of tensor types (ggml_type). Others that ggml knows are carried by number; see name_of().
enum class TensorType : std::int32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBF16 = 30 };
std::string_view name_of(TensorType type);  // ggml's name: "f32", "q4_1", …
/// Bytes of `elements` values whose rows hold `row` values; 0 where a row is not a whole number of blocks.
std::uint64_t tensor_bytes(TensorType type, std::uint64_t row, std::uint64_t elements);

/// One metadata value, kept in its on-disk encoding so that copying a file's metadata is exact.
class GgufValue {
 public:
  static GgufValue u32(std::uint32_t v);
  static GgufValue u64(std::uint64_t v);
  static GgufValue f32(float v);
  static GgufValue boolean(bool v);
  static GgufValue string(std::string_view v);
  static GgufValue strings(std::span<const std::string> v);
  static GgufValue i32s(std::span<const std::int32_t> v);
  static GgufValue f32s(std::span<const float> v);

  GgufType type() const { return type_; }
  GgufType element_type() const { return element_type_; }  // of an array
  std::uint64_t count() const { return count_; }           // of an array; else 1
  // Nothing where the value is of another kind (integers widen; as_number also takes integers).
  std::optional<std::int64_t> as_integer() const;
  std::optional<double> as_number() const;
  std::optional<bool> as_bool() const;
  std::optional<std::string_view> as_string() const;  // lives as long as this value
  std::optional<std::vector<std::string_view>> as_strings() const;
  std::optional<std::vector<std::int64_t>> as_integers() const;  // an array of any integer type
  std::optional<std::vector<double>> as_numbers() const;

  /// From its on-disk encoding, already checked (an array's starts with element type and count).
  GgufValue(GgufType type, std::string encoded);
  const std::string& encoded() const { return encoded_; }

 private:
  GgufType type_;
  GgufType element_type_;
  std::uint64_t count_ = 1;
  std::string encoded_;
};

struct GgufTensor {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<std::uint64_t>
      shape;  // ggml order: shape[0] is the row length (fastest); a [out, in] matrix is {in, out}
  std::uint64_t elements = 0;
  std::uint64_t offset = 0;  // in the data section
  std::string_view bytes;    // valid as long as the GgufFile
};

/// A checked, memory-mapped file. Read-only; safe to share between threads.
class GgufFile {
 public:
  static Result<GgufFile> open(const std::filesystem::path& file);
  GgufFile(GgufFile&&) noexcept;
  GgufFile& operator=(GgufFile&&) noexcept;
  ~GgufFile();

  const std::filesystem::path& path() const;
  std::uint32_t alignment() const;
  const std::vector<std::pair<std::string, GgufValue>>& values() const;  // in file order
  const GgufValue* find(std::string_view key) const;                     // nullptr where absent
  // Typed look-ups; an absent key or another type is an error that names file and key.
  Result<std::int64_t> integer(std::string_view key) const;
  Result<double> number(std::string_view key) const;
  Result<std::string> string(std::string_view key) const;
  /// "general.architecture", e.g. "llama", "bert".
  Result<std::string> architecture() const;

  const std::vector<GgufTensor>& tensors() const;
  const GgufTensor* tensor(std::string_view name) const;
  /// Values of a tensor as f32, dequantised with ggml's reference code.
  Result<std::vector<float>> tensor_f32(std::string_view name) const;

 private:
  struct Impl;
  explicit GgufFile(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

bool can_be_f32(TensorType type);  // false for integers
Result<std::vector<float>> to_f32(const GgufTensor& tensor);
/// `count` rows from `first` on (a row is shape[0] values); for matrices too large to hold whole.
Result<std::vector<float>> rows_to_f32(const GgufTensor& tensor, std::uint64_t first, std::uint64_t count);

}  // namespace tailor
