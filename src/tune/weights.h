#pragma once
/// The base model's weights, read-only and memory-mapped: a GGUF file of any quantisation, or a Hugging Face directory
/// / safetensors file of a BERT model, shown under the GGUF names (token_embd.weight, blk.N.attn_q.weight, …) and keys.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tailor::tune {

/// A tensor where it lies in the file; the bytes stay valid as long as the BaseWeights object.
struct StoredTensor {
  std::string name;
  std::vector<std::int64_t> shape;  // row-major, [out, in] for a linear layer
  int ggml_type = 0;                // enum ggml_type
  std::string_view bytes;
};

/// Threads: const calls are safe from several threads.
class BaseWeights {
 public:
  /// Errors: absent, corrupt or cut short, an unknown tensor type, no architecture named.
  static Result<BaseWeights> open(const std::filesystem::path& file_or_directory);
  BaseWeights(BaseWeights&&) noexcept;
  BaseWeights& operator=(BaseWeights&&) noexcept;
  ~BaseWeights();

  const std::string& architecture() const;  // "bert", "llama", …
  const std::filesystem::path& path() const;

  /// Metadata by GGUF key; a key without a dot at the front of the architecture's own is given in full:
  /// number("bert.block_count"). Absent or of another kind: nullopt.
  std::optional<double> number(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  /// As number(), but absent is Exception{kCorruptData} naming the file and the key.
  double need_number(std::string_view key) const;

  bool has(std::string_view tensor) const;
  std::vector<std::string> names() const;
  /// Where the tensor lies, without reading it. Absent: Exception{kCorruptData} naming file and tensor.
  const StoredTensor& stored(std::string_view tensor) const;
  /// Dequantised to f32 in memory of its own. The shape is checked where `shape` is given; -1 matches any size.
  at::Tensor load(std::string_view tensor, std::span<const std::int64_t> shape = {}) const;
  at::Tensor load(std::string_view tensor, std::initializer_list<std::int64_t> shape) const {
    return load(tensor, std::span<const std::int64_t>(shape.begin(), shape.size()));
  }
  /// Rows `rows` of a two-dimensional tensor, [rows.size(), columns], f32; reads no other rows.
  at::Tensor load_rows(std::string_view tensor, std::span<const std::int64_t> rows) const;

 private:
  struct Impl;
  explicit BaseWeights(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Dequantises `rows` rows of `columns` elements each that lie one after another in `bytes`. Throws on an unknown type.
void dequantise(int ggml_type, const char* bytes, std::int64_t rows, std::int64_t columns, float* out);

}  // namespace tailor::tune
