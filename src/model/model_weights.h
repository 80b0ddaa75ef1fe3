#pragma once
/// The weights of a Hugging Face directory: one safetensors file, or the shards that an index names.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "core/safetensors.h"

namespace tailor {

/// Read-only; safe to share between threads. Tensors may start at any byte (old writers did not align).
class ModelWeights {
 public:
  /// `path` is a .safetensors file, an index file (*.index.json), or a directory that holds model.safetensors or
  /// model.safetensors.index.json. Shards must hold exactly the tensors that the index gives them.
  static Result<ModelWeights> open(const std::filesystem::path& path);
  ModelWeights(ModelWeights&&) noexcept;
  ModelWeights& operator=(ModelWeights&&) noexcept;
  ~ModelWeights();

  std::vector<const SafeTensor*> tensors() const;       // shard by shard; they live as long as this object
  const SafeTensor* find(std::string_view name) const;  // nullptr where absent
  const std::filesystem::path& file_of(const SafeTensor& tensor) const;  // for messages
  const std::vector<std::filesystem::path>& files() const;

 private:
  struct Impl;
  explicit ModelWeights(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

/// The values as f32, rounded to nearest where the stored type is wider; BOOL gives 0 and 1.
std::vector<float> to_f32(const SafeTensor& tensor);

}  // namespace tailor
