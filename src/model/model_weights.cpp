#include "model/model_weights.h"

#include <fmt/format.h>

#include <cstring>
#include <unordered_map>

#include "core/json.h"
#include "model/half.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxShards = 4096;

Error corrupt(const fs::path& file, std::string_view what) {
  return {ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what),
          "the file is damaged or incomplete; fetch it again"};
}

/// Shards by name, each once, in the order of first mention; and which tensor stands where.
struct Index {
  std::vector<std::string> files;
  std::unordered_map<std::string, std::size_t> where;
};

Result<Index> read_index(const fs::path& file) {
  TAILOR_TRY(const Json json, read_json(file));
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object() || map->empty()) {
    return corrupt(file, "no weight_map that names the shard of every tensor");
  }
  Index index;
  std::unordered_map<std::string, std::size_t> known;
  for (const auto& [tensor, value] : map->items()) {
    if (!value.is_string()) return corrupt(file, fmt::format("weight_map of '{}' is not a file name", tensor));
    const auto shard = value.get<std::string>();
    // A shard lies beside its index; a path could lead anywhere on the machine.
    if (shard.empty() || shard == "." || shard == ".." ||
        shard.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
      return corrupt(file, fmt::format("weight_map of '{}' names '{}', which is not a plain file name", tensor, shard));
    }
    const auto [it, fresh] = known.emplace(shard, index.files.size());
    if (fresh) index.files.push_back(shard);
    if (index.files.size() > kMaxShards) return corrupt(file, fmt::format("more than {} shards", kMaxShards));
    index.where[tensor] = it->second;
  }
  return index;
}

Result<fs::path> weights_file(const fs::path& path) {
  std::error_code ec;
  if (!fs::is_directory(path, ec)) return path;
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    if (fs::exists(path / name, ec)) return path / name;
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: holds neither model.safetensors nor model.safetensors.index.json", path.string()),
               "a model saved as pytorch_model.bin must be saved again as safetensors"};
}

template <typename T, typename Convert>
void convert_all(std::string_view bytes, std::vector<float>& out, Convert convert) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = convert(value);
  }
}

}  // namespace

struct ModelWeights::Impl {
  std::vector<fs::path> paths;
  std::vector<SafetensorsFile> shards;
  struct Place {
    std::size_t shard;
    const SafeTensor* tensor;
  };
  std::unordered_map<std::string_view, Place> by_name;  // keys live in shards
};

ModelWeights::ModelWeights(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
ModelWeights::ModelWeights(ModelWeights&&) noexcept = default;
ModelWeights& ModelWeights::operator=(ModelWeights&&) noexcept = default;
ModelWeights::~ModelWeights() = default;

Result<ModelWeights> ModelWeights::open(const fs::path& path) {
  TAILOR_TRY(const fs::path file, weights_file(path));
  const bool sharded = file.filename().string().ends_with(".index.json");
  Index index;
  if (sharded) {
    TAILOR_TRY(index, read_index(file));
  } else {
    index.files.push_back(file.filename().string());
  }
  auto impl = std::make_unique<Impl>();
  for (const std::string& name : index.files) {
    impl->paths.push_back(file.parent_path() / name);
    TAILOR_TRY(SafetensorsFile shard, SafetensorsFile::open(impl->paths.back()));
    impl->shards.push_back(std::move(shard));
  }
  for (std::size_t s = 0; s < impl->shards.size(); ++s) {
    for (const SafeTensor& tensor : impl->shards[s].tensors()) {
      if (sharded) {
        const auto it = index.where.find(tensor.name);
        if (it == index.where.end() || it->second != s) {
          return corrupt(impl->paths[s], fmt::format("tensor '{}' is not listed for this shard in {}", tensor.name,
                                                     file.filename().string()));
        }
      }
      impl->by_name.emplace(tensor.name, Impl::Place{s, &tensor});
    }
  }
  for (const auto& [tensor, s] : index.where) {
    if (!impl->by_name.contains(tensor)) {
      return corrupt(impl->paths[s],
                     fmt::format("tensor '{}' is missing; {} says that it is here", tensor, file.filename().string()));
    }
  }
  return ModelWeights(std::move(impl));
}

std::vector<const SafeTensor*> ModelWeights::tensors() const {
  std::vector<const SafeTensor*> out;
  for (const SafetensorsFile& shard : impl_->shards) {
    for (const SafeTensor& tensor : shard.tensors()) out.push_back(&tensor);
  }
  return out;
}

const SafeTensor* ModelWeights::find(std::string_view name) const {
  const auto it = impl_->by_name.find(name);
  return it == impl_->by_name.end() ? nullptr : it->second.tensor;
}

const fs::path& ModelWeights::file_of(const SafeTensor& tensor) const {
  const auto it = impl_->by_name.find(tensor.name);
  return impl_->paths[it == impl_->by_name.end() ? 0 : it->second.shard];
}

const std::vector<fs::path>& ModelWeights::files() const {
  return impl_->paths;
}

std::vector<float> to_f32(const SafeTensor& tensor) {
  std::vector<float> out(static_cast<std::size_t>(tensor.elements()));
  const auto cast = [](auto v) { return static_cast<float>(v); };
  const std::string_view type = tensor.type;
  const std::string_view bytes = tensor.bytes;
  if (type == "F32") {
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  } else if (type == "F16") {
    convert_all<std::uint16_t>(bytes, out, half_to_float);
  } else if (type == "BF16") {
    convert_all<std::uint16_t>(bytes, out, bfloat16_to_float);
  } else if (type == "F64") {
    convert_all<double>(bytes, out, cast);
  } else if (type == "I64") {
    convert_all<std::int64_t>(bytes, out, cast);
  } else if (type == "I32") {
    convert_all<std::int32_t>(bytes, out, cast);
  } else if (type == "I16") {
    convert_all<std::int16_t>(bytes, out, cast);
  } else if (type == "I8") {
    convert_all<std::int8_t>(bytes, out, cast);
  } else if (type == "U64") {
    convert_all<std::uint64_t>(bytes, out, cast);
  } else if (type == "U32") {
    convert_all<std::uint32_t>(bytes, out, cast);
  } else if (type == "U16") {
    convert_all<std::uint16_t>(bytes, out, cast);
  } else if (type == "U8") {
    convert_all<std::uint8_t>(bytes, out, cast);
  } else {  // BOOL, the last type that SafetensorsFile::open() lets through
    convert_all<std::uint8_t>(bytes, out, [](std::uint8_t v) { return v != 0 ? 1.0f : 0.0f; });
  }
  return out;
}

}  // namespace tailor
