#pragma once
/// Writes GGUF v3 files, tensor by tensor: only one tensor's values are in memory at a time.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "model/gguf_file.h"

namespace tailor {

/// Declare metadata and tensors, then write(). The tensors' values are asked for during write(), in the order declared.
class GgufWriter {
 public:
  using Values = std::function<Result<std::vector<float>>()>;  // all of them, row-major (shape[0] fastest)
  using Bytes = std::function<Result<std::string_view>()>;     // already in the tensor's type

  void set(std::string key, GgufValue value);  // replaces an earlier value of that key
  void erase(std::string_view key);
  /// f32 values that are converted to `type` (f32, f16, bf16, q8_0, q4_0 and ggml's other quantised types that need no
  /// importance matrix). A row length that does not fit the type is an error of write().
  void add(std::string name, TensorType type, std::vector<std::uint64_t> shape, Values values);
  /// Bytes that are copied as they are.
  void add_raw(std::string name, TensorType type, std::vector<std::uint64_t> shape, Bytes bytes);

  /// Atomic: the file is whole or not there. Bad shapes, repeated names, values that are too few or too many, and
  /// disk errors are reported.
  Status write(const std::filesystem::path& file) const;

 private:
  struct Item {
    std::string name;
    TensorType type;
    std::vector<std::uint64_t> shape;
    Values values;
    Bytes bytes;
  };
  std::vector<std::pair<std::string, GgufValue>> values_;
  std::vector<Item> tensors_;
};

/// f32 values in the bytes of `type`, with ggml's quantisers.
Result<std::string> encode_tensor(TensorType type, std::span<const float> values, std::uint64_t row);

/// Copies a model with every tensor as f32, metadata kept (general.file_type becomes 0). For training and for parity
/// tests, where quantised arithmetic would hide mistakes. Four bytes a parameter on disk; one tensor in memory.
Status dequantize_to_f32(const std::filesystem::path& in, const std::filesystem::path& out);

}  // namespace tailor
