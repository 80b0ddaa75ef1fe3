#pragma once
/// The file of a linear head on an encoder's vectors: a safetensors file with head.weight [outputs, width] and
/// head.bias [outputs], both F32.
///   scores = x head.weight^T + head.bias,   x the vector, or x / |x| where the metadata says unit_vectors = "true".
/// Metadata: format = "tailor-head", version = "1", and unit_vectors where it is so. What tailor-tune trained
/// (weights.safetensors) holds its head by the same names and says the same of it.

#include <map>
#include <string>

namespace tailor {

inline constexpr const char* kHeadWeight = "head.weight";
inline constexpr const char* kHeadBias = "head.bias";
inline constexpr const char* kHeadFormat = "tailor-head";
inline constexpr const char* kUnitVectors = "unit_vectors";

inline bool reads_unit_vectors(const std::map<std::string, std::string>& metadata) {
  const auto found = metadata.find(kUnitVectors);
  return found != metadata.end() && found->second == "true";
}

}  // namespace tailor
